"""A cluster on paper: carries a controller's plan out, one picture at a time, with room for so many."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from heavy.core.fleet import Failures, Member, Phase, ReplicaInfo, ReplicaState, Wanted
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

STEP_MS = 1_000


@dataclass
class World:
    """`room`: how many replicas the cluster holds. `doomed`: revisions whose replicas always give up."""

    room: int = 8
    now_ms: int = 1_000_000
    wanted: dict[str, Wanted] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    failures: dict[str, Failures] = field(default_factory=dict)
    actors: set[str] = field(default_factory=set)
    groups: dict[str, str] = field(default_factory=dict)
    infos: dict[str, ReplicaInfo] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)
    doomed_names: set[str] = field(default_factory=set)
    """Replicas that give up, whatever their revision."""
    busy: set[str] = field(default_factory=set)
    muted: set[str] = field(default_factory=set)
    """Those whose announcements are lost."""
    deaf: set[str] = field(default_factory=set)
    """Those that are told to drain in vain."""
    draining: set[str] = field(default_factory=set)
    heard_ms: dict[str, int] = field(default_factory=dict)
    numbers: int = 0

    def step(self) -> list[Action]:
        """One picture, its actions, and what becomes of the cluster meanwhile."""
        actions = plan(
            self.wanted.values(),
            list(self.members.values()),
            Sight(frozenset(self.actors), dict(self.groups), dict(self.infos), dict(self.heard_ms)),
            self.failures.values(),
            self.now_ms,
            dict.fromkeys(self.wanted, 30.0),
        )
        for action in actions:
            self.do(action)
        self.pass_time()
        return actions

    def settle(self, steps: int = 60) -> None:
        """Step until nothing is done any more, or for so many steps."""
        for _ in range(steps):
            self.step()

    def do(self, action: Action) -> None:
        match action:
            case Add(wanted):
                name = f"{wanted.profile}-{self.numbers}"
                self.numbers += 1
                self.members[name] = Member(
                    name, wanted.profile, wanted.revision, wanted.definition, self.now_ms
                )
            case Launch(member):
                self.actors.add(member.replica)
                self.groups.setdefault(member.replica, "PENDING")
                self.members[member.replica] = replace(member, launched=True)
            case Drain(member, reason):
                self._enter(member, Phase.DRAINING, reason)
            case Leave(member, reason, failed):
                if failed:
                    wanted = self.wanted.get(member.profile)
                    before = self.failures.get(member.profile)
                    before = wanted.current(before) if wanted else before
                    self.failures[member.profile] = failed_again(before, member, reason, self.now_ms)
                self._enter(member, Phase.LEAVING, reason)
            case Erase(member):
                self._gone(member.replica)
                self.members.pop(member.replica, None)
            case Tell(member):
                self.draining |= {member.replica} - self.deaf
            case Sweep(replica):
                self._gone(replica)
            case Forgive(profile):
                self.failures.pop(profile, None)

    def pass_time(self) -> None:
        """Groups are placed while there is room, and what is placed gets ready, or gives up."""
        self.now_ms += STEP_MS
        for name, state in list(self.groups.items()):
            if state == "PENDING" or name in self.infos:
                self.heard_ms[name] = self.now_ms
            placed = sum(other == "CREATED" for other in self.groups.values())
            if state == "PENDING" and placed < self.room:
                self.groups[name] = "CREATED"
            elif state == "CREATED" and name in self.actors:
                self._announce(name)

    def kill(self, name: str) -> None:
        """Its process is gone."""
        self.actors.discard(name)
        self.infos.pop(name, None)

    def ready(self) -> list[str]:
        """Those that serve, draining ones not counted."""
        return [
            name
            for name, info in self.infos.items()
            if info.state == ReplicaState.READY and self.members[name].phase is Phase.SERVING
        ]

    def revisions(self) -> set[str]:
        """What the ready ones were started from."""
        return {self.members[name].revision for name in self.ready()}

    def _announce(self, name: str) -> None:
        member = self.members.get(name)
        if member is None or name in self.muted:
            self.infos.pop(name, None)
            return
        doomed = member.revision in self.doomed or name in self.doomed_names
        state = ReplicaState.DRAINING if name in self.draining else ReplicaState.READY
        state = ReplicaState.FAILED if doomed else state
        before = self.infos.get(name)
        same = before is not None and before.state == state
        self.infos[name] = ReplicaInfo(
            replica=name,
            profile=member.profile,
            base_url="",
            engine="simulated",
            model="m",
            state=state,
            running=int(name in self.busy),
            given_up=doomed,
            detail="no such model" if doomed else "",
            since_ms=before.since_ms if same and before else self.now_ms,
        )

    def _enter(self, member: Member, phase: Phase, reason: str) -> None:
        current = self.members[member.replica]
        self.members[member.replica] = replace(current, phase=phase, since_ms=self.now_ms, reason=reason)

    def _gone(self, name: str) -> None:
        self.kill(name)
        self.groups.pop(name, None)


def want(profile: str = "p", number: int = 2, definition: str = "{}") -> Wanted:
    """So many replicas of a profile."""
    return Wanted(profile, definition, number, number, number)
