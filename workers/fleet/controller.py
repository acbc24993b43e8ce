"""The controller: looks at what is wanted and what there is, and takes the next steps, over and over.

It owns nothing that would end with it: replicas, groups and everything it knows are in Ray and in the store.
Of several controllers one leads, by a lease; what one leaves half done the next one finishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from pydantic import ValidationError
from ray.exceptions import RayError

from heavy.core import clock
from heavy.core.errors import ConfigError, HeavyError, NotFound
from heavy.core.fleet import Member, Phase, ReplicaInfo, ReplicaState, Wanted
from heavy.profiles.schema import Profile, ServeSection
from heavy.store.api import Store
from workers.fleet.hands import Hands
from workers.fleet.plan import (
    Action,
    Add,
    Drain,
    Erase,
    Forgive,
    Launch,
    Leave,
    Sight,
    Sweep,
    Tell,
    failed_again,
    plan,
)
from workers.fleet.scale import Trend, scaled

STEP_EVERY_S = 0.5
LEASE_S = 10.0
PENDING_TTL_S = 3.0
RETRY_S = 2.0
LAST_LINES = 12

logger = logging.getLogger(__name__)


class Controller:
    """Reconciles until it is cancelled. Any number may run; `run` acts only while it leads."""

    def __init__(self, store: Store, environment: Mapping[str, str]) -> None:
        self._store = store
        self._environment = environment
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._trends: dict[str, Trend] = {}
        self._heard_ms: dict[str, int] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Lead whenever nobody else does. Outages of the store or of Ray are waited out."""
        while True:
            try:
                hands = Hands(await self._store.fleet.identity(), self._environment)
                epoch = await self._store.fleet.lead(owner=self._owner, lease_s=LEASE_S)
                if epoch is not None:
                    await self._lead(hands, epoch)
            except (HeavyError, RayError) as error:
                logger.warning("the fleet is not being minded: %s", error)
            await asyncio.sleep(RETRY_S)

    async def _lead(self, hands: Hands, epoch: int) -> None:
        """Reconcile while the lease lasts. Raises `LeaseLost`, `StoreUnavailable`, `RayError`."""
        logger.info("leading the fleet (epoch %d)", epoch)
        self._heard_ms.clear()
        for member in await self._store.fleet.members():
            if member.launched:
                hands.begin(member.replica)
        try:
            while True:
                await self._store.fleet.renew(epoch=epoch, lease_s=LEASE_S)
                if not await self._step(hands, epoch):
                    await asyncio.sleep(STEP_EVERY_S)
        finally:
            await self._leave_endings()
            with contextlib.suppress(HeavyError):
                await self._store.fleet.resign(epoch=epoch)

    async def _step(self, hands: Hands, epoch: int) -> bool:
        """One picture, and what follows from it; whether it is to be followed by the next one at once."""
        fleet = self._store.fleet
        members, failures = await fleet.members(), await fleet.failures()
        actors, groups = await hands.look()
        infos = {info.replica: info for info in await self._store.directory.replicas()}
        sight = Sight(actors, groups, infos, self._hear(members, groups, infos))
        wanted = await self._scale(await fleet.wanted(), infos.values())
        timeouts = {m.profile: serve_of(m.definition).drain_timeout_s for m in members}
        actions = plan(wanted, members, sight, failures, clock.now_ms(), timeouts)
        for action in actions:
            await self._do(action, hands, epoch)
        await self._show_waiting(members, sight, hands)
        return any(isinstance(action, Add | Leave) for action in actions)

    def _hear(
        self, members: Iterable[Member], groups: Mapping[str, str], infos: Mapping[str, ReplicaInfo]
    ) -> dict[str, int]:
        """When each member last spoke, or had no place to speak from; what is new to this leader: now."""
        now_ms, before = clock.now_ms(), self._heard_ms
        self._heard_ms = {
            name: now_ms if speaks(infos.get(name)) or not placed(groups, name) else before.get(name, now_ms)
            for name in (member.replica for member in members)
        }
        return self._heard_ms

    async def _do(self, action: Action, hands: Hands, epoch: int) -> None:
        fleet = self._store.fleet
        match action:
            case Add(wanted):
                number = await fleet.number(wanted.profile)
                member = new_member(wanted, number)
                logger.info("%s is to be there", member.replica)
                await fleet.put_member(member, epoch=epoch)
            case Launch(member):
                await self._launch(member, hands, epoch)
            case Drain(member, reason):
                logger.info("%s drains: %s", member.replica, reason)
                await self._enter(member, Phase.DRAINING, reason, epoch)
            case Tell(member):
                hands.drain(member.replica)
            case Leave(member, reason, failed):
                logger.log(
                    logging.WARNING if failed else logging.INFO, "%s leaves: %s", member.replica, reason
                )
                if failed:
                    await self._count_failure(member, reason, epoch)
                await self._enter(member, Phase.LEAVING, reason, epoch)
            case Erase(member):
                self._begin_end(member.replica, hands, epoch)
            case Sweep(replica):
                self._begin_end(replica, hands, epoch)
            case Forgive(profile):
                await fleet.forget_failures(profile, epoch=epoch)

    async def _launch(self, member: Member, hands: Hands, epoch: int) -> None:
        """Make a member's group and actor. What Ray or we will not have is its failure, nobody else's."""
        try:
            await hands.launch(member, profile_of(member.definition))
        except ConfigError as error:
            await self._do(Leave(member, str(error), failed=True), hands, epoch)
        except (ValueError, TypeError) as error:
            reason = f"Ray refuses to place it: {error} Correct the profile's serve section."
            await self._do(Leave(member, reason, failed=True), hands, epoch)
        else:
            await self._store.fleet.put_member(replace(member, launched=True), epoch=epoch)

    async def _enter(self, member: Member, phase: Phase, reason: str, epoch: int) -> None:
        changed = replace(member, phase=phase, since_ms=clock.now_ms(), reason=reason)
        await self._store.fleet.put_member(changed, epoch=epoch)

    async def _count_failure(self, member: Member, reason: str, epoch: int) -> None:
        """One more failure in a row, with the engine's last words where the reason lacks them."""
        if "last words" not in reason:
            with contextlib.suppress(NotFound):
                lines = (await self._store.fleet.log(member.replica))[-LAST_LINES:]
                reason = f"{reason.rstrip('.')}. Its last words:" + "".join(f"\n    {line}" for line in lines)
        streaks = {one.profile: one for one in await self._store.fleet.failures()}
        before = streaks.get(member.profile)
        for wanted in await self._store.fleet.wanted():
            before = wanted.current(before) if wanted.profile == member.profile else before
        failures = failed_again(before, member, reason, clock.now_ms())
        await self._store.fleet.put_failures(failures, epoch=epoch)
        if failures.quarantined:
            logger.error(
                "%s failed %d times in a row and is not started again until its profile changes: %s",
                *(member.profile, failures.count, reason),
            )

    def _begin_end(self, replica: str, hands: Hands, epoch: int) -> None:
        """Take a replica away beside the loop: it may take as long as an engine takes to stop."""
        task = self._ending.get(replica)
        if task is None or task.done():
            self._ending[replica] = asyncio.create_task(self._end(replica, hands, epoch))

    async def _end(self, replica: str, hands: Hands, epoch: int) -> None:
        try:
            await hands.take_away(replica)
            await self._store.directory.withdraw(replica)
            await self._store.fleet.erase_member(replica, epoch=epoch)
            del self._ending[replica]
        except (HeavyError, RayError) as error:
            logger.warning("%s could not be taken away yet: %s", replica, error)

    async def _leave_endings(self) -> None:
        endings, self._ending = list(self._ending.values()), {}
        for task in endings:
            task.cancel()
        await asyncio.gather(*endings, return_exceptions=True)

    async def _scale(self, wanted: Iterable[Wanted], infos: Iterable[ReplicaInfo]) -> list[Wanted]:
        """What is wanted, with the number of replicas that the load asks for noted where it changed."""
        runners = await self._store.directory.runners()
        now_ms, everything, result = clock.now_ms(), list(infos), []
        for one in wanted:
            ready = [i for i in everything if i.profile == one.profile and i.state == ReplicaState.READY]
            wait_s = max((r.queue_wait_s.get(one.profile, 0.0) for r in runners), default=0.0)
            trend = self._trends.get(one.profile, Trend())
            limits = serve_of(one.definition).scale
            number, self._trends[one.profile] = scaled(one, limits, ready, wait_s, trend, now_ms)
            if number != one.replicas:
                logger.info("%s: %d replicas instead of %d", one.profile, number, one.replicas)
                one = await self._store.fleet.change(one.profile, partial(replace, replicas=number))
            result.append(one)
        return result

    async def _show_waiting(self, members: Iterable[Member], sight: Sight, hands: Hands) -> None:
        """Show those that cannot speak for themselves yet, with what they wait for."""
        for member in members:
            if member.phase is Phase.LEAVING or speaks(sight.infos.get(member.replica)):
                continue
            try:
                profile = profile_of(member.definition)
            except ConfigError:  # to launch it tells
                continue
            if placed(sight.groups, member.replica):
                since_ms, detail = sight.heard_ms[member.replica], "it has its place; waiting for its process"
            else:
                since_ms, detail = member.created_ms, await hands.missing(profile)
            info = pending_info(member, profile, since_ms, detail or "waiting for its place on the cluster")
            await self._store.directory.announce_replica(info, ttl_s=PENDING_TTL_S)


