"""From the text of a tool call to arguments that satisfy its schema, or to a message the model can act on.

Strict JSON that satisfies the schema is taken as it is. Anything else is mended only where the result is an
object that validates and nothing can have been cut off: a call that lost its end inside a string would run
half of what was meant. Values are respelled where the schema leaves one reading (`"5"` where an integer is
asked for), never guessed.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import json_repair
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry

from heavy.core.errors import ConfigError
from heavy.core.repairs import Repair
from heavy.tools.text import clip

ARGUMENTS_CHARS_MAX: Final = 1_000_000
REPAIR_CHARS_MAX: Final = 32_000
"""Longer texts are not mended: the repair is quadratic at worst (about 0.25 s for this length)."""
PROBLEMS_SHOWN_MAX: Final = 5
VALUE_CHARS_MAX: Final = 120

RESPELLED_MAX: Final = 16
"""Values of one call that are respelled at most."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ANY_STRING = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
_PLAIN = re.compile(
    r"""(?:[\s\[\]{}:,]|""|[A-Za-z_]\w*\s*(?=:)|true|false|null|True|False|None"""
    r"""|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)*"""
)
"""What may stand between the strings of broken JSON whose meaning is plain: anything else is text that lost
its quotes."""
_PAIRS = {"}": "{", "]": "["}
_FENCED = re.compile(r"^\s*```[A-Za-z]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)
_LEFTOVERS = frozenset("]}),;` \t\r\n")
"""What may follow a complete object: closing marks without an opening one mean nothing."""


class BadArguments(Exception):
    """The arguments cannot be used. The message is for the model; `kind` says what is wrong with them."""

    def __init__(self, message: str, kind: Repair = Repair.INVALID_JSON) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments that satisfy their schema. `repairs` names what was mended; empty for clean ones."""

    values: Mapping[str, Any]
    repairs: tuple[Repair, ...] = ()


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
            found = self._errors(values)
        except Exception as error:
            return f"- the schema could not be applied: {type(error).__name__}: {error}"
        return _listed(found)

    def respelled(self, values: object) -> object | None:
        """`values` with text in place of another type read as that type, where that satisfies the schema."""
        try:
            mended = copy.deepcopy(values)
            errors = self._errors(values)[: RESPELLED_MAX + 1]
            if len(errors) > RESPELLED_MAX or not all(_respell(mended, error) for error in errors):
                return None
            return None if self._errors(mended) else mended
        except Exception:  # the schema could not be applied: `problems` says so
            return None

    def _errors(self, values: object) -> list[ValidationError]:
        found = self._validator.iter_errors(values)
        return sorted(found, key=lambda error: (len(error.absolute_path), str(error.path)))


async def read(text: str, schema: Schema) -> Arguments:
    """The arguments in `text`. Raises `BadArguments`."""
    if len(text) > ARGUMENTS_CHARS_MAX:
        raise BadArguments(
            f"The arguments are {len(text)} characters long; at most {ARGUMENTS_CHARS_MAX} are read."
        )
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return await _mended(text, schema, error)
    if not isinstance(values, dict):
        return _unwrapped_string(values, schema)
    return _checked(values, schema)


def _checked(values: object, schema: Schema, *repairs: Repair) -> Arguments:
    """Values as arguments, respelled where need be. Raises `BadArguments`."""
    problems = schema.problems(values)
    if problems:
        respelled = schema.respelled(values)
        if respelled is None:
            raise BadArguments(
                f"The arguments do not match the tool's schema:\n{problems}", Repair.SCHEMA_MISMATCH
            )
        values, repairs = respelled, (*repairs, Repair.COERCED)
    if not isinstance(values, dict):
        raise BadArguments(f"The arguments must be one JSON object, not {_kind(values)}.")
    return Arguments(values, repairs)


def _unwrapped_string(values: object, schema: Schema) -> Arguments:
    """An object that was encoded twice. Raises `BadArguments` for every other value."""
    if isinstance(values, str) and values.lstrip().startswith("{"):
        try:
            return _checked(json.loads(values, parse_constant=_no_constant), schema, Repair.UNWRAPPED)
        except (ValueError, RecursionError):
            pass  # what it holds is no JSON: the refusal below says what was expected
    raise BadArguments(f"The arguments must be one JSON object, not {_kind(values)}.")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def _mended(text: str, schema: Schema, cause: Exception) -> Arguments:
    """What `text` was meant to be, where that is beyond doubt."""
    refusal = BadArguments(f"The arguments are not valid JSON: {cause}. Send one JSON object.")
    if not text.strip():
        return _checked({}, schema, Repair.ARGUMENTS_FILLED)
    if len(text) > REPAIR_CHARS_MAX:
        raise refusal from cause
    if '"' in _STRING.sub("", text):
        raise BadArguments(
            f"The arguments are not valid JSON: {cause}. A string in them does not end: "
            "they may have been cut off, or a quote inside one is not escaped. Send the whole call again."
        ) from cause
    for repair, parse in (
        (Repair.CONTROL_CHARACTERS, _lenient),
        (Repair.UNWRAPPED, _unwrapped),
        (Repair.JSON_REPAIR, _closed),
        (Repair.JSON_REPAIR, _repaired),
    ):
        try:
            return _checked(await asyncio.to_thread(parse, text), schema, repair)
        except (ValueError, RecursionError, BadArguments):
            continue
    raise refusal from cause


def _lenient(text: str) -> object:
    """Raw line breaks and tabs inside strings are allowed; nothing else is."""
    return json.loads(text, strict=False, parse_constant=_no_constant)


def _unwrapped(text: str) -> object:
    """A whole object inside a code fence, or with closing brackets too many after it."""
    if fenced := _FENCED.match(text):
        text = fenced[1]
    decoder = json.JSONDecoder(strict=False, parse_constant=_no_constant)
    values, end = decoder.raw_decode(text.lstrip())
    if set(text.lstrip()[end:]) - _LEFTOVERS:
        raise ValueError("something follows the object")
    return values


def _closed(text: str) -> object:
    """Closing brackets that are missing at the end, where what is there ends with a whole value."""
    left = _left_open(_STRING.sub('""', text))
    if not left or text.rstrip()[-1] not in '"]}':
        raise ValueError("nothing is left open, or what is there was cut")
    return _lenient(text + left)


def _left_open(skeleton: str) -> str:
    """The closing brackets that a text without its strings lacks. Raises ValueError for a wrong one."""
    opened: list[str] = []
    for mark in skeleton:
        if mark in "{[":
            opened.append(mark)
        elif mark in _PAIRS and (not opened or opened.pop() != _PAIRS[mark]):
            raise ValueError("the brackets do not pair")
    return "".join("}" if mark == "{" else "]" for mark in reversed(opened))


def _repaired(text: str) -> object:
    """Commas too many, bare keys, single quotes, Python's constants. Nothing that was cut or lost a quote."""
    skeleton = _ANY_STRING.sub('""', text)
    if not _PLAIN.fullmatch(skeleton) or _left_open(skeleton):
        raise ValueError("its meaning is not plain")
    values = json_repair.loads(text, strict=True)
    if _has_non_finite(values):
        raise ValueError("a number that JSON does not have")
    return values


def _has_non_finite(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_non_finite, value.values()))
    if isinstance(value, list):
        return any(map(_has_non_finite, value))
    return isinstance(value, float) and not math.isfinite(value)


def _respell(values: Any, error: ValidationError) -> bool:
    """Read one value as the type its schema names. False where that is not the problem, or no reading."""
    wanted, path = error.validator_value, list(error.absolute_path)
    if error.validator != "type" or not isinstance(wanted, str) or wanted == "string" or not path:
        return False
    if not isinstance(error.instance, str):
        return False
    try:
        meant = json.loads(error.instance, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    place = values
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = meant
    return True


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
