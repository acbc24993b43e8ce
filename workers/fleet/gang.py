"""One engine over several nodes: its ranks start together, are watched together and end together.

Rank 0 is a process of the replica actor's own node and answers HTTP; each other node has a `Rank` actor with
a process that serves nothing. A rank that ends leaves the others waiting for it without end, so the end of
any is the end of all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from heavy.core.errors import EngineUnavailable, HeavyError
from heavy.profiles.schema import Profile
from workers.engine_process import STOP_GRACE_S, EngineProcess
from workers.fleet.ports import HTTP_OFFSETS, RENDEZVOUS_OFFSETS, PortLease
from workers.launch import Place, engine_command

RANK_LOST = -1
"""The "exit status" of a rank whose node or actor is gone."""


class RankLink(Protocol):
    """A rank on another node, spoken to from the replica's."""

    node: str
    """Its node's address."""

    async def spawn(self, place: Place) -> None:
        """Start its process. Raises `EngineUnavailable`, `ConfigError`."""
        ...

    async def exited(self) -> int:
        """Wait for its end; the exit status, `RANK_LOST` when its node or actor is gone."""
        ...

    async def log(self) -> tuple[str, ...]:
        """The last lines of its process; empty when it is gone."""
        ...

    async def log_problem(self) -> str:
        """Why its log is not being written to its file; empty while it is, and when it is gone."""
        ...

    async def stop(self) -> None:
        """End its process. Safe to call twice, and when it is gone."""
        ...


class Gang:
    """The face of an `EngineProcess`, over all ranks. One node: a gang of one."""

    def __init__(
        self,
        name: str,
        profile: Profile,
        host: str,
        others: Sequence[RankLink] = (),
        heard: Callable[[str], None] = lambda line: None,
        traces: str = "",
        log_dir: str = "",
    ) -> None:
        """`host` is where rank 0 listens, `traces` where spans go, `log_dir` where its log goes.

        Leases its ports; raises `ConfigError`.
        """
        self.name = name
        self.lost_a_rank = False
        """Whether it ended because a node or an actor of its went away: it cannot start again as it is."""
        self._others = tuple(others)
        self._others_log_problems: tuple[str, ...] = ()
        self._ports: list[PortLease] = []
        try:
            self._place = self._leased(host, traces)
            self._first = EngineProcess(name, engine_command(profile, self._place), heard, log_dir)
        except BaseException:
            self._release_ports()
            raise
        self.base_url = self._first.base_url
        self.nodes = (host, *(rank.node for rank in others))

    @property
    def pid(self) -> int:
        """The process id of rank 0's guard; 0 when nothing runs."""
        return self._first.pid

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines of rank 0."""
        return self._first.log

    @property
    def log_problem(self) -> str:
        """Which ranks' logs are not being written to their files, and why; empty while all are."""
        return "; ".join(filter(None, (self._first.log_problem, *self._others_log_problems)))

    async def ask_about_logs(self) -> None:
        """Ask the other ranks whether their logs are being written, for `log_problem`."""
        problems = await asyncio.gather(*(rank.log_problem() for rank in self._others))
        self._others_log_problems = tuple(
            f"rank {number} on {rank.node}: {problem}"
            for number, (rank, problem) in enumerate(zip(self._others, problems, strict=True), start=1)
            if problem
        )

    async def start(self, timeout_s: float) -> None:
        """Start every rank and wait until rank 0 answers. Raises `EngineUnavailable` when any ends first."""
        try:
            await self._spawn_all()
            await self._until_ready(timeout_s)
        except BaseException:
            await self.stop(grace_s=1.0)
            raise

    async def exited(self) -> int:
        """Wait for the end of any rank; its exit status."""
        status, _ = await self._first_end()
        return status

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End every rank and give the ports back. Safe to call twice."""
        stops = [self._first.stop(grace_s), *(rank.stop() for rank in self._others)]
        await asyncio.gather(*stops, return_exceptions=True)
        self._release_ports()

    def failure(self, what: str) -> EngineUnavailable:
        """An error that says what happened and what rank 0 said last."""
        return self._first.failure(what)

    def _leased(self, host: str, traces: str) -> Place:
        """Rank 0's place, on ports that are ours from now on. Raises `ConfigError`."""
        self._ports.append(PortLease.take(host, HTTP_OFFSETS))
        place = Place(host, self._ports[0].port, traces=traces)
        if not self._others:
            return place
        self._ports.append(PortLease.take(host, RENDEZVOUS_OFFSETS))
        return replace(place, nodes=len(self._others) + 1, rendezvous=f"{host}:{self._ports[1].port}")

    async def _spawn_all(self) -> None:
        places = [replace(self._place, rank=rank) for rank in range(1, self._place.nodes)]
        spawns = [rank.spawn(place) for rank, place in zip(self._others, places, strict=True)]
        await self._first.spawn()
        await asyncio.gather(*spawns)

    async def _until_ready(self, timeout_s: float) -> None:
        ready = asyncio.ensure_future(self._first.until_ready(timeout_s))
        end = asyncio.ensure_future(self._first_end(others_only=True))
        try:
            await asyncio.wait({ready, end}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                status, rank = end.result()
                raise await self._rank_failure(status, rank)
            await ready
        finally:
            for task in (ready, end):
                task.cancel()
            await asyncio.gather(ready, end, return_exceptions=True)

    async def _first_end(self, *, others_only: bool = False) -> tuple[int, int]:
        """Wait until any rank ends: its exit status and its number."""
        waits = [] if others_only else [asyncio.ensure_future(self._first.exited())]
        waits += [asyncio.ensure_future(rank.exited()) for rank in self._others]
        if not waits:
            await asyncio.Event().wait()
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            index, ended = next((i, task) for i, task in enumerate(waits) if task.done())
            status = ended.result()
            self.lost_a_rank = self.lost_a_rank or status == RANK_LOST
            return status, index + (1 if others_only else 0)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _rank_failure(self, status: int, rank: int) -> EngineUnavailable:
        what = "was lost" if status == RANK_LOST else f"ended with status {status}"
        lines: tuple[str, ...] = ()
        with contextlib.suppress(HeavyError):
            lines = await self._others[rank - 1].log()
        tail = "".join(f"\n    {line}" for line in lines[-12:])
        said = f" Its last words:{tail}" if tail else ""
        return EngineUnavailable(f"Rank {rank} of {self.name} {what} before the gang was ready.{said}")

    def _release_ports(self) -> None:
        for lease in self._ports:
            lease.release()
