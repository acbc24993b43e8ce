"""Every key and channel of the run store, named in one place.

The keys of one run share the hash tag `{run}`, so that each script touches one cluster slot; the indexes
over many runs stand apart and are changed by commands of their own.
"""

from __future__ import annotations

import hashlib
from typing import Final

from heavy.core.errors import NotFound
from heavy.core.ids import RunId, is_run_id, made_between_ms

PREFIX: Final = "heavy:"
LIVE: Final = f"{PREFIX}live"
"""Sorted set of the runs that have not ended, by creation."""
CONTROL_CHANNEL: Final = f"{PREFIX}control"
"""Where the id of a run is published when a control message was noted for it."""
REPLICAS: Final = f"{PREFIX}replicas"
RUNNERS: Final = f"{PREFIX}runners"
FLEET_LEAD: Final = f"{PREFIX}{{fleet}}:lead"
"""The epoch and the owner of whoever leads the fleet; expires with the lease."""
FLEET_EPOCH: Final = f"{PREFIX}{{fleet}}:numbers"
"""Hash: the last epoch, and how many replicas each profile has had."""
FLEET_WANTED: Final = f"{PREFIX}{{fleet}}:wanted"
FLEET_MEMBERS: Final = f"{PREFIX}{{fleet}}:members"
FLEET_FAILURES: Final = f"{PREFIX}{{fleet}}:failures"
ID_SLACK_MS: Final = 1_000


class RunKeys:
    """The keys of one run. Raises `NotFound` for anything that is not a run id: it reaches no key."""

    __slots__ = (
        "budget",
        "callers",
        "calls",
        "calls_over",
        "control",
        "deltas",
        "files",
        "lease",
        "log",
        "results",
        "run",
        "tokens",
    )

    def __init__(self, run: RunId) -> None:
        if not is_run_id(run):
            raise NotFound(f"{run[:80]!r} is not a run id; ids look like run-0123456789abcdef01234567.")
        base = f"{PREFIX}{{{run}}}:"
        self.run = f"{base}run"
        """Hash: the run record."""
        self.lease = f"{base}lease"
        """The epoch of the owner; expires with the lease."""
        self.log = f"{base}log"
        """Stream: the records, with ids `<number>-0`."""
        self.deltas = f"{base}deltas"
        """Stream: fresh text, short and short-lived."""
        self.files = f"{base}files"
        """Hash: the contents of the run's files, by digest."""
        self.tokens = f"{base}tokens"
        """List: the tokens of the last writes, by which a repeated write is known."""
        self.budget = f"{base}budget"
        """Hash: what is spent, what is held, and each reservation."""
        self.control = f"{base}control"
        """Hash: the control messages noted."""
        self.calls = f"{base}calls"
        """Hash: calls of the caller's tools that are waited for, by id; `sent:<id>` once on their way."""
        self.calls_over = f"{base}calls_over"
        """Set: the ids of such calls that nobody waits for any more."""
        self.results = f"{base}results"
        """Hash: results that the caller sent and no runner has taken yet."""
        self.callers = f"{base}callers"
        """There while a caller is attached through any coordinator; expires when none says so any more."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The keys that live as long as the run is readable."""
        return (
            self.run,
            self.log,
            self.tokens,
            self.budget,
            self.control,
            self.calls,
            self.calls_over,
            self.results,
            self.files,
        )

    @property
    def all(self) -> tuple[str, ...]:
        """Every key of the run."""
        return (*self.kept, self.lease, self.deltas, self.callers)


def fleet_log(replica: str) -> str:
    """Where the last lines of a replica's engine are kept."""
    return f"{PREFIX}replica-log:{replica}"


def kv_key(replica: str) -> str:
    """Hash: which generations hold how much of a replica's KV memory. All of them share a cluster slot."""
    return f"{PREFIX}{{kv}}:{replica}"


def request_key(tenant: str, request_id: str) -> str:
    """Where the run that a caller's request_id created is noted; neither part can run into the other."""
    digest = hashlib.blake2b(f"{len(tenant)}:{tenant}:{request_id}".encode(), digest_size=20).hexdigest()
    return f"{PREFIX}request:{digest}"


def tenant_key(tenant: str) -> str:
    """Sorted set of a tenant's runs, ordered by its members alone: see `index_member`."""
    return f"{PREFIX}tenant:{tenant}"


def index_member(created_ms: int, run: RunId) -> str:
    """A run in its tenant's index: fixed width, so that text order is order by (created, id)."""
    return f"{created_ms:015d}-{run}"


def members_between(start: str) -> tuple[str, str]:
    """Between which index members all runs stand whose ids begin with `start`; for "" there are no bounds.

    A run is created a moment before or after its id is made, so the bounds are a little wide.
    """
    if not start:
        return "", ""
    first_ms, last_ms = made_between_ms(start)
    return f"{max(0, first_ms - ID_SLACK_MS):015d}-", f"{last_ms + ID_SLACK_MS:015d}-"


def run_of_member(member: str) -> RunId:
    """The run that `index_member` put there."""
    return RunId(member.partition("-")[2])
