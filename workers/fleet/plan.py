"""What a controller does next: a pure decision from what is wanted, what is meant to exist, and what is seen.

Deciding again from the same picture gives the same actions, and every action may be carried out twice or be
interrupted half-way: what is left undone is seen in the next picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from heavy.core.fleet import Failures, Member, Phase, ReplicaInfo, ReplicaState, Wanted

QUARANTINE_AFTER: Final = 5
"""Failures in a row after which a revision is not started again until it changes."""
BACKOFF_S: Final = 1.0
BACKOFF_MAX_S: Final = 300.0
STEADY_S: Final = 60.0
"""A replica that has been ready for so long ends the streak of failures."""
SILENT_S: Final = 180.0
"""A replica with its resources and an actor that has not spoken for so long is taken for lost."""
IDLE_BEFORE_LEAVING_S: Final = 3.0
"""A draining replica leaves once it has reported no work, so long after routers could have learnt of it."""
ROOM_PATIENCE_S: Final = 10.0
"""How long an update waits for room for one more before an old replica makes room."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is: actors and groups by replica, and what replicas announce."""

    actors: frozenset[str] = frozenset()
    groups: Mapping[str, str] = field(default_factory=dict)
    """Ray's word for the state of each group."""
    infos: Mapping[str, ReplicaInfo] = field(default_factory=dict)
    heard_ms: Mapping[str, int] = field(default_factory=dict)
    """When each replica last spoke for itself, or had no place yet to speak from."""


@dataclass(frozen=True, slots=True)
class Add:
    """Note one more member of a profile's current revision."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Launch:
    """Make the group and the actor of a member, or find them."""

    member: Member


@dataclass(frozen=True, slots=True)
class Drain:
    """A member is to finish what it has."""

    member: Member
    reason: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell a draining member, which still accepts work, to accept no more."""

    member: Member


@dataclass(frozen=True, slots=True)
class Leave:
    """A member is to go; `failed` when it went by itself."""

    member: Member
    reason: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Erase:
    """Take away what is left of a member, then the member."""

    member: Member


@dataclass(frozen=True, slots=True)
class Sweep:
    """Take away a group or an actor that belongs to no member."""

    replica: str


@dataclass(frozen=True, slots=True)
class Forgive:
    """A streak of failures is over."""

    profile: str


Action = Add | Launch | Drain | Tell | Leave | Erase | Sweep | Forgive


def plan(
    wanted: Iterable[Wanted],
    members: Sequence[Member],
    sight: Sight,
    failures: Iterable[Failures],
    now_ms: int,
    drain_timeout_s: Mapping[str, float],
) -> list[Action]:
    """The actions that lead from here to there. `drain_timeout_s` is by profile."""
    by_profile = {one.profile: one for one in wanted}
    streaks = {one.profile: one for one in failures}
    actions: list[Action] = [Erase(member) for member in members if member.phase is Phase.LEAVING]
    actions += _sweeps(members, sight)
    for profile in sorted({*by_profile, *(member.profile for member in members)}):
        asked = by_profile.get(profile)
        one = _Profile(
            asked,
            [member for member in members if member.profile == profile],
            sight,
            asked.current(streaks.get(profile)) if asked else None,
            now_ms,
            drain_timeout_s.get(profile, 0.0),
        )
        actions += one.actions()
    return actions


def failed_again(before: Failures | None, member: Member, reason: str, now_ms: int) -> Failures:
    """The streak after one more failure; quarantined from `QUARANTINE_AFTER` on."""
    same = before is not None and before.revision == member.revision
    count = before.count + 1 if same and before is not None else 1
    return Failures(member.profile, member.revision, count, now_ms, reason, count >= QUARANTINE_AFTER)


def backoff_s(count: int) -> float:
    """The pause before the next attempt after so many failures in a row."""
    return float(min(BACKOFF_S * 2 ** (count - 1), BACKOFF_MAX_S)) if count else 0.0


def _sweeps(members: Sequence[Member], sight: Sight) -> list[Action]:
    known = {member.replica for member in members}
    return [Sweep(replica) for replica in sorted((sight.actors | set(sight.groups)) - known)]


