"""Trajectories whose context overflows: what the model sees afterwards, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from heavy.agent.limits import StuckLimits
from heavy.core.errors import EngineUnavailable
from heavy.core.messages import Role
from heavy.core.policy import ContextPolicy
from heavy.core.runs import OutcomeKind
from heavy.core.tools import ToolOutput
from heavy.replicas.api import GenerationRequest, TokenUsage
from heavy.testing.replicas import Scripted

Asks = Callable[..., Scripted]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
SUMMARISE = "about to be removed"


def wants_summary(request: GenerationRequest) -> bool:
    return SUMMARISE in request.messages[-1].content


@pytest.fixture
def long(bench: Any) -> Any:
    """A bench with a context of 8,000 tokens and a tool that fills a tenth of it; every third call fails."""

    async def answer(arguments: Mapping[str, Any]) -> ToolOutput:
        number = int(arguments["n"])
        return ToolOutput(f"{number}: " + "x" * 2_400, is_error=number % 3 == 0)

    bench.profile = bench.profile.model_copy(update={"context_tokens": 8_000})
    bench.probe.answer = answer
    bench.sets(steps_max=60, context_policy=ContextPolicy.SUMMARISE)
    bench.limit(stuck=StuckLimits(same_error_stop_at=1_000))
    return bench


def player(
    asks: Asks, steps: int, summary: Callable[[], Scripted]
) -> Callable[[GenerationRequest], Scripted]:
    """Calls the tool with ever new arguments, writes summaries when asked for them, then answers."""
    made = iter(range(10_000))

    def choose(request: GenerationRequest) -> Scripted:
        if wants_summary(request):
            return summary()
        number = next(made)
        if number >= steps or request.tool_choice == "none":
            return Scripted(content="42")
        return asks(f'{{"n": {number}}}')

    return choose


async def test_the_model_goes_on_from_its_own_summary_over_several_overflows(long: Any, asks: Asks) -> None:
    written = iter(range(100))
    replica = long.chooses(player(asks, 50, lambda: Scripted(content=f"Summary {next(written)}.")))

    outcome = await long.trajectory().run()

    summaries = [request for request in replica.requests if wants_summary(request)]
    assert (outcome.kind, outcome.answer, outcome.reason) == (OutcomeKind.COMPLETED, "42", "")
    assert len(summaries) >= 4
    assert all(request.tool_choice == "none" for request in summaries)
    assert f"Summary {len(summaries) - 1}." in replica.requests[-1].messages[1].content
    assert "Summary 0." not in replica.requests[-1].messages[1].content
    assert "failed" in replica.requests[-1].messages[1].content
    assert outcome.steps == 51 + len(summaries)
    assert [request.request_id for request in replica.requests] == sorted(
        request.request_id for request in replica.requests
    )
    assert len({request.request_id for request in replica.requests}) == len(replica.requests)


async def test_summaries_are_paid_for_and_do_not_use_up_steps(long: Any, asks: Asks) -> None:
    long.sets(steps_max=30)
    replica = long.chooses(player(asks, 1_000, lambda: Scripted(content="A summary.")))

    outcome = await long.trajectory().run()

    assert outcome.reason == "steps_max"
    assert len(long.probe.calls) == 30
    assert sum(a.tokens for a in long.journal.settled.values()) == outcome.spend.tokens
    assert len(long.journal.settled) == len(replica.requests)


async def test_every_request_fits_with_its_completion_the_one_for_a_summary_too(
    long: Any, asks: Asks
) -> None:
    replica = long.chooses(player(asks, 50, lambda: Scripted(content="s" * 40_000)))

    await long.trajectory().run()

    for request in replica.requests:
        prompt = await replica.count_tokens("bench", request.messages, request.tools)
        assert prompt + request.tokens_max <= 8_000


@pytest.mark.parametrize("broken", [Scripted(), Scripted(error=EngineUnavailable("down", "r"))])
async def test_without_a_summary_the_trajectory_goes_on_with_what_failed(
    long: Any, asks: Asks, broken: Scripted
) -> None:
    replica = long.chooses(player(asks, 40, lambda: broken))

    outcome = await long.trajectory().run()

    assert (outcome.kind, outcome.answer, outcome.reason) == (OutcomeKind.COMPLETED, "42", "")
    assert "were removed" in replica.requests[-1].messages[1].content


async def test_a_trajectory_cut_while_it_writes_a_summary_does_not_answer_with_it(
    long: Any, asks: Asks, until: Until
) -> None:
    never = asyncio.Event()
    replica = long.chooses(player(asks, 40, lambda: Scripted(content="A secret summary.", hold=never)))
    trajectory = long.trajectory()
    task = asyncio.create_task(trajectory.run())
    await until(lambda: bool(replica.requests) and wants_summary(replica.requests[-1]))
    await until(lambda: long.journal.deltas[-1][1].content != "")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert trajectory.cut("straggler", "").answer == ""


async def test_summaries_are_bounded(long: Any, asks: Asks) -> None:
    long.limit(summaries_max=2)
    replica = long.chooses(player(asks, 50, lambda: Scripted(content="A summary.")))

    await long.trajectory().run()

    assert sum(map(wants_summary, replica.requests)) == 2


@pytest.mark.parametrize("policy", [p for p in ContextPolicy if p is not ContextPolicy.FAIL])
async def test_asking_again_for_what_was_taken_out_of_sight_is_no_repetition(
    long: Any, asks: Asks, policy: ContextPolicy
) -> None:
    """Seven files read in turn, over and over: each is asked for once after every overflow."""
    long.sets(context_policy=policy, steps_max=70)
    turn = iter(range(10_000))

    def choose(request: GenerationRequest) -> Scripted:
        if wants_summary(request):
            return Scripted(content="A summary.")
        number = next(turn)
        if number >= 70 or request.tool_choice == "none":
            return Scripted(content="42")
        return asks(f'{{"n": {number % 7}}}')

    replica = long.chooses(choose)

    outcome = await long.trajectory().run()

    assert outcome.reason == "steps_max"
    reminded = [
        r
        for r in replica.requests
        if r.messages[-1].role is Role.USER and "You have now" in r.messages[-1].content
    ]
    assert len(reminded) < 8


@pytest.mark.parametrize("policy", [p for p in ContextPolicy if p is not ContextPolicy.FAIL])
async def test_turns_that_fill_the_context_by_themselves_still_leave_room_for_an_answer(
    long: Any, asks: Asks, policy: ContextPolicy
) -> None:
    """Hiding outputs cannot help where the calls are long: the trajectory ends, with an answer."""
    long.sets(context_policy=policy)
    made = iter(range(10_000))

    def choose(request: GenerationRequest) -> Scripted:
        if wants_summary(request):
            return Scripted(content="A summary.")
        if request.tool_choice == "none":
            return Scripted(content="42")
        return asks(f'{{"n": {next(made)}, "why": "{"w" * 3_000}"}}')

    replica = long.chooses(choose)

    outcome = await long.trajectory().run()

    hiding = policy in (ContextPolicy.HIDE_TOOL_OUTPUTS, ContextPolicy.KEEP_LAST)
    assert (outcome.kind, outcome.answer) == (OutcomeKind.COMPLETED, "42")
    assert outcome.reason == ("context_overflow" if hiding else "steps_max")
    last = replica.requests[-1]
    if hiding:  # the latest turns are still there: only as much gave way as had to
        assert any(message.tool_calls for message in last.messages)
    assert await replica.count_tokens("bench", last.messages, last.tools) + last.tokens_max <= 8_000


async def test_a_generation_that_moved_is_no_measure_of_the_conversation(bench: Any, asks: Asks) -> None:
    """What another replica had to read again was paid for, but the conversation is no longer for it."""
    doubled = TokenUsage(prompt=150_000, output=10)
    moved = replace(asks('{"n": 1}'), usage=doubled, request_id="01a2-0-000000-10")
    replica = bench.plays(moved, asks('{"n": 2}'), Scripted(content="42"))

    outcome = await bench.trajectory().run()

    assert outcome.answer == "42"
    assert not [note for note in bench.journal.notes if note.startswith("context:")]
    assert len(replica.requests[-1].messages) == 5
