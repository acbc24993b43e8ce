"""Rows of a dataset file, each with the number a person finds it by: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from heavy.core.errors import InvalidDataset

FIELD_CHARS_MAX: Final = 8 << 20
_UNREAD_COLUMNS: Final = ("image_preview", "rationale_image")
"""Pictures that published files carry beside the text; large, and of no use here."""
_PARQUET_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Row:
    """`place` is the row as a person would find it: "line 7", "row 7"."""

    number: int
    place: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that is no row, and why."""

    place: str
    problem: str


def rows(path: Path) -> Iterator[Row | Malformed]:
    """The rows of a file, by its ending: `.jsonl`, `.csv`, `.tsv` or `.parquet`.

    Raises `InvalidDataset` when the file cannot be read at all; what is wrong with one row comes as
    `Malformed` in its place, so that all such rows can be told of at once.
    """
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            found = _json_lines(path)
        case ".csv":
            found = _separated(path, ",")
        case ".tsv":
            found = _separated(path, "\t")
        case ".parquet":
            found = _parquet(path)
        case ending:
            raise InvalidDataset(
                f"{path} ends in {ending or 'nothing'!r}; datasets are .jsonl, .csv, .tsv or .parquet files"
            )
    try:
        yield from found
    except OSError as error:
        raise InvalidDataset(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidDataset(
            f"{path} is not UTF-8 text (byte {error.start}); is it really a {path.suffix} file?"
        ) from error


def _json_lines(path: Path) -> Iterator[Row | Malformed]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                values = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                yield Malformed(place, f"is not JSON: {error}")
                continue
            if isinstance(values, dict):
                yield Row(number, place, values)
            else:
                yield Malformed(place, f"is a JSON {type(values).__name__}; every line must be an object")


def _separated(path: Path, delimiter: str) -> Iterator[Row | Malformed]:
    csv.field_size_limit(FIELD_CHARS_MAX)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
        number = 0
        while True:
            number += 1
            try:
                values = next(reader, None)
            except csv.Error as error:
                yield Malformed(f"row {number}", f"is not {path.suffix[1:].upper()}: {error}")
                return
            if values is None:
                return
            if None in values:
                yield Malformed(f"row {number}", "has more fields than the header has columns")
            elif None in values.values():
                yield Malformed(f"row {number}", "has fewer fields than the header has columns")
            else:
                yield Row(number, f"row {number}", dict(values))


def _parquet(path: Path) -> Iterator[Row | Malformed]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name not in _UNREAD_COLUMNS]
            for batch in file.iter_batches(_PARQUET_ROWS, columns=columns):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, f"row {number}", values)
    except pa.ArrowException as error:
        raise InvalidDataset(f"{path} is not a readable Parquet file: {error}") from error
