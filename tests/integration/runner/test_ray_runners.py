"""Runners as real Ray actors on a small local cluster: choosing, failing, and being gone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from heavy.core import clock
from heavy.core.codec import dump, load
from heavy.core.errors import EngineRefused, HeavyError, LimitExceeded, Overloaded, RunnerLost
from heavy.core.fleet import RunnerInfo
from heavy.core.ids import arm, new_run_id
from heavy.core.messages import Message, Role
from heavy.core.policy import ContextPolicy, Sampling
from heavy.core.runs import Outcome, OutcomeKind, TrajectoryRole, TrajectorySpec
from heavy.runner import ray_adapter
from heavy.runner.ray_adapter import NAMESPACE, RayRunners
from heavy.store.redis import RedisStore

from tests_support.waiting import until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    # Ray's own client code warns of what it will change.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SUPPORT = Path(__file__).parents[2] / "support"


class Acting:
    """A runner actor that does what a trajectory's first message says."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._go = asyncio.Event()
        self._runs = 0

    async def ping(self) -> None:
        pass

    async def pid(self) -> int:
        return os.getpid()

    async def go(self) -> None:
        self._go.set()

    async def runs(self) -> int:
        return self._runs

    async def run(self, data: bytes) -> tuple[bytes, HeavyError | None]:
        spec = load(TrajectorySpec, data)
        match spec.messages[0].content:
            case "full":
                return b"", Overloaded("No room.", 1.0)
            case text if text == f"full on {self._name}":
                return b"", Overloaded("No room.", 1.0)
            case "error":
                try:
                    raise OSError("the cause")
                except OSError as cause:
                    error = LimitExceeded("Too much.", "tokens_max", 2, 1)
                    error.__cause__ = cause
                    return b"", error
            case "defect":
                raise KeyError("a defect with words of its own")
            case "garbage":
                return b"{}", None
            case "wait":
                self._runs += 1
                await self._go.wait()
        return dump(Outcome(spec.trajectory, OutcomeKind.COMPLETED, answer=self._name)), None