@dataclass(slots=True)
class _Profile:
    """The replicas of one profile at one moment."""

    wanted: Wanted | None
    members: list[Member]
    sight: Sight
    failures: Failures | None
    now_ms: int
    drain_timeout_s: float

    def actions(self) -> Iterator[Action]:
        lost = {member.replica: reason for member in self.members if (reason := self._lost(member))}
        yield from self._losses(lost)
        serving = [m for m in self.members if m.phase is Phase.SERVING and m.replica not in lost]
        if self.wanted is not None and self.wanted.dismissed:
            staying = [m for m in self.members if m.phase is not Phase.LEAVING and m.replica not in lost]
            yield from (Leave(member, "dismissed") for member in staying)
            return
        yield from self._departures(lost)
        yield from (Launch(member) for member in serving if not member.launched)
        if self.wanted is None:
            yield from (Drain(member, "its profile is no longer served") for member in serving)
            return
        if self.failures and any(self._proves_well(member, self.failures) for member in serving):
            yield Forgive(self.wanted.profile)
        if lost:
            return  # the next picture has the failures counted
        asked = [member for member in serving if member.replica in self.wanted.drained]
        yield from (Drain(member, "drained by an administrator") for member in asked)
        staying = [member for member in serving if member not in asked]
        yield from self._towards(self.wanted, staying)

    # -- what has gone

    def _lost(self, member: Member) -> str:
        """Why a member cannot serve any more; empty while it may."""
        if member.phase is Phase.LEAVING or not member.launched:
            return ""
        info = self.sight.infos.get(member.replica)
        if info is not None and info.given_up:
            return info.detail or "it gave up"
        if member.replica not in self.sight.actors:
            return "its process or its node is gone"
        heard_ms = self.sight.heard_ms.get(member.replica, member.created_ms)
        if (self.now_ms - max(member.since_ms, heard_ms)) / 1000 > SILENT_S:
            return f"it has said nothing for {SILENT_S:g} s"
        return ""

    def _losses(self, lost: Mapping[str, str]) -> Iterator[Action]:
        for member in self.members:
            if reason := lost.get(member.replica):
                yield Leave(member, reason, failed=member.phase is Phase.SERVING)

    def _departures(self, lost: Mapping[str, str]) -> Iterator[Action]:
        """Those that drain: told so until they show it; gone when they are done, or out of time."""
        for member in self.members:
            if member.phase is not Phase.DRAINING or member.replica in lost:
                continue
            info, drained_s = self.sight.infos.get(member.replica), (self.now_ms - member.since_ms) / 1000
            if drained_s >= self.drain_timeout_s:
                yield Leave(member, f"{member.reason}; it was still busy after {self.drain_timeout_s:g} s")
            elif self._ready(member):
                yield Tell(member)
            elif info is not None and self._has_been_idle(info, member):  # silence is no idleness
                yield Leave(member, member.reason)

    def _has_been_idle(self, info: ReplicaInfo, member: Member) -> bool:
        closed_s = (self.now_ms - max(member.since_ms, info.since_ms)) / 1000
        return info.running + info.waiting == 0 and closed_s >= IDLE_BEFORE_LEAVING_S

    # -- towards what is wanted

    def _towards(self, wanted: Wanted, serving: list[Member]) -> Iterator[Action]:
        current = [member for member in serving if member.revision == wanted.revision]
        old = [member for member in serving if member.revision != wanted.revision]
        if old:
            yield from self._update(wanted, current, old)
            return
        if self._may_add(wanted):
            yield from (Add(wanted) for _ in range(wanted.replicas - len(current)))
        yield from (
            Drain(member, f"{wanted.replicas} are enough")
            for member in self._least_useful(current)[: max(0, len(current) - wanted.replicas)]
        )

    def _update(self, wanted: Wanted, current: list[Member], old: list[Member]) -> Iterator[Action]:
        """One more of the new revision, then one less of the old, until none is old.

        Never fewer ready ones than wanted where there is room for one more; else never fewer than one less,
        and never none: an update of a single replica waits for room.
        """
        if len(current) < wanted.replicas and len(current) + len(old) <= wanted.replicas:
            if self._may_add(wanted):
                yield Add(wanted)
            return
        if any(member.phase is Phase.DRAINING for member in self.members):
            return
        leaving = self._least_useful(old)[0]
        ready = sum(self._ready(member) for member in (*current, *old))
        after = ready - self._ready(leaving)
        cramped = any(self._waits_for_room(member) for member in current)
        least = max(1, wanted.replicas - 1) if cramped else wanted.replicas
        if after >= least or self._is_coming_up(leaving) or wanted.replicas == 0:
            yield Drain(leaving, "replaced by a newer revision")

    def _may_add(self, wanted: Wanted) -> bool:
        failures = self.failures
        if failures is None:
            return True
        pause_s = backoff_s(failures.count)
        return not failures.quarantined and self.now_ms >= failures.last_ms + pause_s * 1000

    def _least_useful(self, members: list[Member]) -> list[Member]:
        """Those that do not serve first, then the least busy, the newest first among equals."""

        def use(member: Member) -> tuple[bool, int, int]:
            info = self.sight.infos.get(member.replica)
            busy = info.running + info.waiting if info else 0
            return self._ready(member), busy, -member.created_ms

        return sorted(members, key=use)

    def _ready(self, member: Member) -> bool:
        info = self.sight.infos.get(member.replica)
        return info is not None and info.state == ReplicaState.READY

    def _is_coming_up(self, member: Member) -> bool:
        """Whether it does not serve yet; one that is silent or ill for a moment may serve again."""
        if self.sight.groups.get(member.replica) == "PENDING":
            return True
        info = self.sight.infos.get(member.replica)
        return info is not None and info.state in (ReplicaState.PENDING, ReplicaState.STARTING)

    def _proves_well(self, member: Member, failures: Failures) -> bool:
        """Whether it got ready after the last failure, of the same revision, and has stayed so for long.

        One that was ready all along says nothing about why others fail.
        """
        info = self.sight.infos.get(member.replica)
        if info is None or not self._ready(member) or member.revision != failures.revision:
            return False
        return info.since_ms >= failures.last_ms and self.now_ms - info.since_ms >= STEADY_S * 1000

    def _waits_for_room(self, member: Member) -> bool:
        waiting = self.sight.groups.get(member.replica) == "PENDING"
        return waiting and self.now_ms - member.created_ms >= ROOM_PATIENCE_S * 1000
