"""Domain types to JSON and back, for the store and for Ray. One adapter a type, built once."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

T = TypeVar("T")


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(of: Any) -> TypeAdapter[Any]:
    if of not in _ADAPTERS:
        _ADAPTERS[of] = TypeAdapter(of)
    return _ADAPTERS[of]


def dump(value: object) -> bytes:
    """JSON of a frozen domain dataclass."""
    return _adapter(type(value)).dump_json(value)


def load(of: type[T], data: bytes | str) -> T:
    """The domain object that `dump` wrote. Raises pydantic's ValidationError on anything else."""
    return cast(T, _adapter(of).validate_json(data))