def spec(text: str, index: int = 0, left_s: float = 60.0) -> TrajectorySpec:
    return TrajectorySpec(
        run=new_run_id(),
        trajectory=arm(index),
        role=TrajectoryRole.ARM,
        tenant="default",
        profile="simulated",
        messages=(Message(Role.USER, text),),
        tools=(),
        sampling=Sampling(),
        context_policy=ContextPolicy.FAIL,
        steps_max=1,
        tool_calls_max=None,
        reasoning_tokens_per_step_max=10,
        deadline_ms=clock.now_ms() + int(left_s * 1000),
        epoch=1,
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray, started once: it takes most of these tests' time. Its workers import this module, too."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)
        ray.init(
            "local",  # never one that runs on this machine already
            num_cpus=2,
            namespace=NAMESPACE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
        ray.shutdown()


class Fleet:
    """Actors, and their announcements in a real directory."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.handles: dict[str, Any] = {}
        self.runners = RayRunners(store.directory)

    async def announce(self, name: str, in_flight: int = 0, in_flight_max: int = 4) -> None:
        info = RunnerInfo(name, in_flight, in_flight_max)
        await self.store.directory.announce_runner(info, ttl_s=60.0)

    async def add(self, name: str, **announced: int) -> Any:
        options = ray.remote(Acting).options(name=name, namespace=NAMESPACE, num_cpus=0, max_concurrency=32)
        handle = self.handles[name] = options.remote(name)
        await handle.ping.remote()
        await self.announce(name, **announced)
        return handle

    async def kill(self, name: str) -> None:
        os.kill(await self.handles[name].pid.remote(), signal.SIGKILL)

    def nothing_is_kept(self) -> None:
        assert not self.runners._in_flight


@pytest.fixture
def fleet(cluster: None, store: RedisStore) -> Iterator[Fleet]:
    made = Fleet(store)
    yield made
    for handle in made.handles.values():
        ray.kill(handle)
    made.nothing_is_kept()


async def test_outcomes_and_errors_come_back_as_they_are(fleet: Fleet) -> None:
    await fleet.add("a")
    outcome = await fleet.runners.run(spec("answer", 3))
    assert outcome == Outcome(arm(3), OutcomeKind.COMPLETED, answer="a")
    with pytest.raises(LimitExceeded) as raised:
        await fleet.runners.run(spec("error"))
    assert raised.value.limit == "tokens_max"
    with pytest.raises(RunnerLost, match="KeyError") as lost:
        await fleet.runners.run(spec("defect"))
    assert "words of its own" not in lost.value.message
    with pytest.raises(RunnerLost, match="cannot be read"):
        await fleet.runners.run(spec("garbage"))
    assert (await fleet.runners.run(spec("answer"))).answer == "a"


async def test_arms_spread_over_runners_and_stay_within_their_room(fleet: Fleet) -> None:
    first = await fleet.add("a", in_flight_max=2)
    second = await fleet.add("b", in_flight_max=2)
    arms = [asyncio.create_task(fleet.runners.run(spec("wait", i))) for i in range(5)]

    async def runs() -> tuple[int, int]:
        return await first.runs.remote(), await second.runs.remote()

    assert await until(runs, lambda counts: sum(counts) == 4) == (2, 2)
    await asyncio.gather(first.go.remote(), second.go.remote())
    answers = [outcome.answer for outcome in await asyncio.gather(*arms)]
    assert sorted(answers)[:2] == ["a", "a"]
    assert len(answers) == 5


async def test_a_dead_runner_that_is_still_announced_is_passed_over(fleet: Fleet) -> None:
    await fleet.add("a")
    await fleet.announce("never-there")
    assert (await fleet.runners.run(spec("answer"))).answer == "a"  # which keeps its handle
    await fleet.kill("a")
    await fleet.add("b", in_flight=3)
    arms = [fleet.runners.run(spec("answer", i)) for i in range(3)]
    assert {outcome.answer for outcome in await asyncio.gather(*arms)} == {"b"}
    assert set(fleet.runners._handles) == {"b"}


async def test_a_runner_that_dies_with_a_trajectory_is_lost_and_nothing_is_repeated(
    fleet: Fleet,
) -> None:
    doomed = await fleet.add("a")
    other = await fleet.add("b", in_flight=3)
    running = asyncio.create_task(fleet.runners.run(spec("wait")))
    await until(lambda: doomed.runs.remote(), lambda runs: runs == 1)
    await fleet.kill("a")
    with pytest.raises(RunnerLost, match="died"):
        await running
    assert await other.runs.remote() == 0


async def test_a_runner_that_turns_out_to_be_full_is_passed_over(fleet: Fleet) -> None:
    await fleet.add("a")
    await fleet.add("b", in_flight=3)
    assert (await fleet.runners.run(spec("full on a"))).answer == "b"


async def test_with_every_runner_full_it_says_when_to_try_again_within_its_time(fleet: Fleet) -> None:
    await fleet.add("a")
    began_s = clock.monotonic_s()
    with pytest.raises(Overloaded) as refused:
        await fleet.runners.run(spec("full", left_s=0.5))
    assert refused.value.retry_after_s > 0
    assert clock.monotonic_s() - began_s < 5.0


async def test_with_no_runner_at_all_it_says_so_within_its_time(fleet: Fleet) -> None:
    with pytest.raises(RunnerLost, match="No runner is there"):
        await fleet.runners.run(spec("answer", left_s=0.2))


async def test_a_frozen_runner_costs_a_bounded_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_adapter, "REACH_S", 0.5)
    frozen = await fleet.add("a")
    await fleet.add("b", in_flight=3)
    pid = await frozen.pid.remote()
    os.kill(pid, signal.SIGSTOP)
    try:
        began_s = clock.monotonic_s()
        assert (await fleet.runners.run(spec("answer"))).answer == "b"
        assert clock.monotonic_s() - began_s < 3.0
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_cancelled_wait_gives_its_place_back_and_leaves_the_runner_usable(fleet: Fleet) -> None:
    handle = await fleet.add("a", in_flight_max=1)
    waiting = asyncio.create_task(fleet.runners.run(spec("wait")))
    await until(lambda: handle.runs.remote(), lambda runs: runs == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    fleet.nothing_is_kept()
    assert (await fleet.runners.run(spec("answer"))).answer == "a"
    await handle.go.remote()


def test_every_kind_of_error_survives_the_way_through_ray(fleet: Fleet) -> None:
    original = EngineRefused("No.", "r-0")
    returned = ray.get(ray.put(replace_cause(original)))
    assert (type(returned), returned.message, returned.replica) == (EngineRefused, "No.", "r-0")


def replace_cause(error: EngineRefused) -> EngineRefused:
    """The error with a cause that does not pickle."""
    error.__cause__ = RuntimeError(asyncio.Event(), lambda: None)
    return error
