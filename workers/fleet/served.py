"""Profiles served for as long as one wants them: what is asked for, a controller of one's own, and a view."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from heavy.coordinator.fleet import wanted_of
from heavy.core import clock
from heavy.core.errors import EngineUnavailable, HeavyError
from heavy.core.fleet import ReplicaInfo, ReplicaState, Wanted
from heavy.profiles.schema import Profile
from heavy.store.api import Store
from workers.fleet.controller import Controller

POLL_S = 0.2
GONE_WITHIN_S = 45.0
"""How long replicas have to end; what is left then is swept by the next controller."""

Progress = Callable[[str, str, str], None]
"""Told (part, state, detail) whenever a part changes."""


class ServedProfiles:
    """Asks for replicas, minds them beside others who do, and lets them go again unless they are kept."""

    def __init__(self, store: Store, environment: Mapping[str, str], progress: Progress) -> None:
        self._store = store
        self._controller = Controller(store, environment)
        self._progress = progress
        self._shown: dict[str, tuple[str, str]] = {}
        self._profiles: dict[str, Profile] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, profiles: Sequence[Profile], replicas: int | None) -> None:
        """Ask for the replicas and wait until every profile has as many as it needs at least.

        Raises `EngineUnavailable` with the engine's last words when one cannot start. Waiting for room on a
        cluster that may grow has no bound: the view says what is missing.
        """
        before = {one.profile: one for one in await self._store.fleet.wanted()}
        self._profiles = {profile.name: profile for profile in profiles}
        asked = {p.name: wanted_of(p, before.get(p.name), replicas) for p in profiles}
        for wanted in asked.values():
            await self._store.fleet.want(wanted)
        self._tasks = [asyncio.create_task(self._controller.run()), asyncio.create_task(self._show_forever())]
        while not await self._ready(asked):
            await self._raise_failures(asked)
            await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """Raises whatever ended the controller, which nothing should."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def stop(self, *, keep: bool = False) -> None:
        """Let the replicas go, unless they are to be kept for whoever comes next. Safe to call twice."""
        profiles, self._profiles = self._profiles, {}
        try:
            if profiles and not keep:
                with contextlib.suppress(HeavyError):
                    await self._dismiss(profiles)
        finally:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _dismiss(self, profiles: Mapping[str, Profile]) -> None:
        for one in await self._store.fleet.wanted():
            if one.profile in profiles:
                await self._store.fleet.change(one.profile, _dismissed)
        until_s = clock.monotonic_s() + GONE_WITHIN_S
        while clock.monotonic_s() < until_s:
            if not any(member.profile in profiles for member in await self._store.fleet.members()):
                break
            await asyncio.sleep(POLL_S)
        for profile in profiles:
            await self._store.fleet.unwant(profile)

    async def _ready(self, asked: Mapping[str, Wanted]) -> bool:
        infos = await self._store.directory.replicas()
        ready = [(info.profile, info.revision) for info in infos if info.state == ReplicaState.READY]
        return all(
            ready.count((wanted.profile, wanted.revision)) >= wanted.replicas_min for wanted in asked.values()
        )

    async def _raise_failures(self, asked: Mapping[str, Wanted]) -> None:
        self.check()
        for one in await self._store.fleet.failures():
            if one.profile in asked and one.revision == asked[one.profile].revision:
                raise EngineUnavailable(one.reason)

    async def _show_forever(self) -> None:
        while True:
            with contextlib.suppress(HeavyError):  # an outage of the store: the last view stands
                self._show(await self._store.directory.replicas())
            await asyncio.sleep(POLL_S)

    def _show(self, infos: Sequence[ReplicaInfo]) -> None:
        mine = {info.replica: info for info in infos if info.profile in self._profiles}
        for replica, info in mine.items():
            what = self._profiles[info.profile]
            now = (info.state, info.detail or f"{what.title}, {what.engine}")
            if self._shown.get(replica) != now:
                self._shown[replica] = now
                self._progress(replica, *now)
        for replica in [one for one in self._shown if one not in mine]:
            if self._shown.pop(replica)[0] != ReplicaState.STOPPED:
                self._progress(replica, ReplicaState.STOPPED, "")


def _dismissed(wanted: Wanted) -> Wanted:
    return replace(wanted, dismissed=True)
