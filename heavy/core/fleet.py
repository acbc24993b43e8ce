"""What is there to serve with, what an operator wants served, and what has gone wrong so far.

What is wanted is written by the controller of `workers.fleet` and by administrators, and kept in the store,
so that a controller can be restarted at any line and another one can go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

REVISION_CHARS = 10


class ReplicaState(StrEnum):
    """Where a replica is, as people see it."""

    PENDING = "pending"
    """Waiting for resources."""
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    """Finishing what is in flight, accepting nothing new."""
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A replica as it announces itself. `load` is the engine's own report, 0 where it has none."""

    replica: str
    profile: str
    base_url: str
    engine: str
    model: str
    state: str
    """A `ReplicaState`."""
    running: int = 0
    waiting: int = 0
    kv_tokens_used: int = 0
    kv_tokens_max: int = 0
    in_flight_max: int = 64
    detail: str = ""
    """What it waits for, how far its start is, or why it failed."""
    pid: int = 0
    nodes: tuple[str, ...] = ()
    """The addresses of the nodes it runs on, that of rank 0 first."""
    revision: str = ""
    """What it was started from: see `Wanted`."""
    since_ms: int = 0
    """Since when it has been in this state."""
    given_up: bool = False
    """It failed and will not come back by itself: its controller replaces it."""
    kv_tokens_reserved: int = 0
    """What generations have reserved of it. The store knows; a replica does not announce it."""


@dataclass(frozen=True, slots=True)
class RunnerInfo:
    """A runner as it announces itself: the name of its Ray actor and how much it is doing."""

    runner: str
    in_flight: int
    in_flight_max: int
    pid: int = 0
    queue_wait_s: Mapping[str, float] = field(default_factory=dict)
    """Per profile, how long the first in line has waited there for a replica with room."""
    sandbox: str = ""
    """Which walls stand around generated code there, and what lacks. Empty: no code is run."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served of one profile. `replicas` lies between the minimum and the maximum."""

    profile: str
    definition: str
    """The whole profile as JSON: what replicas are started from."""
    replicas: int
    replicas_min: int
    replicas_max: int
    drained: tuple[str, ...] = ()
    """Replicas that a person has asked to go."""
    restarts: int = 0
    """How often a person has asked for a new start: another number, another revision."""
    dismissed: bool = False
    """Its replicas go at once, whatever they have in flight."""
    kept: bool = False
    """Its replicas stay when whoever asked for them goes."""
    asked: str = ""
    """A digest of what was asked for the last time; what differs from it, administrators have changed."""
    asked_ms: int = 0
    """When that was."""

    @property
    def revision(self) -> str:
        """A short digest of the definition: a replica of another one is out of date."""
        text = f"{self.restarts}\n{self.definition}"
        return hashlib.sha256(text.encode()).hexdigest()[:REVISION_CHARS]

    def current(self, failures: Failures | None) -> Failures | None:
        """The failures, unless they are history: of another revision, or from before it was asked for."""
        if failures is None or failures.revision != self.revision or failures.last_ms < self.asked_ms:
            return None
        return failures


@dataclass(frozen=True, slots=True)
class Served:
    """What is wanted of a profile, and its failures in a row, as administrators see it."""

    profile: str
    replicas: int
    replicas_min: int
    replicas_max: int
    revision: str
    failures: int = 0
    reason: str = ""
    quarantined: bool = False


@dataclass(frozen=True, slots=True)
class FleetListing:
    """Which replicas and runners there are, and what is wanted, by name."""

    replicas: tuple[ReplicaInfo, ...]
    runners: tuple[RunnerInfo, ...]
    profiles: tuple[Served, ...] = ()


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """What an administrator changes about a profile; None and empty leave it as it is."""

    profile: str
    definition: str = ""
    """The whole profile as TOML."""
    replicas: int | None = None
    replicas_max: int | None = None
    restart: bool = False


class Phase(StrEnum):
    """What a member is meant to do."""

    SERVING = "serving"
    DRAINING = "draining"
    LEAVING = "leaving"
    """Its processes and its resources are being given back."""


@dataclass(frozen=True, slots=True)
class Member:
    """A replica that is meant to exist. Noted before anything of it is made, erased when it is gone."""

    replica: str
    profile: str
    revision: str
    definition: str
    created_ms: int
    launched: bool = False
    """Whether its actor has been made: from then on, no actor means a dead one."""
    phase: Phase = Phase.SERVING
    since_ms: int = 0
    """When the phase began."""
    reason: str = ""
    """Why it drains or leaves."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures in a row of one profile's revision. After so many it is quarantined until it changes."""

    profile: str
    revision: str
    count: int
    last_ms: int
    reason: str
    """What the last one said, last log lines included."""
    quarantined: bool = False
