"""Constraints on the output, described as plain data here and turned into OpenVINO's objects in the core."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema

from workers.engines.api.errors import BadRequest
from workers.engines.formats.markers import ToolFormat

ANY_OBJECT: dict[str, Any] = {"type": "object"}


def checked(schema: object, param: str) -> str:
    """The schema as text, once it is known to be one: a wrong one stops the pipeline. Raises BadRequest."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)  # type: ignore[arg-type]
    except jsonschema.SchemaError as error:
        raise BadRequest(f"{param} is not a JSON schema: {error.message}.", param=param) from error
    return json.dumps(schema)


def one_json(schema: object, prefix: str) -> dict[str, Any]:
    """Exactly one JSON document, after a fixed prefix."""
    return _sequence([prefix, {"schema": checked(schema, "response_format.json_schema.schema")}])


def one_call(
    output: ToolFormat, tools: Sequence[Mapping[str, Any]], name: str | None, index: int, prefix: str
) -> dict[str, Any]:
    """Exactly one call: of the named tool, else of any. `index` is the number K2's ids give it."""
    offered = [tool for tool in tools if name is None or tool["function"]["name"] == name]
    calls = {"any": [_sequence(_call(output, tool["function"], {"text": str(index)})) for tool in offered]}
    return _sequence([prefix + output.section_begin, calls, output.section_end])


def well_formed_calls(output: ToolFormat, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Free text in which every call that begins is one of a declared tool, with arguments of its schema."""
    tags = []
    for tool in tools:
        begin, *middle, end = _call(output, tool["function"], {"regex": "[0-9]{1,4}"})
        tags.append({"begin": begin["text"], "inside": _sequence(middle), "end": end["text"]})
    return {"triggers": [output.call_begin], "tags": tags}


def _call(output: ToolFormat, function: Mapping[str, Any], index: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of one call, in order."""
    name = function["name"]
    if not re.fullmatch(r"[\w.\-/]+", name):
        raise BadRequest(
            f"The tool name {name!r} cannot be constrained; use letters, digits, _ . - /.", param="tools"
        )
    schema = {"schema": checked(function.get("parameters") or ANY_OBJECT, f"tools ({name}) parameters")}
    if output.style == "json":
        begin = f'{output.call_begin}\n{{"name": "{name}", "arguments": '
        return [{"text": begin}, schema, {"text": "}\n" + output.call_end}]
    begin = f"{output.call_begin}functions.{name}:"
    return [{"text": begin}, index, {"text": output.arguments_begin}, schema, {"text": output.call_end}]


def _sequence(parts: Sequence[Any]) -> dict[str, Any]:
    """Parts one after the other; strings are fixed text, empty ones are left out."""
    plain = [{"text": part} if isinstance(part, str) else part for part in parts]
    return {"all": [part for part in plain if part != {"text": ""}]}


def build(described: Mapping[str, Any], kinds: Any) -> Any:
    """The described constraint as objects of `openvino_genai.StructuredOutputConfig` (passed as `kinds`)."""
    match described:
        case {"text": text}:
            return kinds.ConstString(text)
        case {"regex": pattern}:
            return kinds.Regex(pattern)
        case {"schema": schema}:
            return kinds.JSONSchema(schema)
        case {"any": [only]} | {"all": [only]}:
            return build(only, kinds)
        case {"any": parts}:
            return kinds.Union([build(part, kinds) for part in parts])
        case {"all": parts}:
            return kinds.Concat([build(part, kinds) for part in parts])
        case {"triggers": triggers, "tags": tags}:
            built = [kinds.Tag(tag["begin"], build(tag["inside"], kinds), tag["end"]) for tag in tags]
            return kinds.TriggeredTags(triggers=triggers, tags=built)
    raise ValueError(f"no such constraint: {described}")
