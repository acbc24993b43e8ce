"""One trajectory, from its spec to its outcome: step after step until an answer, or a reason why not.

How it ends:

| outcome   | reason                                                         |
|-----------|----------------------------------------------------------------|
| completed | empty: the model answered; else why its answer was forced      |
| cut       | `budget`, `deadline`, or what `cut` was told                   |
| failed    | an error's code (`engine_...`, `context_overflow`), `no_answer`|
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, replace
from typing import Final

from heavy.agent.context import ContextWindow, Fit
from heavy.agent.failures import FailureLedger
from heavy.agent.funds import Funds
from heavy.agent.hygiene import NO_RESULT, outgoing, result_message
from heavy.agent.journal import Journal
from heavy.agent.ladder import Ladder
from heavy.agent.limits import AgentLimits
from heavy.agent.meter import Meter
from heavy.agent.opening import answer_tokens, opening, says_something, seeded
from heavy.agent.progress import CHARS_PER_TOKEN, Progress
from heavy.agent.relief import Relief
from heavy.agent.repetition import RepetitionWatch
from heavy.agent.step import StepResult, StepScope, step
from heavy.core import clock
from heavy.core.errors import (
    BudgetExhausted,
    ConfigError,
    ContextOverflow,
    EngineError,
    EngineRefused,
    HeavyError,
)
from heavy.core.ids import request_id
from heavy.core.ledger import NOTHING_SPENT
from heavy.core.messages import FinishReason, Message, Role
from heavy.core.policy import ContextPolicy
from heavy.core.records import Event, LifecycleRecord, ToolResultRecord
from heavy.core.runs import Outcome, OutcomeKind, TrajectoryRole, TrajectorySpec
from heavy.profiles.schema import Profile
from heavy.prompts import render
from heavy.replicas.api import GenerationRequest, Replica
from heavy.replicas.openai_json import estimated_prompt_tokens
from heavy.tools.text import clip
from heavy.tools.toolset import Toolset

BUDGET: Final = "budget"
DEADLINE: Final = "deadline"
STEPS_MAX: Final = "steps_max"
TOOL_CALLS_MAX: Final = "tool_calls_max"
STUCK: Final = "stuck"
LENGTH: Final = "length"
EMPTY: Final = "empty"
BROKEN_CALLS: Final = "broken_calls"
NO_ANSWER: Final = "no_answer"

_TURN_OVERHEAD_TOKENS: Final = 32
"""What a template may add around a turn, and around each of its calls, beyond what the model generated."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the trajectory ends."""

    kind: OutcomeKind
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Force:
    """The model gets one more generation, without tools, to answer with what it has."""

    reason: str
    detail: str


Decision = Ending | Force | None
"""What follows a step. None: another one."""


