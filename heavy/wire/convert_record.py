"""Log records and deltas, to protobuf and back."""

from __future__ import annotations

from collections.abc import Iterable

from heavy.core.errors import HeavyError
from heavy.core.ids import TrajectoryId
from heavy.core.records import (
    Delta,
    GenerationRecord,
    GenerationTiming,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    RecordBody,
    ToolIntentRecord,
    ToolResultRecord,
)
from heavy.v1 import record_pb2 as pb
from heavy.wire import enums
from heavy.wire.convert_files import file_refs_from_proto, file_refs_to_proto
from heavy.wire.convert_policy import (
    message_from_proto,
    message_to_proto,
    tool_call_from_proto,
    tool_call_to_proto,
)
from heavy.wire.convert_run import (
    failure_from_proto,
    failure_to_proto,
    ledger_from_proto,
    ledger_to_proto,
    outcome_from_proto,
    outcome_to_proto,
    result_from_proto,
    result_to_proto,
    spend_from_proto,
    spend_to_proto,
)
from heavy.wire.times import timestamp_from_proto, timestamp_to_proto

NO_STEP = -1


def record_to_proto(record: Record) -> pb.Record:
    """One entry of a log."""
    message = pb.Record(
        number=record.number,
        trajectory_id=record.trajectory,
        step=None if record.step == NO_STEP else record.step,
        at=timestamp_to_proto(record.at_ms),
    )
    body = record.body
    match body:
        case GenerationRecord():
            message.generation.CopyFrom(_generation_to_proto(body))
        case PartialGenerationRecord():
            message.partial_generation.CopyFrom(_partial_to_proto(body))
        case ToolIntentRecord():
            message.tool_intent.CopyFrom(_intent_to_proto(body))
        case ToolResultRecord():
            message.tool_result.CopyFrom(_tool_result_to_proto(body))
        case LifecycleRecord():
            message.lifecycle.CopyFrom(_lifecycle_to_proto(body))
    return message


def record_from_proto(message: pb.Record) -> Record:
    """One entry of a log. Raises `HeavyError` for a kind of record that is not known here."""
    return Record(
        number=message.number,
        trajectory=TrajectoryId(message.trajectory_id),
        step=message.step if message.HasField("step") else NO_STEP,
        at_ms=timestamp_from_proto(message.at),
        body=_body_from_proto(message),
    )


def _body_from_proto(message: pb.Record) -> RecordBody:
    match message.WhichOneof("body"):
        case "generation":
            return _generation_from_proto(message.generation)
        case "partial_generation":
            return _partial_from_proto(message.partial_generation)
        case "tool_intent":
            return _intent_from_proto(message.tool_intent)
        case "tool_result":
            return _tool_result_from_proto(message.tool_result)
        case "lifecycle":
            return _lifecycle_from_proto(message.lifecycle)
    raise HeavyError(
        f"The server sent a kind of record (number {message.number}) which this client does not know: "
        "update the client to the server's version."
    )


def _generation_to_proto(body: GenerationRecord) -> pb.Generation:
    return pb.Generation(
        message=message_to_proto(body.message),
        finish_reason=enums.FINISH_REASON.to_proto(body.finish_reason),
        spend=spend_to_proto(body.spend),
        replica_id=body.replica,
        model=body.model,
        engine_request_id=body.request_id,
        queue_s=body.timing.queue_s,
        first_token_s=body.timing.first_token_s,
        decode_s=body.timing.decode_s,
        repairs=body.repairs,
        placed=body.placed,
    )


def _generation_from_proto(body: pb.Generation) -> GenerationRecord:
    return GenerationRecord(
        message=message_from_proto(body.message),
        finish_reason=enums.FINISH_REASON.from_proto(body.finish_reason),
        spend=spend_from_proto(body.spend),
        replica=body.replica_id,
        model=body.model,
        request_id=body.engine_request_id,
        timing=GenerationTiming(body.queue_s, body.first_token_s, body.decode_s),
        repairs=tuple(body.repairs),
        placed=body.placed,
    )


def _partial_to_proto(body: PartialGenerationRecord) -> pb.PartialGeneration:
    return pb.PartialGeneration(
        message=message_to_proto(body.message),
        tokens_output=body.tokens_output,
        reason=body.reason,
        spend=spend_to_proto(body.spend),
    )


def _partial_from_proto(body: pb.PartialGeneration) -> PartialGenerationRecord:
    return PartialGenerationRecord(
        message_from_proto(body.message), body.tokens_output, body.reason, spend_from_proto(body.spend)
    )


def _intent_to_proto(body: ToolIntentRecord) -> pb.ToolIntent:
    return pb.ToolIntent(call=tool_call_to_proto(body.call), effects=enums.EFFECTS.to_proto(body.effects))


def _intent_from_proto(body: pb.ToolIntent) -> ToolIntentRecord:
    return ToolIntentRecord(tool_call_from_proto(body.call), enums.EFFECTS.from_proto(body.effects))


def _tool_result_to_proto(body: ToolResultRecord) -> pb.ToolResult:
    return pb.ToolResult(
        call_id=body.call_id,
        name=body.name,
        content=body.content,
        is_error=body.is_error,
        cache=enums.CACHE_STATE.to_proto(body.cache),
        duration_s=body.duration_s,
        unknown=body.unknown,
        files=file_refs_to_proto(body.files),
    )


def _tool_result_from_proto(body: pb.ToolResult) -> ToolResultRecord:
    return ToolResultRecord(
        call_id=body.call_id,
        name=body.name,
        content=body.content,
        is_error=body.is_error,
        cache=enums.CACHE_STATE.from_proto(body.cache),
        duration_s=body.duration_s,
        unknown=body.unknown,
        files=file_refs_from_proto(body.files),
    )


def _lifecycle_to_proto(body: LifecycleRecord) -> pb.Lifecycle:
    return pb.Lifecycle(
        event=enums.EVENT.to_proto(body.event),
        detail=body.detail,
        state=enums.RUN_STATE.to_proto(body.state),
        outcome=None if body.outcome is None else outcome_to_proto(body.outcome),
        result=None if body.result is None else result_to_proto(body.result),
        failure=None if body.failure is None else failure_to_proto(body.failure),
        ledger=None if body.ledger is None else ledger_to_proto(body.ledger),
        profile=body.profile,
    )


def _lifecycle_from_proto(body: pb.Lifecycle) -> LifecycleRecord:
    return LifecycleRecord(
        event=enums.EVENT.from_proto(body.event),
        detail=body.detail,
        state=enums.RUN_STATE.from_proto(body.state) if body.state else None,
        outcome=outcome_from_proto(body.outcome) if body.HasField("outcome") else None,
        result=result_from_proto(body.result) if body.HasField("result") else None,
        failure=failure_from_proto(body.failure) if body.HasField("failure") else None,
        ledger=ledger_from_proto(body.ledger) if body.HasField("ledger") else None,
        profile=body.profile,
    )


def deltas_to_proto(deltas: Iterable[Delta]) -> pb.DeltaBatch:
    """Deltas of one instant."""
    return pb.DeltaBatch(
        deltas=(
            pb.Delta(
                trajectory_id=delta.trajectory,
                step=delta.step,
                reasoning=delta.reasoning,
                content=delta.content,
            )
            for delta in deltas
        )
    )


def deltas_from_proto(batch: pb.DeltaBatch) -> tuple[Delta, ...]:
    """Deltas of one instant."""
    return tuple(
        Delta(TrajectoryId(delta.trajectory_id), delta.step, delta.reasoning, delta.content)
        for delta in batch.deltas
    )
