"""`heavy up` on a cluster that was there before and is there afterwards: what it took is given back."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field, replace

import pytest

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.ids import attempt_of
from heavy.core.policy import AggregationMode
from heavy.core.records import Delta, GenerationRecord
from heavy.core.runs import Run, RunState
from heavy.replicas.placement import FAILOVER_STRIDE
from workers.abacus.prompting import Candidate, aggregate_prompt
from workers.fleet import placement

from .conftest import Fleet, Nodes, stopped_by_ctrl_c, up_on
from tests_support.up import READY_WITHIN_S, processes_below
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SGLANG_WITHIN_S = 540.0
"""Two servers load beside each other: a minute on two idle cores."""
CANDIDATES = ("10", "11", "12", "13", "14", "7", "8", "9")
GUESS = "31-6=25 6*25=150 of 198 0 of 8 low\nguess {}"
QUESTION = aggregate_prompt(
    "Two numbers add to 31 and multiply to 198. What is the smaller one?",
    [
        Candidate(label, answer, GUESS.format(answer))
        for label, answer in zip("ABCDEFGH", CANDIDATES, strict=True)
    ],
)
"""The longest that the model has learnt to say: a line for each candidate, of which the last one is right."""
WIDTH = 8
ARMS = PolicyDraft(width=WIDTH, temperature=0.0, early_stop=False, aggregation=AggregationMode.VOTE)


async def test_of_two_heavy_ups_one_is_killed_and_the_other_minds_what_serves_and_what_waits_for_room(
    nodes: Nodes, fleet: Fleet
) -> None:
    await nodes.number(1)
    killed, up = up_on(nodes, fleet, "octet"), up_on(nodes, fleet, "octet")
    killed.begin()
    (before,) = await until(lambda: fleet.replicas("ready"), bool, within_s=READY_WITHIN_S)
    await until(lambda: fleet.replicas("pending"), lambda infos: len(infos) == 1, READY_WITHIN_S)
    up.begin()
    async with stopped_by_ctrl_c(up, fleet):
        runners = fleet.store.directory.runners
        await until(runners, lambda found: len(found) == 2, within_s=READY_WITHIN_S)
        await asyncio.to_thread(killed.stop, signal.SIGKILL)
        await fleet.store.fleet.change("octet", lambda wanted: replace(wanted, replicas=3, replicas_max=3))
        await until(lambda: fleet.replicas("pending"), lambda infos: len(infos) == 2, within_s=60.0)
        await until(runners, lambda found: len(found) == 1, within_s=60.0)
        (after,) = await fleet.until_ready(1)
        assert after.replica == before.replica, "another one would have another number"
        assert sorted(placement.groups("heavy-").values()) == ["CREATED", "PENDING", "PENDING"]


@pytest.mark.sglang
async def test_a_run_on_two_sglang_servers_goes_on_when_one_is_killed_in_mid_generation(
    nodes: Nodes, fleet: Fleet
) -> None:
    await nodes.number(2)
    up = up_on(nodes, fleet, "abacus-sglang-nodes")
    await asyncio.to_thread(up.start, SGLANG_WITHIN_S)
    async with stopped_by_ctrl_c(up, fleet):
        assert len({nodes.of(info.pid) for info in await fleet.until_ready(2)}) == 2
        async with HeavyClient(up.address, patience_s=60.0) as client:
            run, seen = await watched_with_a_kill(client, fleet)
    assert run.state is RunState.COMPLETED
    assert run.result is not None
    assert run.result.short_answer == CANDIDATES[-1]
    assert len(seen.texts) == WIDTH
    assert 0 < len(seen.broken) < WIDTH, "some were broken off, and some were not"
    assert all(0 < len(seen.before[arm]) < len(seen.texts[arm]) for arm in seen.broken)
    assert len(set(seen.texts.values())) == 1, "what goes on elsewhere has no gap and no repetition"
    # Text on its way may lose its last piece to the record, which has it all; never one in between.
    assert all(text.startswith(seen.said[arm]) for arm, text in seen.texts.items())


@dataclass
class Seen:
    """What the watcher of a run of one step saw, by arm."""

    said: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    """What had been said when the server was killed."""
    generations: dict[str, GenerationRecord] = field(default_factory=dict)

    @property
    def broken(self) -> set[str]:
        """The arms whose generation went on elsewhere."""
        return {arm for arm, r in self.generations.items() if attempt_of(r.request_id) >= FAILOVER_STRIDE}

    @property
    def texts(self) -> dict[str, str]:
        """What was recorded of each arm."""
        return {arm: r.message.reasoning + r.message.content for arm, r in self.generations.items()}


async def watched_with_a_kill(client: HeavyClient, fleet: Fleet) -> tuple[Run, Seen]:
    """A run of eight arms; the busier server is killed when all of them are in the middle of something."""
    seen = Seen()
    async with client.ask(QUESTION, ARMS) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                seen.said[event.trajectory] = (
                    seen.said.get(event.trajectory, "") + event.reasoning + event.content
                )
            elif isinstance(event.body, GenerationRecord):
                seen.generations[event.trajectory] = event.body
            if len(seen.said) == WIDTH and not seen.before:
                assert not seen.generations, "every arm is in the middle of its generation"
                seen.before.update(seen.said)
                await kill_the_busier(fleet)
    assert stream.run is not None
    return await client.get(stream.run), seen


async def kill_the_busier(fleet: Fleet) -> None:
    """End every process of an engine at once. It is stopped first, so that its last words are none."""
    infos = await until(lambda: fleet.replicas("ready"), lambda infos: any(i.running for i in infos))
    guard = max(infos, key=lambda info: info.running).pid
    engine = processes_below(guard) - {guard}
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for pid in engine:
            os.kill(pid, how)
