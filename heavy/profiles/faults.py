"""What is wrong in a TOML file of the operator's: file, line, field, what is wrong and how to mend it."""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from heavy.core.errors import ConfigError

FILE_BYTES_MAX: Final = 1 << 20

FieldPath = tuple[int | str, ...]

SET_BY_LOADER: Final = ("directory", "file")
"""Fields of a profile that no file may write."""

_HEADER: Final = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY: Final = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+(?:\s*\.\s*[A-Za-z0-9_\"'-]+)*)\s*=")


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A file that was read, so that faults in it can be shown. `noun` is what it holds, for messages."""

    file: Path
    text: str
    values: Mapping[str, Any]
    noun: str

    @classmethod
    def read(cls, file: Path, noun: str) -> TomlFile:
        """Raises `ConfigError` for what cannot be read or is no TOML."""
        return cls.parse(_text(file, noun), file, noun)

    @classmethod
    def parse(cls, text: str, file: Path, noun: str) -> TomlFile:
        """A text that came as `file`. Raises `ConfigError` for what is no TOML."""
        try:
            return cls(file, text, tomllib.loads(text), noun)
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"at line (\d+)", str(error))
            line = int(place[1]) if place else max(1, len(text.splitlines()))
            raise ConfigError(f"{file}:{line}: this is not TOML: {error}; correct it.") from error

    def fault(self, path: FieldPath, problem: str) -> ConfigError:
        """An error about the field at `path`."""
        return ConfigError(self._said(path, problem))

    def faults(
        self, error: ValidationError, model: type[BaseModel], mends: Mapping[str, str] | None = None
    ) -> ConfigError:
        """Everything that validation found, a line each. `mends` says how to add what is missing."""
        return ConfigError("\n".join(self._lines(error, model, mends or {})))

    def _lines(
        self, error: ValidationError, model: type[BaseModel], mends: Mapping[str, str]
    ) -> Iterator[str]:
        for found in error.errors(include_url=False):
            path = found["loc"]
            if found["type"] == "extra_forbidden":
                known = _fields_at(model, path[:-1])
                mend = meant(str(path[-1]), known) or f" Known here: {', '.join(sorted(known))}."
                yield self._said(path, f"is not a field of a {self.noun}.{mend} Correct or remove it")
            elif found["type"] == "missing":
                yield self._said(path, f"is missing; {mends.get('.'.join(map(str, path)), 'add it')}")
            else:
                said = found["msg"].removeprefix("Value error, ")
                yield self._said(path, f"is {found['input']!r:.80}; {said[:1].lower()}{said[1:]}")

    def _said(self, path: FieldPath, problem: str) -> str:
        field = ".".join(str(part) for part in path)
        return f"{self.file}:{line_of(self.text, path)}: {field}: {problem}."


def _text(file: Path, noun: str) -> str:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{file}: has more than {FILE_BYTES_MAX} bytes; that is no {noun}.")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}.") from error


def meant(name: str, known: Iterable[str]) -> str:
    """A sentence with the name that was probably meant; empty when none is close."""
    close = difflib.get_close_matches(name, tuple(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def _fields_at(model: type[BaseModel], path: FieldPath) -> set[str]:
    """The names that the table at `path` may hold. Members of a mapping or list all have one model."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = next(iter(_models(field.annotation)), None) if field is not None else None
        model = inner or model  # a part that is no field is a name of a table's own choosing
    return set(model.model_fields) - set(SET_BY_LOADER)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def line_of(text: str, path: FieldPath) -> int:
    """The line, from 1, of the deepest part of `path` that the TOML text writes out; 1 when none is."""
    wanted = tuple(str(part) for part in path if isinstance(part, str))
    table: tuple[str, ...] = ()
    best, best_depth = 1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            here = table
        elif key := _KEY.match(line):
            here = table + _parts(key[1])
        else:
            continue
        depth = len(here)
        if best_depth < depth <= len(wanted) and here == wanted[:depth]:
            best, best_depth = number, depth
    return best


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
