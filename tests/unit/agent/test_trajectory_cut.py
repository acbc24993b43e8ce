"""A trajectory cut from outside: whatever the moment, nothing is lost and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heavy.coordinator.tally import LoggedSpend
from heavy.core.errors import (
    EngineUnavailable,
)
from heavy.core.ids import arm
from heavy.core.ledger import Spend
from heavy.core.records import Record
from heavy.core.runs import OutcomeKind
from heavy.core.tools import ToolOutput
from heavy.testing.replicas import Scripted

Asks = Callable[..., Scripted]
Until = Callable[[Callable[[], bool]], Awaitable[None]]

ANSWER = Scripted(content="42", reasoning="six sevens")


async def test_a_cut_trajectory_keeps_its_visible_text_and_its_spend(
    bench: Any, asks: Asks, until: Until
) -> None:
    bench.plays(asks("{}"), Scripted(content="Nearly there", hold=asyncio.Event()))
    trajectory = bench.trajectory()
    running = asyncio.create_task(trajectory.run())
    await until(lambda: bool(bench.journal.deltas) and bench.journal.deltas[-1][1].content == " there")

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    outcome = trajectory.cut("straggler", "The others were done.")
    assert (outcome.kind, outcome.reason, outcome.answer) == (OutcomeKind.CUT, "straggler", "Nearly there")
    assert outcome.detail == "The others were done."
    assert outcome.spend.tokens == sum(a.tokens for a in bench.journal.settled.values())
    assert bench.journal.partials[-1].message.content == "Nearly there"


async def test_what_only_announces_a_tool_call_is_no_answer(bench: Any, asks: Asks, until: Until) -> None:
    bench.plays(asks("{}", content="Let me look that up."))
    hold = asyncio.Event()

    async def wait(arguments: Mapping[str, Any]) -> ToolOutput:
        await hold.wait()
        return ToolOutput("")

    bench.probe.answer = wait
    trajectory = bench.trajectory()
    running = asyncio.create_task(trajectory.run())
    await until(lambda: bool(bench.probe.calls))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert trajectory.cut("cancelled", "").answer == ""


@pytest.mark.parametrize("turns", range(80))
async def test_a_cancel_at_any_moment_loses_nothing_and_leaves_nothing_behind(
    bench: Any, asks: Asks, turns: int
) -> None:
    bench.limit(checkpoint_tokens=2)
    replica = bench.plays(
        asks('{"q": 1}', '{"q": 2}'),
        Scripted(content="%%%%", error=EngineUnavailable("down", "r")),
        Scripted(reasoning="~~~~", content="####", pieces=4),
    )
    trajectory = bench.trajectory()
    running = asyncio.create_task(trajectory.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    early = not running.done()
    running.cancel()
    await asyncio.wait({running})

    journal = bench.journal
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert replica.in_flight == 0
    assert journal.reserved == {}
    assert running.cancelled() is early
    outcome = trajectory.cut("cancelled", "") if early else running.result()
    assert outcome.spend.tokens == sum(a.tokens for a in journal.settled.values())
    said = "".join(d.content + d.reasoning for _, d in journal.deltas)
    kept = {(g.message.reasoning, g.message.content) for g in (*journal.generations, *journal.partials)}
    for text in ("Let me see.", "%%%%", "~~~~####"):
        streamed = next((text[:n] for n in range(len(text), 0, -1) if text[:n] in said), "")
        assert not streamed or any((r + c).startswith(streamed) for r, c in kept), (streamed, kept)
    assert {r.call_id for r in journal.results} >= {
        f"functions.probe:{i}" for i in range(len(bench.probe.calls)) if not early
    }


async def test_the_range_of_moments_above_covers_the_whole_trajectory(bench: Any, asks: Asks) -> None:
    bench.limit(checkpoint_tokens=2)
    bench.plays(
        asks('{"q": 1}', '{"q": 2}'),
        Scripted(content="half", error=EngineUnavailable("down", "r")),
        Scripted(reasoning="more", content="42", pieces=4),
    )
    running = asyncio.create_task(bench.trajectory().run())
    turns = 0
    while not running.done():
        await asyncio.sleep(0)
        turns += 1

    assert turns < 80


TOOL, FAILS, FAILS_AT_ONCE = "tool", "fails", "fails before a word"


class Hold(asyncio.Event):
    """Never set; says when somebody waits for it."""

    waited_for = False

    async def wait(self) -> Any:
        self.waited_for = True
        return await super().wait()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plot=st.lists(st.sampled_from([TOOL, FAILS, FAILS_AT_ONCE]), max_size=5),
    words=st.text(max_size=60),
    checkpoint_tokens=st.integers(1, 20),
)
async def test_the_log_and_the_report_agree_on_every_cent_whatever_failed_or_was_cut(
    bench: Any, asks: Asks, until: Until, plot: list[str], words: str, checkpoint_tokens: int
) -> None:
    hold, parts = Hold(), iter(plot)

    def choose(_: object) -> Scripted:
        match next(parts, "hangs"):
            case "tool":
                return asks(f'{{"q": {len(fresh.journal.results)}}}')
            case "hangs":
                return Scripted(content=words, pieces=4, hold=hold)
            case part:
                return Scripted(content=words if part == FAILS else "", error=EngineUnavailable("gone"))

    fresh = type(bench)()
    fresh.limit(checkpoint_tokens=checkpoint_tokens, engine_attempts_max=len(plot) + 1)
    fresh.chooses(choose)
    trajectory = fresh.trajectory()
    running = asyncio.create_task(trajectory.run())
    await until(lambda: hold.waited_for)
    left_by_a_killed_runner = logged(fresh)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    reported = trajectory.cut("straggler", "").spend
    assert logged(fresh) == reported
    booked = fresh.journal.settled.values()
    assert reported.tokens == sum(amount.tokens for amount in booked)
    assert reported.cost_usd == pytest.approx(sum(amount.cost_usd for amount in booked))
    # Without the last words, only what came after the last checkpoint is missing.
    missing = reported.tokens_output - left_by_a_killed_runner.tokens_output
    assert 0 <= missing <= checkpoint_tokens


def logged(bench: Any) -> Spend:
    """What the records so far add up to, as a coordinator reads them."""
    spend = LoggedSpend()
    for number, (step, body) in enumerate(bench.journal.records, 1):
        spend.take(Record(number, arm(0), step, 0, body))
    return spend.total
