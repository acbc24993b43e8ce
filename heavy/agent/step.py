"""One step: a streamed generation and the tool calls it asked for. Mechanism only.

No retries, no compaction, no change to what went before: the loop above decides, this does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from heavy.agent.hygiene import Turn, accept
from heavy.agent.journal import Journal
from heavy.agent.last_words import see_through
from heavy.agent.limits import AgentLimits
from heavy.agent.meter import Meter
from heavy.agent.progress import Progress
from heavy.agent.repetition import call_key
from heavy.core import clock
from heavy.core.errors import BudgetExhausted, EngineError, EngineUnavailable, HeavyError, MalformedStream
from heavy.core.files import FileRef
from heavy.core.ledger import Spend
from heavy.core.messages import FinishReason, Message, ToolCall
from heavy.core.records import CHECKPOINT, GenerationRecord, RecordBody, ToolIntentRecord, ToolResultRecord
from heavy.core.repairs import LOST_CALLS, Repair
from heavy.core.runs import TrajectorySpec
from heavy.core.tools import CacheState, Effects, ToolContext, ToolOutput, fate_unknown
from heavy.profiles.schema import Profile
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest, Replica, TokenUsage
from heavy.tools.toolset import Reading, Toolset

CUT: Final = "cut"
ENGINE_FAILED: Final = "engine_failed"


@dataclass(frozen=True, slots=True)
class StepScope:
    """Where a step belongs, and what it may do. `tool_calls_left` None: no cap of the trajectory's own."""

    spec: TrajectorySpec
    profile: Profile
    meter: Meter
    limits: AgentLimits
    number: int
    tool_calls_left: int | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step. `results` answer the message's calls one by one, in their order.

    `tools_refused` says that a cap on tool calls was hit: the refused calls have results that say so.
    `broken` says that the model meant to call something and none of it could be used. `moved`: another
    replica went on with the generation, so that `usage` counts its prompt more than once.
    """

    message: Message
    finish_reason: FinishReason
    repairs: tuple[str, ...]
    results: tuple[ToolResultRecord, ...]
    usage: TokenUsage
    replica: str
    calls_made: int
    tools_refused: bool
    broken: bool = False
    moved: bool = False


async def step(
    replica: Replica,
    request: GenerationRequest,
    toolset: Toolset,
    journal: Journal,
    scope: StepScope,
    progress: Progress,
) -> StepResult:
    """Generate once, record it, run the calls it asked for, record each.

    `progress` shows how far it got, also after a cancel or an error. Raises what `Replica.generate` raises
    (what had been streamed is recorded first) and `LeaseLost`, `StoreUnavailable` from the journal. On
    cancellation whatever was streamed is flushed, within `limits.flush_s`, before it propagates.
    """
    finished = await _generate(replica, request, journal, scope, progress)
    turn = accept(finished, request, scope.profile.tool_call_dialect)
    readings = await _read(toolset, turn.message.tool_calls)
    turn = replace(turn, repairs=_repairs(turn, readings, request))
    progress.message = turn.message
    spend = progress.finish(scope.meter, finished.usage, finished.timing.queue_s)
    await _record(journal, scope, _generation(finished, turn, request, spend))
    acting = _Acting(toolset, readings, journal, scope, request.deadline_ms, progress)
    results = await acting.answer(turn.message.tool_calls)
    return StepResult(
        message=turn.message,
        finish_reason=turn.finish_reason,
        repairs=turn.repairs,
        results=results,
        usage=finished.usage,
        replica=finished.replica,
        calls_made=acting.made,
        tools_refused=acting.refused,
        broken=_broken(turn, readings),
        moved=finished.request_id not in ("", request.request_id),
    )


async def _read(toolset: Toolset, calls: Sequence[ToolCall]) -> dict[str, Reading]:
    """Each distinct call understood once, by its key. More than one step executes is read all the same."""
    readings: dict[str, Reading] = {}
    for call in calls:
        key = call_key(call)
        if key not in readings:
            readings[key] = await toolset.read(call)
    return readings


def _repairs(turn: Turn, readings: dict[str, Reading], request: GenerationRequest) -> tuple[str, ...]:
    """Everything that was wrong with the turn's calls, and whether a grammar was asked for."""
    asked = (Repair.CONSTRAINED,) if request.tool_choice == "required" else ()
    read = (repair for reading in readings.values() for repair in reading.repairs)
    return tuple(str(repair) for repair in dict.fromkeys((*asked, *turn.repairs, *read)))


def _broken(turn: Turn, readings: dict[str, Reading]) -> bool:
    """Whether calls were meant and none can be used. Unreadable ones leave nothing but their repair."""
    if not readings:
        return turn.finish_reason is not FinishReason.LENGTH and not LOST_CALLS.isdisjoint(turn.repairs)
    return all(reading.arguments is None for reading in readings.values())


async def _generate(
    replica: Replica, request: GenerationRequest, journal: Journal, scope: StepScope, progress: Progress
) -> Finished:
    """Stream one generation; whatever ends it early leaves a partial record of what there was."""
    try:
        return await _stream(replica.generate(request), journal, scope, progress)
    except (asyncio.CancelledError, EngineError) as error:
        if progress.streamed:
            reason = ENGINE_FAILED if isinstance(error, EngineError) else CUT
            # The error under way is the one that counts, also when the store fails now.
            with contextlib.suppress(HeavyError):
                await _record(journal, scope, progress.partial(reason, scope.meter))
        raise


