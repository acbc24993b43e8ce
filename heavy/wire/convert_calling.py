"""Tools of the caller's own, their calls and results, to protobuf and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from heavy.core.calling import CallerCall, CallerResult, Receipt
from heavy.core.errors import FieldViolation, HeavyError
from heavy.core.ids import TrajectoryId
from heavy.core.tools import Effects, ToolSpec
from heavy.v1 import heavy_pb2 as pb
from heavy.v1 import tool_pb2
from heavy.wire import enums
from heavy.wire.convert_policy import Violations
from heavy.wire.times import (
    duration_from_proto,
    duration_to_proto,
    timestamp_from_proto,
    timestamp_to_proto,
)

VERSION: Final = "caller"
TIMEOUT_S: Final = 60.0
"""How long a result is waited for where the caller does not say."""


def caller_tool_to_proto(tool: ToolSpec) -> tool_pb2.CallerTool:
    """A declaration."""
    return tool_pb2.CallerTool(
        name=tool.name,
        description=tool.description,
        parameters=json.dumps(dict(tool.parameters)),
        effects=enums.EFFECTS.to_proto(tool.effects),
        timeout=duration_to_proto(tool.timeout_s),
        cacheable=tool.cacheable,
    )


def caller_tools_from_proto(
    tools: Iterable[tool_pb2.CallerTool], violations: Violations
) -> tuple[ToolSpec, ...]:
    """What a caller declares; what cannot be read becomes a violation."""
    return tuple(_tool(f"tools[{index}]", tool, violations) for index, tool in enumerate(tools))


def _tool(path: str, tool: tool_pb2.CallerTool, violations: Violations) -> ToolSpec:
    effects = enums.EFFECTS.find(tool.effects)
    if tool.effects and effects is None:
        problem = f"is {tool.effects}; it must be one of {enums.EFFECTS.choices()}"
        violations.append(FieldViolation(f"{path}.effects", problem))
    return ToolSpec(
        name=tool.name,
        description=tool.description,
        parameters=_schema(path, tool.parameters, violations),
        version=VERSION,
        effects=effects or Effects.WRITE,
        cacheable=tool.cacheable,
        timeout_s=duration_from_proto(tool.timeout) if tool.HasField("timeout") else TIMEOUT_S,
        untrusted=False,
    )


def _schema(path: str, text: str, violations: Violations) -> dict[str, Any]:
    if not text:
        return {"type": "object", "properties": {}}
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        violations.append(FieldViolation(f"{path}.parameters", f"are not JSON: {error}"))
        return {"type": "object"}
    if not isinstance(schema, dict):
        violations.append(FieldViolation(f"{path}.parameters", "must be a JSON schema of an object"))
        return {"type": "object"}
    return schema


def call_to_proto(call: CallerCall) -> pb.CallerToolCall:
    """A call on its way to the caller."""
    return pb.CallerToolCall(
        call_id=call.id,
        trajectory_id=call.trajectory,
        step=call.step,
        name=call.name,
        arguments=call.arguments,
        deadline_at=timestamp_to_proto(call.deadline_ms),
    )


def call_from_proto(call: pb.CallerToolCall) -> CallerCall:
    """A call as the caller gets it; what it does to the world the caller knows itself."""
    return CallerCall(
        id=call.call_id,
        trajectory=TrajectoryId(call.trajectory_id),
        step=call.step,
        name=call.name,
        arguments=call.arguments,
        effects=Effects.WRITE,
        deadline_ms=timestamp_from_proto(call.deadline_at),
    )


def result_to_proto(result: CallerResult) -> pb.CallerToolResult:
    """What a call gave."""
    return pb.CallerToolResult(
        call_id=result.id, content=result.content, is_error=result.is_error, unknown=result.unknown
    )


def result_from_proto(result: pb.CallerToolResult) -> CallerResult:
    """What a call gave."""
    return CallerResult(result.call_id, result.content, result.is_error, result.unknown)


WITHDRAWN: Final = pb.RECEIPT_KIND_WITHDRAWN


def receipt_to_proto(call_id: str, receipt: Receipt | None, detail: str = "") -> pb.CallerToolReceipt:
    """What became of a result; None for a call that is withdrawn."""
    kind: Any = WITHDRAWN if receipt is None else pb.ReceiptKind.Value(f"RECEIPT_KIND_{receipt.name}")
    return pb.CallerToolReceipt(call_id=call_id, kind=kind, detail=detail)


def receipt_from_proto(receipt: pb.CallerToolReceipt) -> Receipt | None:
    """What became of a result; None for a call that is withdrawn. Raises `HeavyError` for an unknown kind."""
    if receipt.kind == WITHDRAWN:
        return None
    try:
        return Receipt[pb.ReceiptKind.Name(receipt.kind).removeprefix("RECEIPT_KIND_")]
    except (KeyError, ValueError) as error:
        raise HeavyError(
            f"The server sent receipt {receipt.kind}, which this client does not know: update the client."
        ) from error
