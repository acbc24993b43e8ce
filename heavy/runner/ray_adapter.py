"""Runners that are Ray actors. The only module of the control plane that imports Ray.

One Ray call carries a trajectory's spec, and its outcome comes back when it has ended; everything between
goes straight from the runner to the store. A call is never retried: a trajectory runs tools.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from heavy.core import clock
from heavy.core.codec import dump, load
from heavy.core.errors import HeavyError, Overloaded, RunnerLost
from heavy.core.runs import Outcome, TrajectorySpec
from heavy.store.api import Directory, RunnerInfo

NAMESPACE = "heavy"
CHOICE_WAIT_S = 20.0
"""How long a trajectory waits for a runner with room."""
CHOICE_POLL_S = 0.1


def connect(address: str) -> None:
    """Join the Ray cluster at `address` as a client of Heavy's named actors."""
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)


def disconnect() -> None:
    """Leave the cluster; safe to call twice."""
    ray.shutdown()


class RayRunners:
    """Implements `heavy.runner.api.Runner` over every runner actor that is announced."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._handles: dict[str, Any] = {}
        self._in_flight: dict[str, int] = {}

    async def run(self, spec: TrajectorySpec) -> Outcome:
        """Roll out one trajectory on the least busy runner. Raises `RunnerLost`, `Overloaded`."""
        name, handle = await self._take_place(min(CHOICE_WAIT_S, clock.remaining_s(spec.deadline_ms)))
        try:
            outcome, error = await handle.run.remote(dump(spec))
        except RayActorError as lost:
            self._handles.pop(name, None)
            raise RunnerLost(f"The runner {name} died while it executed {spec.trajectory}.") from lost
        except RayError as failed:
            raise RunnerLost(f"The runner {name} could not be reached: {failed}") from failed
        finally:
            self._in_flight[name] -= 1
        if error is not None:
            raise error
        return load(Outcome, outcome)

    async def _take_place(self, wait_s: float) -> tuple[str, Any]:
        """A runner with room, counted from the choice on, so that arms which start together spread."""
        until_s = clock.monotonic_s() + wait_s
        while True:
            runners = await self._directory.runners()
            for info in sorted(runners, key=self._load):
                name = info.runner
                if self._in_flight.get(name, 0) >= info.in_flight_max:
                    continue
                self._in_flight[name] = self._in_flight.get(name, 0) + 1
                try:
                    handle = await self._handle(name)
                except BaseException:
                    self._in_flight[name] -= 1
                    raise
                if handle is not None:
                    return name, handle
                self._in_flight[name] -= 1
            if clock.monotonic_s() >= until_s:
                raise self._nobody(runners)
            await asyncio.sleep(CHOICE_POLL_S)

    def _load(self, info: RunnerInfo) -> tuple[int, int, str]:
        """Our own trajectories first: what is announced is half a second old, and others balance theirs."""
        return self._in_flight.get(info.runner, 0), info.in_flight, info.runner

    async def _handle(self, name: str) -> Any | None:
        if name not in self._handles:
            with contextlib.suppress(ValueError):  # what Ray raises for a name that no actor has
                self._handles[name] = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
        return self._handles.get(name)

    @staticmethod
    def _nobody(runners: tuple[RunnerInfo, ...]) -> HeavyError:
        if runners:
            return Overloaded("Every runner is full; try again, or start more of them.", 5.0)
        return RunnerLost("No runner is there. `heavy up` starts them; see whether it still runs.")