def speaks(info: ReplicaInfo | None) -> bool:
    """Whether a replica has announced itself; what is pending, its controller has announced."""
    return info is not None and info.state != ReplicaState.PENDING


def placed(groups: Mapping[str, str], replica: str) -> bool:
    """Whether Ray has found room for it, or it needs none."""
    return groups.get(replica, "CREATED") == "CREATED"


def profile_of(definition: str) -> Profile:
    """The profile that a definition holds. Raises `ConfigError` for one that another version has noted."""
    try:
        return Profile.model_validate_json(definition)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(
            f"A profile in the store cannot be read by this version of Heavy ({'; '.join(faults)}). "
            "`heavy replicas update NAME --file NAME.toml` replaces it."
        ) from error


def serve_of(definition: str) -> ServeSection:
    """How a profile is served; as by default where it cannot be read: only to launch it takes all of it."""
    try:
        return profile_of(definition).serve
    except ConfigError:
        return ServeSection()


def new_member(wanted: Wanted, number: int) -> Member:
    """The next replica of a profile."""
    return Member(
        replica=f"{wanted.profile}-{number}",
        profile=wanted.profile,
        revision=wanted.revision,
        definition=wanted.definition,
        created_ms=clock.now_ms(),
    )


def pending_info(member: Member, profile: Profile, since_ms: int, detail: str) -> ReplicaInfo:
    """How a replica is shown that waits for resources, or for its process."""
    return ReplicaInfo(
        replica=member.replica,
        profile=member.profile,
        base_url="",
        engine=profile.engine,
        model=profile.model,
        state=ReplicaState.PENDING,
        in_flight_max=profile.serve.in_flight_max,
        detail=detail,
        revision=member.revision,
        since_ms=since_ms,
    )
