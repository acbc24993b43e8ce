"""An MCP server's tools as ours: named after their server, bounded, and believed in nothing.

Names, descriptions, schemas and hints come from an untrusted party. Names are made safe for models, texts are
clipped and made inert, hints may narrow what the operator allows and never widen it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from mcp.types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
)

from heavy.core.clock import monotonic_s
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec, fate_unknown
from heavy.tools.config import MCP_SEPARATOR, McpSection
from heavy.tools.mcp_server import CallRefused, ConnectionLost, McpServer, McpUnavailable
from heavy.tools.text import clip, inert

_log = logging.getLogger(__name__)

NAME_CHARS_MAX: Final = 64
"""What every engine takes as a function's name: this many letters, digits, underscores and dashes."""
SCHEMA_CHARS_MAX: Final = 64_000
RECONNECT_WAIT_S: Final = 20.0
IDEMPOTENCY_KEY: Final = "heavy/idempotency-key"
"""Where in a request's `_meta` a server finds the call's key: what comes twice is to be done once."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")
_ORDER: Final = (Effects.PURE, Effects.READ, Effects.WRITE)


class McpTool:
    """One tool of one server, as it was when it was listed."""

    def __init__(self, server: McpServer, tool: Tool, spec: ToolSpec) -> None:
        self._server = server
        self._tool = tool
        self._spec = spec

    @property
    def spec(self) -> ToolSpec:
        """What it declares, as far as the operator lets it."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Call it. A call whose connection was lost is made once more where it only reads."""
        deadline_s = monotonic_s() + context.timeout_s
        source = {"source": f"MCP server {self._server.name}"}
        try:
            result = await self._ask(arguments, deadline_s, {IDEMPOTENCY_KEY: context.idempotency_key})
        except McpUnavailable as error:
            return ToolOutput(error.message, is_error=True, deterministic=False)
        except ConnectionLost as error:
            if self._spec.effects is Effects.WRITE:
                return fate_unknown(self._spec.name, f"the connection was lost ({error})")
            return ToolOutput(
                f"{self._spec.name}: the connection was lost ({error}).", True, deterministic=False
            )
        except TimeoutError:
            if self._spec.effects is Effects.WRITE:
                return fate_unknown(self._spec.name, f"it did not answer within {context.timeout_s:g} s")
            text = f"{self._spec.name} did not answer within {context.timeout_s:g} s."
            return ToolOutput(text, is_error=True, deterministic=False)
        except CallRefused as error:
            return ToolOutput(f"The server refused the call: {error}", True, deterministic=False, meta=source)
        text = said(result, self._server.section.output_bytes_max)
        return ToolOutput(
            text, is_error=result.is_error, deterministic=False, storable=not self._changed(), meta=source
        )

    async def _ask(
        self, arguments: Mapping[str, Any], deadline_s: float, meta: Mapping[str, Any]
    ) -> CallToolResult:
        server = self._server
        try:
            return await server.call(self._tool.name, arguments, deadline_s - monotonic_s(), meta)
        except (ConnectionLost, McpUnavailable) as error:
            if isinstance(error, ConnectionLost) and self._spec.effects is Effects.WRITE:
                raise
            async with asyncio.timeout(min(RECONNECT_WAIT_S, deadline_s - monotonic_s())) as wait:
                try:
                    await server.connected()
                except asyncio.CancelledError:
                    if wait.expired():
                        raise error from None
                    raise
            return await server.call(self._tool.name, arguments, deadline_s - monotonic_s(), meta)

    def _changed(self) -> bool:
        """Whether the server declares the tool otherwise by now: results then belong under another key."""
        return not any(tool.name == self._tool.name and tool == self._tool for tool in self._server.tools)


def tools_of(server: McpServer) -> tuple[McpTool, ...]:
    """What a server offers now. Tools that cannot be declared to a model are left out, and logged."""
    made: dict[str, McpTool] = {}
    for tool in server.tools:
        try:
            spec = spec_of(server.name, server.section, tool)
        except ValueError as error:
            _log.warning("the tool %.80r of the MCP server %s is left out: %s", tool.name, server.name, error)
            continue
        if spec.name in made:
            _log.warning(
                "the MCP server %s has two tools called %s; the first counts", server.name, spec.name
            )
            continue
        made[spec.name] = McpTool(server, tool, spec)
    return tuple(made.values())


def spec_of(server: str, section: McpSection, tool: Tool) -> ToolSpec:
    """A declaration as ours. Raises ValueError for one that models cannot be given."""
    name = f"{server}{MCP_SEPARATOR}{_UNSAFE.sub('_', tool.name)}"
    if len(name) > NAME_CHARS_MAX:
        raise ValueError(f"its name has more than {NAME_CHARS_MAX - len(server) - 2} characters")
    schema = dict(tool.input_schema)
    text = json.dumps(schema)
    if len(text) > SCHEMA_CHARS_MAX:
        raise ValueError(f"its schema has more than {SCHEMA_CHARS_MAX} characters")
    if schema.get("type") != "object":
        raise ValueError("its parameters are no object")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"its parameters are no JSON schema: {error.message:.200}") from error
    effects = effects_of(section, tool)
    return ToolSpec(
        name=name,
        description=inert(clip(tool.description or tool.title or tool.name, section.description_chars_max)),
        parameters=json.loads(inert(text)),
        version=f"mcp-{server}",
        effects=effects,
        cacheable=effects is not Effects.WRITE,
        timeout_s=section.timeout_s,
        untrusted=section.trust != "output",
    )


def effects_of(section: McpSection, tool: Tool) -> Effects:
    """What a call may do: the operator's word, which a hint makes stricter, or milder only where allowed."""
    word, hints = Effects(section.effects), tool.annotations
    if hints is None:
        return word
    if hints.read_only_hint is False or hints.destructive_hint:
        return Effects.WRITE if not hints.read_only_hint else word
    if hints.read_only_hint and section.read_hints:
        return min(word, Effects.READ, key=_ORDER.index)
    return word


def said(result: CallToolResult, bytes_max: int) -> str:
    """A result's content as text; what is no text is named, not shown."""
    parts: Sequence[str] = [_part(block) for block in result.content]
    if not any(parts) and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    text = "\n".join(filter(None, parts)) or "(no output)"
    return clip(text, bytes_max)


def _part(block: object) -> str:
    match block:
        case TextContent(text=text):
            return text
        case ImageContent(mime_type=kind, data=data) | AudioContent(mime_type=kind, data=data):
            return f"[{kind:.60}, {len(data) * 3 // 4} bytes, not shown]"
        case ResourceLink(uri=uri, name=name):
            return f"[resource {name:.200}: {uri!s:.500}]"
        case EmbeddedResource(resource=TextResourceContents(text=text, uri=uri)):
            return f"[resource {uri!s:.500}]\n{text}"
        case EmbeddedResource(resource=resource):
            return f"[resource {resource.uri!s:.500}, not shown]"
        case _:
            return "[content of an unknown kind, not shown]"
