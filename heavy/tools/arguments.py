"""From the text of a tool call to arguments that satisfy its schema, or to a message the model can act on.

Strict JSON is taken as it is. Broken JSON is mended only where the result is an object that validates and
nothing can have been cut off: a call that lost its end inside a string would run half of what was meant.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import json_repair
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry

from heavy.core.errors import ConfigError
from heavy.tools.text import clip

ARGUMENTS_CHARS_MAX: Final = 1_000_000
REPAIR_CHARS_MAX: Final = 32_000
"""Longer texts are not mended: the repair is quadratic at worst (about 0.25 s for this length)."""
PROBLEMS_SHOWN_MAX: Final = 5
VALUE_CHARS_MAX: Final = 120

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class BadArguments(Exception):
    """The arguments cannot be used. The message is for the model."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments that satisfy their schema. `repair` names what was mended; empty for clean ones."""

    values: Mapping[str, Any]
    repair: str = ""


class Schema:
    """A tool's parameters, compiled once. References to anything outside the schema are not followed."""

    def __init__(self, tool: str, parameters: Mapping[str, Any]) -> None:
        schema = dict(parameters)
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ConfigError(
                f"The parameters of tool {tool!r} are not a JSON schema: {error.message}"
            ) from error
        self._validator = Draft202012Validator(schema, registry=Registry())

    def problems(self, values: object) -> str:
        """What is wrong with `values`, one problem a line; empty when nothing is."""
        try:
            found = sorted(
                self._validator.iter_errors(values), key=lambda e: (len(e.absolute_path), str(e.path))
            )
        except Exception as error:
            return f"- the schema could not be applied: {type(error).__name__}: {error}"
        return _listed(found)


async def read(text: str, schema: Schema) -> Arguments:
    """The arguments in `text`. Raises `BadArguments`."""
    if len(text) > ARGUMENTS_CHARS_MAX:
        raise BadArguments(
            f"The arguments are {len(text)} characters long; at most {ARGUMENTS_CHARS_MAX} are read."
        )
    try:
        values, repair = _strict(text), ""
    except (ValueError, RecursionError) as error:
        values, repair = await _mended(text, schema, error)
    problems = schema.problems(values)
    if problems:
        raise BadArguments(f"The arguments do not match the tool's schema:\n{problems}")
    assert isinstance(values, dict)
    return Arguments(values, repair)


def _strict(text: str) -> object:
    values = json.loads(text, parse_constant=_no_constant)
    if not isinstance(values, dict):
        raise BadArguments(f"The arguments must be one JSON object, not {_kind(values)}.")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def _mended(text: str, schema: Schema, cause: Exception) -> tuple[object, str]:
    """What `text` was meant to be, where that is beyond doubt."""
    refusal = BadArguments(f"The arguments are not valid JSON: {cause}. Send one JSON object.")
    if not text.strip():
        return {}, "empty"
    if len(text) > REPAIR_CHARS_MAX:
        raise refusal from cause
    if '"' in _STRING.sub("", text):
        raise BadArguments(
            f"The arguments are not valid JSON: {cause}. A string in them does not end: "
            "they may have been cut off, or a quote inside one is not escaped. Send the whole call again."
        ) from cause
    for repair, parse in (("control_characters", _lenient), ("json_repair", _repaired)):
        try:
            values = await asyncio.to_thread(parse, text)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and not schema.problems(values):
            return values, repair
    raise refusal from cause


def _lenient(text: str) -> object:
    """Raw line breaks and tabs inside strings are allowed; nothing else is."""
    return json.loads(text, strict=False, parse_constant=_no_constant)


def _repaired(text: str) -> object:
    return json_repair.loads(text, strict=True)


def _listed(errors: Iterable[ValidationError]) -> str:
    lines = [_problem(error) for error in errors]
    hidden = len(lines) - PROBLEMS_SHOWN_MAX
    shown = lines[:PROBLEMS_SHOWN_MAX]
    return "\n".join([*shown, f"- and {hidden} more"] if hidden > 0 else shown)


def _problem(error: ValidationError) -> str:
    """One violation as path, what was expected, what came."""
    path = error.json_path.removeprefix("$").removeprefix(".") or "arguments"
    expected = error.validator_value
    match error.validator:
        case "required":
            return f"- {path}: expected the properties {_shown(expected)}, got {_shown(error.instance)}"
        case "type":
            return f"- {path}: expected {expected}, got {_kind(error.instance)} {_shown(error.instance)}"
        case "enum" | "const":
            return f"- {path}: expected one of {_shown(expected)}, got {_shown(error.instance)}"
        case "additionalProperties":
            return f"- {path}: {clip(error.message, 2 * VALUE_CHARS_MAX)}"
        case rule:
            return f"- {path}: expected {rule} {_shown(expected)}, got {_shown(error.instance)}"


def _shown(value: object) -> str:
    return clip(json.dumps(value, ensure_ascii=False, default=str), VALUE_CHARS_MAX)


def _kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")
