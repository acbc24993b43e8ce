"""From a spec to an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from heavy.agent.limits import StuckLimits
from heavy.agent.relief import HIDDEN
from heavy.core import clock
from heavy.core.errors import (
    ContextOverflow,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    LeaseLost,
    StoreUnavailable,
)
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import ContextPolicy
from heavy.core.runs import OutcomeKind
from heavy.core.tools import ToolOutput
from heavy.profiles.schema import LimitsSection
from heavy.replicas.api import GenerationRequest, TokenUsage
from heavy.testing.replicas import Scripted

Asks = Callable[..., Scripted]
Until = Callable[[Callable[[], bool]], Awaitable[None]]

ANSWER = Scripted(content="42", reasoning="six sevens")


async def test_an_answer_without_tools_completes_the_trajectory(bench: Any) -> None:
    replica = bench.plays(ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.answer, outcome.reason) == (OutcomeKind.COMPLETED, "42", "")
    assert (outcome.steps, outcome.profile, outcome.trajectory) == (1, "bench", "arm-0")
    assert replica.requests[0].tool_choice == "auto"


async def test_tool_results_go_back_with_the_turn_that_asked_for_them(bench: Any, asks: Asks) -> None:
    replica = bench.plays(asks('{"q": 1}'), asks('{"q": 2}', '{"q": 3}'), ANSWER)

    outcome = await bench.trajectory().run()

    last = replica.requests[-1].messages
    assert [m.role for m in last] == [
        Role.USER,
        Role.ASSISTANT,
        Role.TOOL,
        Role.ASSISTANT,
        Role.TOOL,
        Role.TOOL,
    ]
    assert [c.id for m in last for c in m.tool_calls] == [f"functions.probe:{i}" for i in range(3)]
    assert [m.tool_call_id for m in last if m.role is Role.TOOL] == [f"functions.probe:{i}" for i in range(3)]
    assert last[1].reasoning == "Let me see."
    assert (outcome.steps, outcome.spend.tool_calls) == (3, 3)


async def test_every_attempt_has_an_id_and_a_seed_of_its_own_that_reruns_agree_on(
    bench: Any, asks: Asks
) -> None:
    def seen() -> list[tuple[str, int | None]]:
        return [(r.request_id, r.sampling.seed) for r in bench.replica.requests]

    bench.plays(asks("{}"), Scripted(error=EngineTimeout("slow", "r")), ANSWER)
    await bench.trajectory().run()
    first = seen()
    bench.plays(asks("{}"), Scripted(error=EngineTimeout("slow", "r")), ANSWER)
    await bench.trajectory().run()

    assert len(set(first)) == len({seed for _, seed in first}) == 3
    assert first == seen()


async def test_without_a_seed_the_engine_chooses(bench: Any) -> None:
    bench.sets(sampling=bench.spec.sampling.__class__())
    replica = bench.plays(ANSWER)

    await bench.trajectory().run()

    assert replica.requests[0].sampling.seed is None


async def test_the_outcome_adds_up_every_generation_and_call_and_matches_what_was_settled(
    bench: Any, asks: Asks
) -> None:
    bench.plays(asks("{}"), Scripted(content="half", error=EngineTimeout("slow", "r")), ANSWER)

    outcome = await bench.trajectory().run()

    assert bench.journal.reserved == {}
    assert sum(a.tokens for a in bench.journal.settled.values()) == outcome.spend.tokens
    assert sum(a.cost_usd for a in bench.journal.settled.values()) == pytest.approx(outcome.spend.cost_usd)
    recorded = sum(g.spend.tokens for g in bench.journal.generations)
    assert outcome.spend.tokens > recorded


async def test_calls_inside_reasoning_are_carried_out_and_noted(bench: Any) -> None:
    text = "Hm. <|tool_call_begin|>functions.probe:0<|tool_call_argument_begin|>{}<|tool_call_end|>"
    bench.plays(Scripted(reasoning=text), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.answer, len(bench.probe.calls)) == ("42", 1)
    assert bench.journal.generations[0].repairs == ("salvaged_from_reasoning",)
    assert any("salvaged" in note for note in bench.journal.notes)


# Steps, tool calls, circles


async def test_after_the_last_step_an_answer_is_forced_without_tools(bench: Any, asks: Asks) -> None:
    bench.sets(steps_max=2)
    replica = bench.plays(asks('{"q": 1}'), asks('{"q": 2}'), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason, outcome.answer) == (OutcomeKind.COMPLETED, "steps_max", "42")
    assert [r.tool_choice for r in replica.requests] == ["auto", "auto", "none"]
    assert replica.requests[-1].messages[-1].role is Role.USER
    assert any("forced answer: steps_max" in note for note in bench.journal.notes)


@pytest.mark.parametrize("whose", ["trajectory", "run"])
async def test_when_tool_calls_are_used_up_an_answer_is_forced(bench: Any, asks: Asks, whose: str) -> None:
    if whose == "trajectory":
        bench.sets(tool_calls_max=2)
    else:
        bench.journal.tool_calls_max = 2
    bench.plays(asks('{"q": 1}'), asks('{"q": 2}', '{"q": 3}'), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.COMPLETED, "tool_calls_max")
    assert len(bench.probe.calls) <= 2


async def test_a_trajectory_that_may_call_nothing_is_asked_without_tools_from_the_start(bench: Any) -> None:
    bench.sets(tool_calls_max=0)
    replica = bench.plays(ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.reason, replica.requests[0].tool_choice) == ("", "none")


async def test_a_trajectory_in_circles_is_reminded_and_then_has_to_answer(bench: Any, asks: Asks) -> None:
    bench.sets(steps_max=50)
    replica = bench.plays(*[asks("{}")] * 12, ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.COMPLETED, "stuck")
    reminders = [i for i, r in enumerate(replica.requests) if r.messages[-1].role is Role.USER]
    assert reminders == [0, 3, 5, 8, 12]
    assert sum("reminder" in note for note in bench.journal.notes) == 3


async def test_stuck_limits_are_settings(bench: Any, asks: Asks) -> None:
    bench.limit(stuck=StuckLimits(same_call_remind_at=(), same_call_stop_at=2))
    bench.plays(asks("{}"), asks("{}"), ANSWER)

    assert (await bench.trajectory().run()).reason == "stuck"


# Generations that are no answer


async def test_an_empty_generation_is_tried_again_and_then_forced(bench: Any) -> None:
    replica = bench.plays(Scripted(), Scripted(reasoning="hm"), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.reason, outcome.answer) == ("empty", "42")
    assert [r.tool_choice for r in replica.requests] == ["auto", "auto", "none"]
    assert all(m.content or m.tool_calls for m in replica.requests[-1].messages)


async def test_a_generation_that_hit_its_length_is_followed_by_a_forced_answer(bench: Any) -> None:
    replica = bench.plays(Scripted(content="The answer", finish_reason=FinishReason.LENGTH), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.reason, outcome.answer) == ("length", "42")
    assert replica.requests[-1].messages[-2].content == "The answer"


async def test_what_was_said_before_an_empty_forced_answer_is_not_lost(bench: Any) -> None:
    bench.plays(Scripted(content="The answer is 42, bec", finish_reason=FinishReason.LENGTH), Scripted())

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "no_answer")
    assert outcome.answer == "The answer is 42, bec"


# Engines


async def test_engine_failures_are_retried_and_then_reported(bench: Any) -> None:
    replica = bench.plays(*[Scripted(content="half", error=EngineUnavailable("down", "r"))] * 3)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "engine_unavailable")
    assert outcome.detail == "down"
    assert [r.request_id[-2:] for r in replica.requests] == ["00", "01", "02"]
    assert len(bench.journal.partials) == 3
    assert bench.journal.reserved == {}


async def test_a_request_that_the_engine_refuses_is_not_repeated(bench: Any) -> None:
    replica = bench.plays(Scripted(error=EngineRefused("bad field", "r")))

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason, len(replica.requests)) == (OutcomeKind.FAILED, "engine_refused", 1)


# Context


def long_answers(length: int) -> Callable[[Mapping[str, Any]], Awaitable[ToolOutput]]:
    async def answer(arguments: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(f"{arguments['q']}: " + "x" * length)

    return answer


async def test_a_full_context_hides_earlier_outputs_and_the_trajectory_goes_on(
    bench: Any, asks: Asks
) -> None:
    bench.profile = bench.profile.model_copy(update={"context_tokens": 4_000})
    bench.probe.answer = long_answers(2_000)
    replica = bench.plays(*(asks(f'{{"q": {i}}}') for i in range(10)), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.COMPLETED, "")
    outputs = [m.content for m in replica.requests[-1].messages if m.role is Role.TOOL]
    assert HIDDEN in outputs
    assert outputs[-1].startswith("9: ")
    assert any("tool outputs hidden" in note for note in bench.journal.notes)


async def test_the_completion_never_asks_for_more_than_the_context_has_left(bench: Any, asks: Asks) -> None:
    bench.profile = bench.profile.model_copy(update={"context_tokens": 4_000})
    bench.probe.answer = long_answers(2_000)
    replica = bench.plays(*(asks(f'{{"q": {i}}}') for i in range(10)), ANSWER)

    await bench.trajectory().run()

    for request in replica.requests:
        prompt = await replica.count_tokens("bench", request.messages, request.tools)
        assert prompt + request.tokens_max <= 4_000
        assert request.tokens_max > 0


async def test_a_question_longer_than_the_context_fails_truthfully(bench: Any) -> None:
    bench.sets(messages=(Message(Role.USER, "x" * 500_000),))
    replica = bench.plays()

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "context_overflow")
    assert "100000" in outcome.detail
    assert replica.requests == []


async def test_the_fail_policy_ends_with_the_overflow(bench: Any, asks: Asks) -> None:
    bench.profile = bench.profile.model_copy(update={"context_tokens": 4_000})
    bench.sets(context_policy=ContextPolicy.FAIL)
    bench.probe.answer = long_answers(30_000)
    bench.plays(asks('{"q": 1}'))

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "context_overflow")


async def test_an_overflow_that_only_the_engine_saw_hides_outputs_and_tries_again(
    bench: Any, asks: Asks
) -> None:
    def choose(request: GenerationRequest) -> Scripted:
        outputs = [m.content for m in request.messages if m.role is Role.TOOL]
        if not outputs:
            return asks('{"q": 1}')
        if HIDDEN not in outputs:
            return Scripted(error=ContextOverflow("too long", "context_tokens", 2, 1))
        return ANSWER

    bench.probe.answer = long_answers(300)
    bench.chooses(choose)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.answer) == (OutcomeKind.COMPLETED, "42")


# Budget


async def test_a_budget_too_small_for_the_full_cap_shrinks_the_cap(bench: Any) -> None:
    bench.journal.tokens_max = 3_000
    replica = bench.plays(ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.COMPLETED, "")
    assert 256 <= replica.requests[0].tokens_max < 2_500


async def test_a_budget_in_money_shrinks_the_cap_as_well(bench: Any) -> None:
    bench.journal.cost_usd_max = 0.02
    replica = bench.plays(ANSWER)

    await bench.trajectory().run()

    assert 256 <= replica.requests[0].tokens_max < 2_500


async def test_the_last_of_a_budget_pays_for_a_forced_answer(bench: Any, asks: Asks) -> None:
    bench.journal.tokens_max = 4_000
    usage = TokenUsage(prompt=500, output=1_000)
    bench.chooses(
        lambda request: (
            ANSWER
            if request.tool_choice == "none"
            else Scripted(
                tool_calls=(ToolCall("", "probe", f'{{"q": "{request.request_id}"}}'),), usage=usage
            )
        )
    )

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason, outcome.answer) == (OutcomeKind.COMPLETED, "budget", "42")
    assert outcome.spend.tokens <= 4_000


async def test_a_budget_that_pays_for_nothing_cuts_the_trajectory(bench: Any) -> None:
    bench.journal.tokens_max = 50
    replica = bench.plays()

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason, replica.requests) == (OutcomeKind.CUT, "budget", [])


# Time


async def test_when_time_runs_short_an_answer_is_forced_from_what_is_there(bench: Any, asks: Asks) -> None:
    bench.sets(deadline_ms=clock.now_ms() + 1_000)
    bench.limit(answer_reserve_share=0.5)
    replica = bench.plays(asks('{"q": 1}'), Scripted(content="So far", hold=asyncio.Event()), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason, outcome.answer) == (OutcomeKind.COMPLETED, "deadline", "42")
    assert [p.reason for p in bench.journal.partials] == ["cut"]
    assert replica.requests[-1].messages[-2].content == "So far"
    assert len(replica.aborted) == 1


async def test_tools_that_time_overtook_leave_calls_with_a_result_that_says_so(
    bench: Any, asks: Asks
) -> None:
    async def never(arguments: Mapping[str, Any]) -> ToolOutput:
        await asyncio.Event().wait()
        raise AssertionError

    bench.probe.answer = never
    bench.sets(deadline_ms=clock.now_ms() + 1_000)
    bench.limit(answer_reserve_share=0.5)
    replica = bench.plays(asks('{"q": 1}'), ANSWER)

    outcome = await bench.trajectory().run()

    assert outcome.answer == "42"
    last = replica.requests[-1].messages
    assert [m.role for m in last] == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.USER]
    assert "No result" in last[2].content


async def test_a_deadline_that_even_the_forced_answer_misses_cuts_with_what_is_visible(bench: Any) -> None:
    bench.sets(deadline_ms=clock.now_ms() + 300)
    bench.chooses(lambda request: Scripted(content="Nearly", hold=asyncio.Event()))

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason, outcome.answer) == (OutcomeKind.CUT, "deadline", "Nearly")
    assert outcome.spend.tokens > 0


async def test_a_deadline_that_has_passed_asks_no_engine(bench: Any) -> None:
    bench.sets(deadline_ms=clock.now_ms() - 1)
    replica = bench.plays()

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason, replica.requests) == (OutcomeKind.CUT, "deadline", [])


# The end of the world


@pytest.mark.parametrize("error", [StoreUnavailable("down"), LeaseLost("moved on")])
@pytest.mark.parametrize("operation", ["record", "reserve", "settle", "count_tool_calls"])
async def test_a_lost_store_or_lease_propagates_from_every_operation(
    bench: Any, asks: Asks, operation: str, error: Exception
) -> None:
    bench.plays(asks("{}"), ANSWER)
    bench.journal.failing = lambda name: error if name == operation else None

    with pytest.raises(type(error)):
        await bench.trajectory().run()

    assert bench.replica.in_flight == 0


# Prompts and profiles


async def test_a_history_from_the_caller_is_made_valid_before_it_is_sent(bench: Any) -> None:
    turn = Message(Role.ASSISTANT, tool_calls=(ToolCall("x", "probe", "{}"),))
    bench.sets(
        messages=(turn, Message(Role.TOOL, "r", tool_call_id="x"), Message(Role.USER, "and?")),
    )
    replica = bench.plays(ANSWER)

    await bench.trajectory().run()

    assert replica.requests[0].messages[0].tool_calls[0].id == "functions.probe:0"
    assert replica.requests[0].messages[1].tool_call_id == "functions.probe:0"


async def test_the_completion_cap_is_the_smaller_of_profile_and_policy(bench: Any) -> None:
    limits = LimitsSection(output_tokens_per_step_max=700)
    bench.profile = bench.profile.model_copy(update={"limits": limits})
    replica = bench.plays(ANSWER)

    await bench.trajectory().run()

    assert replica.requests[0].tokens_max == 700


async def test_the_replica_that_served_a_step_is_preferred_for_the_next(bench: Any, asks: Asks) -> None:
    replica = bench.plays(asks("{}"), ANSWER)

    await bench.trajectory().run()

    assert [r.prefer_replica for r in replica.requests] == ["", "scripted"]
