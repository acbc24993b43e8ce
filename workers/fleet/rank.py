"""A rank of a gang on a node of its own: the actor that holds the node's GPUs and owns the process there."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heavy.core.errors import EngineUnavailable, HeavyError
from heavy.profiles.schema import Profile
from workers.engine_process import EngineProcess
from workers.fleet.gang import RANK_LOST
from workers.fleet.placement import node_address
from workers.launch import Place, engine_command

RANK_START_S = 60.0
RANK_STOP_S = 25.0
ASK_S = 2.0
CALLS = 8
"""Calls a rank takes at once: one waits for its end, the others ask."""

logger = logging.getLogger(__name__)


class Rank:
    """The class of the Ray actor, without Ray. It dies with the replica actor that made it."""

    def __init__(self, name: str, profile: Profile, log_dir: str) -> None:
        self._name = name
        self._profile = profile
        self._log_dir = log_dir
        self._engine: EngineProcess | None = None

    async def node(self) -> str:
        """The address of the node it is on."""
        return node_address()

    async def spawn(self, place: Place) -> HeavyError | None:
        """Start the process of this rank; the error that kept it from starting."""
        try:
            command = engine_command(self._profile, place)
            self._engine = EngineProcess(self._name, command, log_dir=self._log_dir)
            await self._engine.spawn()
        except HeavyError as error:
            return error
        return None

    async def exited(self) -> int:
        """Wait for the process to end; its exit status."""
        return await self._engine.exited() if self._engine else 0

    async def log(self) -> tuple[str, ...]:
        """The last lines of the process."""
        return self._engine.log if self._engine else ()

    async def log_problem(self) -> str:
        """Why its log is not being written to its file; empty while it is."""
        return self._engine.log_problem if self._engine else ""

    async def stop(self) -> None:
        """End the process. Safe to call twice."""
        if self._engine is not None:
            await self._engine.stop()


class RayRank:
    """Implements `RankLink` over a `Rank` actor in one bundle of the replica's group."""

    def __init__(self, handle: Any, node: str) -> None:
        self.node = node
        self._handle = handle

    @classmethod
    async def create(
        cls, replica: str, profile: Profile, group: PlacementGroup, index: int, gpus: float, log_dir: str
    ) -> RayRank:
        """Make the actor and wait until it is there. Raises `EngineUnavailable`."""
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        options: Any = ray.remote(Rank).options(
            num_cpus=0,
            num_gpus=gpus,
            max_restarts=0,
            max_concurrency=CALLS,
            scheduling_strategy=strategy,
        )
        handle: Any = options.remote(f"{replica} rank {index}", profile, log_dir)
        try:
            async with asyncio.timeout(RANK_START_S):
                return cls(handle, await handle.node.remote())
        except (RayError, TimeoutError) as error:
            raise EngineUnavailable(
                f"Rank {index} of {replica} did not come up on its node: {type(error).__name__}.", replica
            ) from error

    async def spawn(self, place: Place) -> None:
        """Start its process. Raises `EngineUnavailable`, `ConfigError`."""
        try:
            error: HeavyError | None = await self._handle.spawn.remote(place)
        except RayError as lost:
            raise EngineUnavailable(f"A rank on {self.node} was lost: {type(lost).__name__}.") from lost
        if error is not None:
            raise error

    async def exited(self) -> int:
        """Wait for its end; `RANK_LOST` when its node or actor is gone."""
        try:
            return int(await self._handle.exited.remote())
        except RayError as lost:
            logger.warning("the rank on %s is gone: %s", self.node, type(lost).__name__)
            return RANK_LOST

    async def log(self) -> tuple[str, ...]:
        """The last lines of its process; empty when it is gone."""
        try:
            lines: tuple[str, ...] = await asyncio.wait_for(self._handle.log.remote(), ASK_S)
        except (RayError, TimeoutError):
            return ()
        return lines

    async def log_problem(self) -> str:
        """Why its log is not being written to its file; empty while it is, and when it is gone."""
        try:
            problem: str = await asyncio.wait_for(self._handle.log_problem.remote(), ASK_S)
        except (RayError, TimeoutError):
            return ""
        return problem

    async def stop(self) -> None:
        """End its process. Safe to call twice, and when it is gone."""
        try:
            await asyncio.wait_for(self._handle.stop.remote(), RANK_STOP_S)
        except (RayError, TimeoutError) as error:
            logger.info("the rank on %s did not stop in order: %s", self.node, type(error).__name__)