class Trajectory:
    """Rolls out one trajectory. Use it once.

    To stop it, cancel the task that runs it: it aborts its generation, flushes and settles what there is,
    within bounds, and lets the cancellation propagate. Then `cut` gives the outcome.
    """

    def __init__(
        self,
        spec: TrajectorySpec,
        profile: Profile,
        replica: Replica,
        toolset: Toolset,
        journal: Journal,
        meter: Meter,
        limits: AgentLimits,
    ) -> None:
        self._spec = spec
        self._profile = profile
        self._replica = replica
        self._toolset = toolset
        self._journal = journal
        self._meter = meter
        self._limits = limits
        self._history: list[Message] = []
        self._tools = tuple(toolset.specs)
        self._failures = FailureLedger(limits.failures_kept_max)
        self._relief = Relief(spec.context_policy, spec.context_keep_last, profile, self._failures)
        self._window = ContextWindow(
            profile, replica, self._tools, self._relief, limits.context_headroom_share
        )
        self._funds = Funds(journal, meter, limits.flush_s, answer_tokens(profile))
        self._watch = RepetitionWatch(limits.stuck)
        self._ladder = Ladder(limits.ladder, bool(self._tools) and profile.constrained_calls != "never")
        self._progress = Progress()
        self._number = self._summaries = 0
        self._generations = 0
        self._empty = 0
        self._tool_calls = 0
        self._replica_named = spec.prefer_replica
        """Where it was last, or is to begin."""
        self._opening_tokens = 0
        self._answer_so_far = ""
        self._spend = NOTHING_SPENT
        self._forced_at_s = self._over_at_s = 0.0

    async def run(self) -> Outcome:
        """Roll out to the outcome.

        Model, tool and engine failures are outcomes. Raises `LeaseLost` and `StoreUnavailable`, after which
        nothing more can be written, and `CancelledError`.
        """
        self._forced_at_s, self._over_at_s = self._deadlines()
        try:
            self._history = opening(self._spec, self._profile)
            self._relief.opening = len(self._history)
            decision: Decision = None
            while decision is None:
                decision = self._exhausted() or await self._advance()
            if isinstance(decision, Force):
                decision = await self._force_answer(decision)
        except ConfigError as error:  # a prompt template that cannot be filled in
            decision = Ending(OutcomeKind.FAILED, error.code, error.message)
        if repaired := self._ladder.summary():
            await self._note(f"tool calls repaired: {repaired}")
        return self._outcome(decision)

    def cut(self, reason: str, detail: str) -> Outcome:
        """The outcome of a trajectory that was stopped from outside: with what is there so far."""
        return self._outcome(Ending(OutcomeKind.CUT, reason, detail))

    # Deciding

    def _exhausted(self) -> Force | None:
        """What rules out another step with tools before it begins."""
        if self._number - self._summaries >= self._spec.steps_max:
            return Force(STEPS_MAX, f"All {self._spec.steps_max} steps are used.")
        if self._calls_left() == 0 and self._tool_calls:
            return Force(TOOL_CALLS_MAX, f"All {self._tool_calls} tool calls are used.")
        return None

    async def _advance(self) -> Decision:
        """One step, and what follows from it."""
        result = await self._bounded_step(self._forced_at_s, forced=False)
        if isinstance(result, Ending):
            return self._rescue(result)
        self._extend(result.message, result.results)
        if given_up := self._ladder.observe(result.repairs, broken=result.broken):
            return Force(BROKEN_CALLS, f"{given_up}.")
        if result.broken:
            return await self._after_broken(result)
        if result.message.tool_calls:
            return await self._after_tools(result)
        if result.finish_reason is FinishReason.LENGTH:
            return Force(LENGTH, "The generation reached its length limit before it ended.")
        if result.message.content.strip():
            return Ending(OutcomeKind.COMPLETED)
        return await self._after_nothing()

    async def _after_tools(self, result: StepResult) -> Decision:
        self._tool_calls += result.calls_made
        self._failures.observe(result.message.tool_calls, result.results)
        if result.tools_refused:
            return Force(TOOL_CALLS_MAX, "The cap on tool calls is reached.")
        verdict = self._watch.observe(result.message.tool_calls, result.results)
        if verdict.stuck:
            return Force(STUCK, f"It goes in circles: {verdict.stuck}.")
        for reminder in verdict.reminders:
            await self._note(f"reminder: {reminder.name} was called {reminder.count} times the same way")
            self._say(render(self._profile, "repeat_reminder", name=reminder.name, times=reminder.count))
        return None

    async def _after_broken(self, result: StepResult) -> Decision:
        """The results say what is wrong with each call; calls of which nothing is left have no results."""
        self._tool_calls += result.calls_made
        await self._note(f"no tool call of this step can be used: {', '.join(result.repairs)}")
        if not result.message.tool_calls:
            self._say(render(self._profile, "broken_call"))
        return None

    async def _after_nothing(self) -> Decision:
        self._empty += 1
        if self._empty > self._limits.empty_retries_max:
            return Force(EMPTY, f"{self._empty} generations had neither text nor tool calls.")
        await self._note("empty generation: neither text nor tool calls; trying again")
        return None

    def _rescue(self, ending: Ending) -> Decision:
        """A step that was stopped by a limit leaves room for a forced answer; other failures do not."""
        fixed = self._spec.context_policy is ContextPolicy.FAIL
        if ending.kind is OutcomeKind.CUT or (ending.reason == ContextOverflow.code and not fixed):
            progress = self._progress
            unfinished = progress.message or Message(Role.ASSISTANT, progress.content)
            self._extend(unfinished, tuple(progress.results))
            return Force(ending.reason, ending.detail)
        return ending

    async def _force_answer(self, force: Force) -> Ending:
        """One last generation without tools. Its own failure is how the trajectory ends."""
        await self._note(f"forced answer: {force.reason}: {force.detail}")
        self._say(render(self._profile, "force_answer"))
        result = await self._bounded_step(self._over_at_s, forced=True)
        if isinstance(result, Ending):
            return result
        if result.message.content.strip():
            return Ending(OutcomeKind.COMPLETED, force.reason, force.detail)
        if force.reason in (BUDGET, DEADLINE):
            return Ending(OutcomeKind.CUT, force.reason, force.detail)
        return Ending(
            OutcomeKind.FAILED, NO_ANSWER, f"{force.detail} The forced answer after that was empty."
        )

    def _outcome(self, ending: Ending) -> Outcome:
        return Outcome(
            trajectory=self._spec.trajectory,
            kind=ending.kind,
            reason=ending.reason,
            detail=ending.detail,
            answer=self._visible(),
            steps=self._generations,
            spend=self._spend,
            profile=self._profile.name,
        )

    def _visible(self) -> str:
        """The answer so far: what the latest turn says, unless that only announces tool calls."""
        turn = self._progress.message
        said = "" if turn and turn.tool_calls else self._progress.content
        return said if said.strip() else self._answer_so_far

    # Doing

    async def _bounded_step(self, until_s: float, *, forced: bool) -> StepResult | Ending:
        """One step within the time; limits and engine failures come back as the endings they would be."""
        scope = asyncio.timeout_at(until_s)
        try:
            async with scope:
                return await self._step(forced=forced)
        except TimeoutError:
            if not scope.expired():
                raise
            return Ending(OutcomeKind.CUT, DEADLINE, "The time for this trajectory is over.")
        except BudgetExhausted as error:
            return Ending(OutcomeKind.CUT, BUDGET, error.message)
        except (ContextOverflow, EngineError) as error:
            return Ending(OutcomeKind.FAILED, error.code, error.message)

    async def _step(self, *, forced: bool) -> StepResult:
        """Fit, pay, generate and act; engine failures get a bounded number of fresh attempts."""
        self._progress = Progress()
        fit = await self._fit(forced=forced, summarise=not forced)
        number = self._next_number()
        for attempt in range(self._limits.engine_attempts_max):
            last = attempt + 1 == self._limits.engine_attempts_max
            try:
                result = await self._attempt(fit, number, attempt, self._tool_choice(forced), last=forced)
                self._learn(len(fit.messages), result)
                return result
            except ContextOverflow:
                self._window.refuse()
                if last:
                    raise
                fit = await self._fit(forced=forced, summarise=False)
            except EngineError as error:
                if not last and isinstance(error, EngineRefused) and self._ladder.constrains:
                    self._ladder.refused()
                    await self._note(f"the engine takes no grammar for tool calls: {error}", number)
                    continue
                if last or isinstance(error, EngineRefused):
                    raise
                await self._note(f"engine failure, attempt {attempt + 1}: {error.code}: {error}", number)
                await asyncio.sleep(self._back_off_s(attempt))
        raise AssertionError("engine_attempts_max is at least 1")

    async def _fit(self, *, forced: bool, summarise: bool) -> Fit:
        """The conversation as it fits, and room for a completion beside a later forced answer."""
        kept = 0 if forced else answer_tokens(self._profile)
        wish = self._completion_tokens_max()
        fit = await self._window.fit(
            tuple(self._history),
            room_tokens=self._completion_tokens_min() + kept,
            wish_tokens=wish + kept,
            summarise=self._summarise if summarise else None,
            last=forced,
        )
        if fit.relieved:
            self._history = list(fit.messages)
            self._watch.excuse()
            await self._note(f"context: {fit}")
        return replace(fit, room_tokens=min(fit.room_tokens - kept, wish))

    async def _summarise(self, fit: Fit) -> str:
        """What the model writes down of what it has so far, a step of its own; empty where that fails.

        The request itself fits: outputs are hidden from it until it does.
        """
        prompt, least = render(self._profile, "summarise"), self._completion_tokens_min()
        if not prompt or self._summaries >= self._limits.summaries_max:
            return ""
        for messages in self._relief.ever_shorter(fit.messages):
            asked = await self._window.measure_apart((*messages, Message(Role.USER, prompt)))
            if asked.room_tokens >= least:
                break
        else:
            await self._note("no summary: the request for one does not fit")
            return ""
        self._summaries += 1
        asked = replace(asked, room_tokens=min(asked.room_tokens, self._summary_tokens_max(least)))
        try:
            result = await self._attempt(asked, self._next_number(), 0, "none", last=False)
            return clip(result.message.content.strip(), CHARS_PER_TOKEN * self._summary_tokens_max(least))
        except (BudgetExhausted, ContextOverflow, EngineError) as error:
            await self._note(f"no summary: {error.code}: {error}")
            return ""
        finally:
            self._progress = Progress()  # what was said here is no answer, also when it was cut

    async def _attempt(
        self, fit: Fit, number: int, attempt: int, tool_choice: str, *, last: bool
    ) -> StepResult:
        """One paid attempt. Whatever becomes of it, what it cost is booked."""
        spec, name = self._spec, request_id(self._spec.run, self._spec.trajectory, number, attempt)
        tokens_max = await self._funds.reserve(
            name,
            fit.prompt_tokens,
            fit.room_tokens,
            least_tokens=self._completion_tokens_min(),
            last=last,
        )
        prompt_tokens = self._expected_prompt_tokens(fit)
        request = GenerationRequest(
            request_id=name,
            profile=self._profile.name,
            messages=fit.messages,
            tools=self._tools,
            sampling=seeded(spec, number, attempt),
            tokens_max=tokens_max,
            deadline_ms=spec.deadline_ms,
            tool_choice=tool_choice,
            strict_calls=tool_choice == "required" or self._profile.constrained_calls == "always",
            prefer_replica=self._replica_named,
            prompt_tokens=prompt_tokens,
            group=f"{spec.run}-{spec.role}",
            opening_tokens=self._opening_tokens,
            traceparent=spec.traceparent,
        )
        scope = StepScope(spec, self._profile, self._meter, self._limits, number, self._calls_left())
        progress = self._progress = Progress(fit.prompt_tokens)
        try:
            result = await step(self._replica, request, self._toolset, self._journal, scope, progress)
        except BaseException:
            # The error under way is the one that counts.
            with contextlib.suppress(HeavyError):
                await self._book(name, progress)
            raise
        await self._book(name, progress)
        self._replica_named = result.replica
        return result

    def _expected_prompt_tokens(self, fit: Fit) -> int:
        """What routing goes by. The first prompt is the opening, which all arms of the run share."""
        if self._generations:
            return fit.prompt_tokens
        estimate = min(fit.prompt_tokens, estimated_prompt_tokens(fit.messages, self._tools))
        self._opening_tokens = estimate if self._spec.role is TrajectoryRole.ARM else 0
        return estimate

    async def _book(self, name: str, progress: Progress) -> None:
        spend = progress.spend(self._meter)
        self._spend += spend
        self._generations += progress.message is not None
        await self._funds.settle(name, spend)

    def _extend(self, message: Message, results: tuple[ToolResultRecord, ...]) -> None:
        """The conversation goes on with a turn and its results; calls without one get one that says so."""
        if not says_something(message):
            return
        if not message.tool_calls:
            self._answer_so_far = message.content
        contents = {result.call_id: result.content for result in results}
        self._history.append(outgoing(message, self._profile))
        self._history += [
            result_message(call, contents.get(call.id, NO_RESULT)) for call in message.tool_calls
        ]

    def _learn(self, messages: int, result: StepResult) -> None:
        """What the engine counted needs no bound any more: the prompt, and the turn it generated."""
        usage, turn = result.usage, result.message
        if result.moved:
            return
        if self._generations == 1 and self._opening_tokens:
            self._opening_tokens = usage.prompt or self._opening_tokens
        self._window.learn(messages, usage.prompt)
        if usage.prompt and usage.output and says_something(turn):
            overhead = _TURN_OVERHEAD_TOKENS * (1 + len(turn.tool_calls))
            self._window.learn(messages + 1, usage.prompt + usage.output + overhead)

    def _say(self, prompt: str) -> None:
        """A word from the loop to the model; profiles may leave a prompt out."""
        if prompt:
            self._history.append(Message(Role.USER, prompt))

    async def _note(self, detail: str, step_number: int | None = None) -> None:
        number = self._number if step_number is None else step_number
        await self._journal.record(number, LifecycleRecord(Event.NOTE, detail))

    # Bounds

    def _deadlines(self) -> tuple[float, float]:
        """Loop times: from when on an answer is forced, and when all is over."""
        limits, left_s = self._limits, clock.remaining_s(self._spec.deadline_ms)
        share_s = left_s * limits.answer_reserve_share
        over_at_s = asyncio.get_running_loop().time() + left_s - min(limits.deadline_margin_s, share_s / 4)
        return over_at_s - min(limits.answer_reserve_s, share_s), over_at_s

    def _next_number(self) -> int:
        number, self._number = self._number, self._number + 1
        return number

    def _tool_choice(self, forced: bool) -> str:
        if forced or self._calls_left() == 0:
            return "none"
        return "required" if self._ladder.constrains else "auto"

    def _calls_left(self) -> int | None:
        cap = self._spec.tool_calls_max
        return None if cap is None else max(0, cap - self._tool_calls)

    def _completion_tokens_max(self) -> int:
        return min(self._profile.limits.output_tokens_per_step_max, self._spec.reasoning_tokens_per_step_max)

    def _completion_tokens_min(self) -> int:
        return min(
            self._limits.completion_tokens_min,
            self._completion_tokens_max(),
            self._profile.context_tokens // 8,
        )

    def _summary_tokens_max(self, least: int) -> int:
        """Small contexts scale a summary down: it must be much less than what it stands for."""
        return max(least, min(self._limits.summary_tokens_max, self._profile.context_tokens // 8))

    def _back_off_s(self, attempt: int) -> float:
        """Doubles with each attempt, with jitter: arms that failed together shall not return together."""
        longest_s: float = min(self._limits.backoff_s * 2**attempt, self._limits.backoff_max_s)
        return longest_s * random.uniform(0.5, 1.0)
