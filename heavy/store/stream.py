"""Entries and deltas as items of the store's streams, and back."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter

from heavy.core.codec import load
from heavy.core.records import Delta, Entry, Record

Item = tuple[bytes, dict[bytes, bytes]]
"""A stream item as the client library gives it: its id and its fields."""

_DELTAS: TypeAdapter[tuple[Delta, ...]] = TypeAdapter(tuple[Delta, ...])


def record_of(item: Item) -> Record:
    """The record in an item of a log; its number is the item's id."""
    identifier, fields = item
    entry = load(Entry, fields[b"e"])
    number = int(identifier.partition(b"-")[0])
    return Record(number, entry.trajectory, entry.step, entry.at_ms, entry.body)


def dump_deltas(deltas: Sequence[Delta]) -> bytes:
    """Deltas as one item."""
    return _DELTAS.dump_json(tuple(deltas))


def deltas_of(item: Item) -> tuple[Delta, ...]:
    """The deltas in an item."""
    return _DELTAS.validate_json(item[1][b"d"])
