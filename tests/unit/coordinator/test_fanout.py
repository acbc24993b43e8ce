"""A fan-out whose arms leave it in the worst order."""

from __future__ import annotations

import asyncio

import pytest

from heavy.aggregation.equivalence import Equivalence
from heavy.coordinator import fanout
from heavy.coordinator.plan import arm_spec
from heavy.core import clock
from heavy.core.errors import EngineUnavailable
from heavy.core.ids import TrajectoryId, arm
from heavy.core.runs import Outcome, OutcomeKind, TrajectorySpec
from heavy.profiles.loader import load_profiles

from tests_support.domain import PROFILE, policy, run_spec


async def test_a_silent_arm_that_fails_while_its_end_is_written_down_ends_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fanout, "CUT_GRACE_S", 0.01)
    fails, ends = asyncio.Event(), list[Outcome]()

    class Runner:
        async def run(self, spec: TrajectorySpec) -> Outcome:
            if spec.trajectory == arm(0):
                return Outcome(arm(0), OutcomeKind.COMPLETED, answer="Answer: 5")
            await fails.wait()
            raise EngineUnavailable("its runner is gone")

    async def cut(_trajectory: TrajectoryId, _reason: str) -> None:
        """Nobody hears it."""

    async def recorded(outcome: Outcome) -> Outcome:
        ends.append(outcome)
        fails.set()
        for _ in range(10):  # as long as the store takes
            await asyncio.sleep(0)
        return outcome

    contract = policy(width=2, quorum=1, straggler_grace_s=0.01)
    run, profile = run_spec(policy=contract), load_profiles().get(PROFILE)
    specs = [arm_spec(run, index, profile, epoch=1) for index in range(2)]
    equivalence = Equivalence()
    gathering = fanout.FanOut(contract, specs, Runner(), equivalence, cut, recorded)
    gathered = await gathering.gather(clock.monotonic_s() + 30, asyncio.Event())
    await equivalence.close()
    assert [(end.trajectory, end.kind) for end in ends] == [(arm(1), OutcomeKind.CUT)]
    assert gathered.outcomes[1] is ends[0]
