"""What administrators see of the fleet and change about it; `workers.fleet` does the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from heavy.core.errors import ConfigError, FieldViolation, InvalidRequest, NotFound
from heavy.core.fleet import Failures, FleetListing, ProfileChange, ReplicaInfo, Served, Wanted
from heavy.profiles.loader import parse_profile
from heavy.profiles.schema import Profile
from heavy.store.api import Reservations, Store

REPLICAS_MAX = 64


class FleetAdmin:
    """Reads and writes notes in the store, so any coordinator can serve it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> FleetListing:
        """What is announced now, and what is wanted."""
        directory, fleet = self._store.directory, self._store.fleet
        failures = {one.profile: one for one in await fleet.failures()}
        served = tuple(served_of(one, failures.get(one.profile)) for one in await fleet.wanted())
        replicas = await with_reserved(self._store.reservations, await directory.replicas())
        return FleetListing(replicas, await directory.runners(), served)

    async def log(self, replica: str) -> tuple[str, ...]:
        """The last lines of a replica's engine. Raises `NotFound`."""
        return await self._store.fleet.log(replica)

    async def drain(self, replica: str) -> Served:
        """Let a replica leave; its profile afterwards. Raises `NotFound`."""
        members = await self._store.fleet.members()
        member = next((one for one in members if one.replica == replica), None)
        if member is None:
            known = ", ".join(one.replica for one in members) or "none"
            raise NotFound(f"There is no replica {replica!r:.80} to drain; there are: {known}.")
        there = {one.replica for one in members}

        def change(wanted: Wanted) -> Wanted:
            still = (one for one in wanted.drained if one in there and one != replica)
            return replace(wanted, drained=(*still, replica))

        return served_of(await self._store.fleet.change(member.profile, change), None)

    async def update(self, asked: ProfileChange) -> Served:
        """Change what is served of a profile. Raises `NotFound`, `InvalidRequest`."""
        profile = _parsed(asked)
        _check(asked)

        def change(before: Wanted) -> Wanted:
            return _changed(before, asked, profile)

        return served_of(await self._store.fleet.change(asked.profile, change), None)


async def with_reserved(reservations: Reservations, infos: Sequence[ReplicaInfo]) -> tuple[ReplicaInfo, ...]:
    """Replicas with what is reserved of each. Raises `StoreUnavailable`."""
    held = await reservations.held([info.replica for info in infos])
    return tuple(replace(info, kv_tokens_reserved=held[info.replica].tokens) for info in infos)


def served_of(wanted: Wanted, failures: Failures | None) -> Served:
    """How an administrator sees it. Failures of another revision are history."""
    current = wanted.current(failures)
    return Served(
        profile=wanted.profile,
        replicas=wanted.replicas,
        replicas_min=wanted.replicas_min,
        replicas_max=wanted.replicas_max,
        revision=wanted.revision,
        failures=current.count if current else 0,
        reason=current.reason if current else "",
        quarantined=current.quarantined if current else False,
    )


def wanted_of(profile: Profile, before: Wanted | None = None, replicas: int | None = None) -> Wanted:
    """What a profile asks for; what its load and its administrators had asked for is kept where it can be."""
    least = profile.serve.replicas if replicas is None else replicas
    most = max(least, profile.serve.replicas_max)
    number = least if before is None else max(least, min(before.replicas, most))
    return Wanted(
        profile=profile.name,
        definition=profile.model_dump_json(exclude_defaults=True),  # what a newer Heavy adds updates nothing
        replicas=number,
        replicas_min=least,
        replicas_max=most,
        drained=before.drained if before else (),
        restarts=before.restarts if before else 0,
        kept=before.kept if before else False,
        asked=before.asked if before else "",
        asked_ms=before.asked_ms if before else 0,
    )


def asked_for(
    profile: Profile, before: Wanted | None, replicas: int | None, now_ms: int, *, keep: bool = False
) -> Wanted:
    """What is wanted once somebody asks to have a profile served, for the first time or again.

    Asking for the same as the last time lets stand what administrators have changed since, so that a
    coordinator may be restarted; what failed in vain is tried again; what anybody wants kept is kept.
    """
    fresh = wanted_of(profile, before, replicas)
    text = f"{fresh.replicas_min} {fresh.replicas_max}\n{fresh.definition}"
    asked = hashlib.sha256(text.encode()).hexdigest()
    if before is not None and before.asked == asked and not before.dismissed:
        return replace(before, asked_ms=now_ms, kept=before.kept or keep)
    return replace(fresh, asked=asked, asked_ms=now_ms, kept=fresh.kept or keep)


def _parsed(asked: ProfileChange) -> Profile | None:
    if not asked.definition:
        return None
    try:
        profile = parse_profile(asked.definition, f"{asked.profile}.toml")
    except ConfigError as error:
        raise InvalidRequest((FieldViolation("definition", str(error)),)) from error
    if profile.name != asked.profile:
        problem = f"is a profile of the name {profile.name!r}, not {asked.profile!r:.80}"
        raise InvalidRequest((FieldViolation("definition", problem),))
    return profile


def _check(asked: ProfileChange) -> None:
    violations = [
        FieldViolation(name, f"is {number}; it must be from 0 to {REPLICAS_MAX}")
        for name, number in (("replicas", asked.replicas), ("replicas_max", asked.replicas_max))
        if number is not None and not 0 <= number <= REPLICAS_MAX
    ]
    if violations:
        raise InvalidRequest(tuple(violations))


def _changed(before: Wanted, asked: ProfileChange, profile: Profile | None) -> Wanted:
    wanted = wanted_of(profile, before) if profile is not None else before
    if asked.replicas is not None:
        most = max(asked.replicas, wanted.replicas_max if wanted.replicas_max > wanted.replicas_min else 0)
        wanted = replace(wanted, replicas=asked.replicas, replicas_min=asked.replicas, replicas_max=most)
    if asked.replicas_max is not None:
        if (most := asked.replicas_max) < wanted.replicas_min:
            problem = (
                f"is {most}, less than the {wanted.replicas_min} there are at least; change replicas too"
            )
            raise InvalidRequest((FieldViolation("replicas_max", problem),))
        wanted = replace(wanted, replicas=min(wanted.replicas, most), replicas_max=most)
    return replace(wanted, restarts=wanted.restarts + 1) if asked.restart else wanted
