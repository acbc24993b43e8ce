"""Whether the tools a caller declares can be accepted: names, schemas, sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from heavy.aggregation.reflective import TRACE_TOOLS
from heavy.core.errors import ConfigError, FieldViolation
from heavy.core.tools import Effects, ToolSpec
from heavy.tools.arguments import Schema

TOOLS_MAX: Final = 64
DESCRIPTION_CHARS_MAX: Final = 8_000
SCHEMA_BYTES_MAX: Final = 64 << 10
DECLARATIONS_BYTES_MAX: Final = 512 << 10
SCHEMA_DEPTH_MAX: Final = 32
TIMEOUT_S: Final = 60.0
TIMEOUT_S_MAX: Final = 3600.0
RESULT_BYTES_MAX: Final = 1 << 20
"""A larger result is refused, and the model is told."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REFUSED: Final = ("pattern", "patternProperties", "$dynamicRef")
"""Keywords that let a declaration decide how long the server computes."""


def check_declarations(tools: Sequence[ToolSpec], taken: Collection[str]) -> tuple[FieldViolation, ...]:
    """Every reason why `tools` cannot be declared; `taken` are the names of the server's own tools."""
    if len(tools) > TOOLS_MAX:
        return (FieldViolation("tools", f"are {len(tools)}; at most {TOOLS_MAX} can be declared"),)
    violations = [v for index, tool in enumerate(tools) for v in _tool(f"tools[{index}]", tool, taken)]
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            violations.append(FieldViolation(f"tools[{index}].name", f"{name!r:.80} is declared twice"))
    size = sum(len(tool.description.encode()) + _size(tool.parameters) for tool in tools)
    if size > DECLARATIONS_BYTES_MAX:
        problem = f"have {size} bytes together; at most {DECLARATIONS_BYTES_MAX} are accepted"
        violations.append(FieldViolation("tools", problem))
    return tuple(violations)


def _tool(path: str, tool: ToolSpec, taken: Collection[str]) -> Iterator[FieldViolation]:
    if not _NAME.fullmatch(tool.name):
        yield FieldViolation(f"{path}.name", f"{tool.name!r:.80} must be 1 to 64 of A-Z, a-z, 0-9, '_', '-'")
    elif tool.name in taken or tool.name in TRACE_TOOLS:
        problem = f"{tool.name!r} is a tool of the server's own; choose another name"
        yield FieldViolation(f"{path}.name", problem)
    if len(tool.description) > DESCRIPTION_CHARS_MAX:
        problem = f"has {len(tool.description)} characters; at most {DESCRIPTION_CHARS_MAX} are accepted"
        yield FieldViolation(f"{path}.description", problem)
    if not 0 < tool.timeout_s <= TIMEOUT_S_MAX:
        problem = f"is {tool.timeout_s:g} s; it must be above 0 and at most {TIMEOUT_S_MAX:g} s"
        yield FieldViolation(f"{path}.timeout", problem)
    if tool.cacheable and tool.effects is Effects.WRITE:
        problem = "is set for a tool that writes; only what is pure or reads can be shared"
        yield FieldViolation(f"{path}.cacheable", problem)
    if problem := _schema(tool):
        yield FieldViolation(f"{path}.parameters", problem)


def _schema(tool: ToolSpec) -> str:
    """What is wrong with a tool's parameters; empty when nothing is."""
    if _size(tool.parameters) > SCHEMA_BYTES_MAX:
        return f"have {_size(tool.parameters)} bytes; at most {SCHEMA_BYTES_MAX} are accepted"
    if tool.parameters.get("type") != "object":
        return 'must be a JSON schema with "type": "object"'
    if problem := _keywords(tool.parameters, SCHEMA_DEPTH_MAX):
        return problem
    try:
        Schema(tool.name, tool.parameters)
    except (ConfigError, RecursionError) as error:
        return f"are no JSON schema: {error}"[:300]
    return ""


def _keywords(part: Any, depth: int) -> str:
    """What of a schema is not applied here; property names are not keywords."""
    if depth == 0:
        return f"are nested more than {SCHEMA_DEPTH_MAX} deep"
    if isinstance(part, Mapping):
        for name, value in part.items():
            if name in _REFUSED and not isinstance(value, bool):
                return f"use {name!r}, which is not applied here; check such things in the tool itself"
            inner = (
                value.values() if name in ("properties", "$defs") and isinstance(value, Mapping) else (value,)
            )
            for one in inner:
                if problem := _keywords(one, depth - 1):
                    return problem
    elif isinstance(part, list):
        return next((problem for one in part if (problem := _keywords(one, depth - 1))), "")
    return ""


def _size(parameters: Mapping[str, Any]) -> int:
    return len(json.dumps(dict(parameters)))
