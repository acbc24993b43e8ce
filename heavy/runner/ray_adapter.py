"""Runners that are Ray actors. The only module of the control plane that imports Ray.

One Ray call carries a trajectory's spec, and its outcome comes back when it has ended; everything between
goes straight from the runner to the store. A call is never retried: a trajectory runs tools.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from pydantic import ValidationError
from ray.exceptions import RayActorError, RayError, RayTaskError

from heavy.core import clock
from heavy.core.codec import dump, load
from heavy.core.errors import HeavyError, Overloaded, RunnerLost
from heavy.core.fleet import RunnerInfo
from heavy.core.runs import Outcome, TrajectorySpec
from heavy.store.api import Directory

logger = logging.getLogger(__name__)

NAMESPACE = "heavy"
CHOICE_WAIT_S = 20.0
"""How long a trajectory waits for a runner with room."""
CHOICE_POLL_S = 0.1
REACH_S = 5.0
"""How long a runner may take to say that it is there; then another one is tried."""


def connect(address: str) -> None:
    """Join the Ray cluster at `address` as a client of Heavy's named actors."""
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)


def disconnect() -> None:
    """Leave the cluster; safe to call twice."""
    ray.shutdown()


class RayRunners:
    """Implements `heavy.runner.api.Runner` over every runner actor that is announced.

    An announcement outlives its process by some seconds, so a runner is asked whether it is there first.
    Until it has been given a trajectory, another one may be chosen; from then on, never.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._handles: dict[str, Any] = {}
        self._in_flight: Counter[str] = Counter()

    async def run(self, spec: TrajectorySpec) -> Outcome:
        """Roll out one trajectory on the least busy runner. Raises `RunnerLost`, `Overloaded`."""
        until_s = clock.monotonic_s() + min(CHOICE_WAIT_S, clock.remaining_s(spec.deadline_ms))
        passed: set[str] = set()
        while True:
            runners = await self._directory.runners()
            chosen = self._choose(runners, passed)
            if chosen is None:
                if clock.monotonic_s() >= until_s:
                    raise self._nobody(runners)
                passed.clear()
                await asyncio.sleep(CHOICE_POLL_S)
                continue
            with self._taken(chosen):
                handle = await self._reach(chosen)
                if handle is not None:
                    try:
                        return await self._call(chosen, handle, spec)
                    except Overloaded:  # nothing has begun there
                        logger.debug("the runner %s is full", chosen)
            passed.add(chosen)

    def _choose(self, runners: Collection[RunnerInfo], passed: Collection[str]) -> str | None:
        """The least busy runner with room that was not passed over in this round."""
        room = [
            info
            for info in runners
            if info.runner not in passed and self._in_flight[info.runner] < info.in_flight_max
        ]
        return min(room, key=self._load).runner if room else None

    def _load(self, info: RunnerInfo) -> tuple[int, str]:
        return max(self._in_flight[info.runner], info.in_flight), info.runner

    @contextmanager
    def _taken(self, name: str) -> Iterator[None]:
        """Within it, one more trajectory counts as being on a runner."""
        self._in_flight[name] += 1
        try:
            yield
        finally:
            self._in_flight[name] -= 1
            if not self._in_flight[name]:
                del self._in_flight[name]

    async def _reach(self, name: str) -> Any | None:
        """The handle of a runner that has just answered; None when there is none or it is silent."""
        try:
            async with asyncio.timeout(REACH_S):
                if name not in self._handles:
                    self._handles[name] = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
                handle = self._handles[name]
                await handle.ping.remote()
                return handle
        except (ValueError, RayError, TimeoutError) as error:  # ValueError: no actor has that name
            self._handles.pop(name, None)
            logger.info("the runner %s is announced but cannot be reached: %s", name, type(error).__name__)
            return None

    async def _call(self, name: str, handle: Any, spec: TrajectorySpec) -> Outcome:
        try:
            outcome, error = await handle.run.remote(dump(spec))
        except RayActorError as lost:
            self._handles.pop(name, None)
            raise RunnerLost(f"The runner {name} died while it executed {spec.trajectory}.") from lost
        except RayTaskError as failed:
            logger.error("the runner %s failed in %s of %s: %s", name, spec.trajectory, spec.run, failed)
            kind = type(failed.cause).__name__
            raise RunnerLost(f"The runner {name} failed in {spec.trajectory}: {kind}.") from failed
        except RayError as failed:
            raise RunnerLost(f"The runner {name} was lost: {type(failed).__name__}.") from failed
        if error is not None:
            raise error
        try:
            return load(Outcome, outcome)
        except ValidationError as garbled:
            raise RunnerLost(
                f"What the runner {name} answered cannot be read; does it have this version?"
            ) from garbled

    @staticmethod
    def _nobody(runners: Collection[RunnerInfo]) -> HeavyError:
        if runners:
            return Overloaded("Every runner is full or silent; try again, or start more of them.", 5.0)
        return RunnerLost("No runner is there. `heavy up` starts them; see whether it still runs.")
