"""Profiles served for as long as one wants them: what is asked for, a controller of one's own, and a view."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from heavy.coordinator.fleet import asked_for
from heavy.core import clock
from heavy.core.errors import EngineUnavailable, HeavyError, StoreUnavailable
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
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, profiles: Sequence[Profile], replicas: int | None, *, keep: bool = False) -> None:
        """Ask for the replicas, to be kept or not when we stop, and begin to mind them."""
        before = {one.profile: one for one in await self._store.fleet.wanted()}
        self._profiles = {profile.name: profile for profile in profiles}
        for profile in profiles:
            asked = asked_for(profile, before.get(profile.name), replicas, clock.now_ms(), keep=keep)
            await self._store.fleet.want(asked)
        self._tasks = [asyncio.create_task(self._controller.run()), asyncio.create_task(self._show_forever())]

    async def until_ready(self, *, patient: bool = False) -> None:
        """Wait until every profile has as many replicas as it needs at least; those of before count.

        Raises `EngineUnavailable` with the engine's last words at the first failure; if `patient`, only for a
        profile of which none serves and none is tried any more. Waiting for room on a cluster that may grow
        has no bound: the view says what is missing.
        """
        while True:
            self.check()
            with contextlib.suppress(StoreUnavailable):  # an outage is waited out
                if await self._enough_serve(patient=patient):
                    return
            await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """Raises whatever ended the controller, which nothing should."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def stop(self, *, keep: bool = False) -> None:
        """Let the replicas go, unless they are to be kept for whoever comes next. Safe to call twice."""
        stopped, self._stopped = self._stopped, True
        try:
            if not stopped and not keep:
                with contextlib.suppress(HeavyError):
                    await self._dismiss(self._profiles)
        finally:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _dismiss(self, profiles: Mapping[str, Profile]) -> None:
        """Whatever somebody wants kept stays: it may serve others."""
        wanted = [one for one in await self._store.fleet.wanted() if one.profile in profiles]
        going = {one.profile for one in wanted if not one.kept}
        for profile in going:
            await self._store.fleet.change(profile, _dismissed)
        until_s = clock.monotonic_s() + GONE_WITHIN_S
        while clock.monotonic_s() < until_s:
            if not any(member.profile in going for member in await self._store.fleet.members()):
                break
            await asyncio.sleep(POLL_S)
        for profile in going:
            await self._store.fleet.unwant(profile)

    async def _enough_serve(self, *, patient: bool) -> bool:
        """Raises `EngineUnavailable`, `StoreUnavailable`."""
        wanted = [one for one in await self._store.fleet.wanted() if one.profile in self._profiles]
        infos = await self._store.directory.replicas()
        self._show(infos)
        ready = Counter(info.profile for info in infos if info.state == ReplicaState.READY)
        if all(ready[one.profile] >= one.replicas_min for one in wanted):
            return True
        failures = {one.profile: one for one in await self._store.fleet.failures()}
        for one in wanted:
            failed = one.current(failures.get(one.profile))
            if failed and not (patient and (ready[one.profile] or not failed.quarantined)):
                raise EngineUnavailable(failed.reason)
        return False

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