async def _stream(
    events: AsyncGenerator[GenerationEvent], journal: Journal, scope: StepScope, progress: Progress
) -> Finished:
    limits, finished = scope.limits, None
    try:
        async for event in events:
            if isinstance(event, Finished):
                finished = event
                break
            progress.take(event)
            journal.delta(scope.number, event)
            if progress.checkpoint_due(limits.checkpoint_tokens, limits.checkpoint_s):
                await _record(journal, scope, progress.partial(CHECKPOINT, scope.meter))
    finally:
        await _close(events, limits.flush_s)
    if finished is None:
        raise MalformedStream("The generation's stream ended without saying how the generation ended.")
    if finished.finish_reason is FinishReason.ABORT:
        raise EngineUnavailable("The engine aborted the generation.", finished.replica)
    return finished


async def _close(events: AsyncGenerator[GenerationEvent], bound_s: float) -> None:
    """End the generation in the engine, in this task: the stream may hold scopes that belong to it."""
    with contextlib.suppress(HeavyError, TimeoutError):
        async with asyncio.timeout(bound_s):
            await events.aclose()


def _generation(finished: Finished, turn: Turn, request: GenerationRequest, spend: Spend) -> GenerationRecord:
    return GenerationRecord(
        message=turn.message,
        finish_reason=turn.finish_reason,
        spend=spend,
        replica=finished.replica,
        model=finished.model,
        request_id=finished.request_id or request.request_id,
        timing=finished.timing,
        repairs=turn.repairs,
        placed=finished.placed,
    )


async def _record(journal: Journal, scope: StepScope, body: RecordBody) -> None:
    await see_through(journal.record(scope.number, body), scope.limits.flush_s)


class _Acting:
    """Answers the calls of one step: each distinct call once, a bounded number at a time."""

    def __init__(
        self,
        toolset: Toolset,
        readings: dict[str, Reading],
        journal: Journal,
        scope: StepScope,
        deadline_ms: int,
        progress: Progress,
    ) -> None:
        self._toolset = toolset
        self._readings = readings
        self._journal = journal
        self._scope = scope
        self._deadline_ms = deadline_ms
        self._progress = progress
        self._slots = asyncio.Semaphore(scope.limits.calls_at_once_max)
        self.refused = False
        self.made = 0

    async def answer(self, calls: Sequence[ToolCall]) -> tuple[ToolResultRecord, ...]:
        """One result per call, in order; refusals and tool failures are results too."""
        if not calls:
            return ()
        groups: dict[str, list[ToolCall]] = {}
        for call in calls:
            groups.setdefault(call_key(call), []).append(call)
        allowed = await self._allowed(len(groups))
        try:
            async with asyncio.TaskGroup() as group:
                for index, same in enumerate(groups.values()):
                    group.create_task(self._execute(same) if index < allowed else self._refuse(same, allowed))
        except BaseExceptionGroup as failures:
            # Only the journal raises in there; its first error is the step's.
            raise failures.exceptions[0] from failures
        by_call = {result.call_id: result for result in self._progress.results}
        return tuple(by_call[call.id] for call in calls)

    async def _allowed(self, distinct: int) -> int:
        """How many of the distinct calls may run, counted against the run's cap."""
        left = self._scope.tool_calls_left
        allowed = distinct if left is None else min(distinct, left)
        self.refused = allowed < distinct
        allowed = min(allowed, self._scope.limits.calls_per_step_max)
        if allowed:
            try:
                await self._journal.count_tool_calls(allowed)
            except BudgetExhausted:
                self.refused, allowed = True, 0
        self.made = allowed
        return allowed

    async def _execute(self, same: list[ToolCall]) -> None:
        """Run one call and give its result to every id that asked for it."""
        call = same[0]
        spec = self._toolset.spec(call.name)
        async with self._slots:
            effects = spec.effects if spec else Effects.PURE
            await _record(self._journal, self._scope, ToolIntentRecord(call, effects))
            context = self._context(call, spec.timeout_s if spec else None)
            try:
                output = await self._toolset.call(call, context, self._readings[call_key(call)])
            except asyncio.CancelledError:
                if effects is Effects.WRITE:
                    await self._leave_open(call)
                raise
        files = await self._journal.keep(output.files) if output.files else ()
        await self._keep(_result(call, output, files))
        for copy in same[1:]:
            await self._keep(
                _result(copy, replace(output, cache=CacheState.COALESCED, duration_s=0.0), files)
            )

    async def _leave_open(self, call: ToolCall) -> None:
        """Say of a write that was stopped in the middle that nobody knows whether it took effect."""
        output = fate_unknown(call.name, "it was stopped while under way")
        with contextlib.suppress(HeavyError, TimeoutError):  # the cancellation under way is what counts
            async with asyncio.timeout(self._scope.limits.flush_s):
                await self._keep(_result(call, output))

    def _context(self, call: ToolCall, timeout_s: float | None) -> ToolContext:
        left_s, spec = clock.remaining_s(self._deadline_ms), self._scope.spec
        return ToolContext(
            run=spec.run,
            trajectory=spec.trajectory,
            step=self._scope.number,
            tenant=spec.tenant,
            call_id=call.id,
            timeout_s=left_s if timeout_s is None else min(timeout_s, left_s),
            files=spec.files,
        )

    async def _refuse(self, same: list[ToolCall], allowed: int) -> None:
        why = "the cap on tool calls is reached" if self.refused else f"at most {allowed} run in one step"
        for call in same:
            await self._keep(_result(call, ToolOutput(f"Not executed: {why}.", is_error=True)))

    async def _keep(self, result: ToolResultRecord) -> None:
        self._progress.results.append(result)
        await _record(self._journal, self._scope, result)


def _result(call: ToolCall, output: ToolOutput, files: Sequence[FileRef] = ()) -> ToolResultRecord:
    return ToolResultRecord(
        call_id=call.id,
        name=call.name,
        content=output.content,
        is_error=output.is_error,
        cache=output.cache,
        duration_s=output.duration_s,
        unknown=output.unknown,
        files=tuple(files),
    )
