"""What the store promises. `heavy.store.redis` keeps the promises on Redis 7 and Valkey.

Every method waits a bounded time and then raises `StoreUnavailable`. A run's log is appended only under
its lease: whoever holds another epoch, or none, gets `LeaseLost` and stops writing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from heavy.core.calling import CallerCall, CallerResult, Receipt, Withdrawn
from heavy.core.files import File, FileReader, FileRef
from heavy.core.fleet import Failures, Member, ReplicaInfo, RunnerInfo, Wanted
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.ledger import Ledger, Spend
from heavy.core.records import Delta, Entry, Record
from heavy.core.runs import Run, RunFailure, RunResult, RunSpec, RunState


@dataclass(frozen=True, slots=True)
class Created:
    """What `create` did. `fresh` is False when the request_id had already created the run."""

    run: Run
    fresh: bool


@dataclass(frozen=True, slots=True)
class RunPage:
    """One page of runs, newest first. `next_token` is empty on the last."""

    runs: tuple[Run, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends: its final state and what goes with it."""

    state: RunState
    result: RunResult | None
    failure: RunFailure | None
    ledger: Ledger
    ended_ms: int


class ControlKind:
    """What a control message asks for."""

    CANCEL = "cancel"
    """Stop the whole run."""
    CUT = "cut"
    """Stop one trajectory; what it has is kept."""


@dataclass(frozen=True, slots=True)
class Control:
    """A message to whoever executes a run. `trajectory` is empty for the whole run."""

    kind: str
    trajectory: TrajectoryId
    reason: str


@dataclass(frozen=True, slots=True)
class Amount:
    """What one generation may cost at most, or did cost."""

    tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class KvClaim:
    """What one generation may occupy of a replica's KV memory, in tokens.

    `shared_tokens` are the opening that the generations of a group begin with: they are there once, however
    many do. `own_tokens` come on top. `fresh_tokens` the replica has to prefill before its first word.
    `leads`: the opening is among these, and whoever else wants it here had better wait for that.
    """

    replica: str
    holder: str
    """The generation's engine-side id: no two attempts have the same."""
    group: str
    shared_tokens: int
    own_tokens: int
    fresh_tokens: int
    leads: bool = False


class Taken(StrEnum):
    """What became of a claim."""

    HELD = "ok"
    WARM = "warm"
    """Held, and it need not lead: the opening is there."""
    FULL = "full"
    """It would not fit beside what is held."""
    LED = "led"
    """Somebody else is prefilling the group's opening there just now."""


@dataclass(frozen=True, slots=True)
class KvHeld:
    """What generations hold of one replica.

    The young ones its last load report may not know yet, and those gone lately it may still count.
    """

    tokens: int = 0
    generations: int = 0
    young_tokens: int = 0
    young_generations: int = 0
    gone_tokens: int = 0
    gone_generations: int = 0
    ahead_tokens: int = 0
    """What it still has to prefill for others than the group that was asked about."""
    warm_tokens: int = 0
    """How long an opening of that group it holds."""
    led: bool = False
    """Whether it is prefilling one."""


class RunLog(Protocol):
    """Run records and their logs."""

    async def create(
        self, spec: RunSpec, *, owner: str, lease_s: float, files: Sequence[File] = ()
    ) -> Created:
        """Store a run with its files and take its lease in one step, or find the one its request_id created.

        Raises `RequestConflict` when that one was a different request (another `spec.fingerprint`).
        """
        ...

    async def get(self, run: RunId) -> Run:
        """The run record. Raises `NotFound`."""
        ...

    async def list(
        self,
        tenant: str,
        *,
        states: frozenset[RunState],
        page_size: int,
        page_token: str,
        id_start: str = "",
    ) -> RunPage:
        """The tenant's runs, newest first; empty `states` means all. `InvalidRequest` for a bad token.

        `id_start`: only runs whose ids begin so (`heavy.core.ids.is_run_id_start`); found by their time.
        """
        ...

    async def append(self, run: RunId, *, epoch: int, entries: Sequence[Entry]) -> tuple[int, ...]:
        """Number and append entries in one atomic step, all or none. Raises `LeaseLost`, `NotFound`."""
        ...

    async def transition(self, run: RunId, *, epoch: int, state: RunState, entry: Entry) -> None:
        """Move a run to a state that is not final and append the entry that says so, atomically."""
        ...

    async def finish(self, run: RunId, *, epoch: int, ending: Ending, entry: Entry) -> bool:
        """End a run atomically: state, ending, last entry, lease released, retention begun.

        False when it had ended already (nothing changes). Raises `LeaseLost`.
        """
        ...

    async def read(self, run: RunId, *, after: int, limit: int) -> tuple[Record, ...]:
        """At most `limit` records with numbers above `after`. Raises `NotFound`."""
        ...

    def follow(self, run: RunId, *, after: int, deltas: bool) -> AsyncGenerator[Record | tuple[Delta, ...]]:
        """Records from a number on as they come, deltas between them if wanted; ends after the final record.

        Raises `NotFound` (also when the run's retention ends meanwhile), `StoreUnavailable`, and `Overloaded`
        when this process follows as many logs as it may. Close it (`aclosing`) when leaving early.
        """
        ...

    async def publish(self, run: RunId, deltas: Sequence[Delta]) -> None:
        """Show fresh text to whoever follows. Bounded and lossy: old deltas fall out."""
        ...


class Leases(Protocol):
    """Who owns a run. An epoch is never used twice for one run."""

    async def renew(self, run: RunId, *, epoch: int, lease_s: float) -> None:
        """Extend the lease. Raises `LeaseLost` when it has expired or moved on."""
        ...

    async def held(self, run: RunId, *, epoch: int) -> bool:
        """Whether `epoch` still owns the run: what a runner asks while a generation is under way."""
        ...

    async def release(self, run: RunId, *, epoch: int) -> None:
        """Give a lease up early; no error when it is gone already."""
        ...

    async def expired(self, limit: int) -> tuple[Run, ...]:
        """Runs that are not final and have no owner: theirs has died."""
        ...

    async def take(self, run: RunId, *, owner: str, lease_s: float) -> int:
        """Take over an ownerless run; the new epoch. Raises `LeaseLost` when someone else holds it."""
        ...


class Budgets(Protocol):
    """Money and tokens of a run, reserved before they are spent. The aggregation's share is kept apart."""

    async def reserve(
        self, run: RunId, *, epoch: int, request_id: str, amount: Amount, aggregation: bool
    ) -> None:
        """Set an amount aside. Raises `BudgetExhausted` when the run's budget does not hold it, `LeaseLost`.

        Reserving again under the same `request_id` changes nothing.
        """
        ...

    async def settle(self, run: RunId, *, request_id: str, spent: Amount) -> None:
        """Return a reservation and book what was really spent. Settling twice changes nothing."""
        ...

    async def count_tool_calls(self, run: RunId, *, calls: int) -> int:
        """Count tool calls of a run; the total so far. Raises `BudgetExhausted` past the run's cap."""
        ...

    async def spent(self, run: RunId) -> Amount:
        """What is booked so far."""
        ...


class Reservations(Protocol):
    """KV memory of replicas, reserved by every generation before it begins and returned after it.

    Over all processes, what is held of a replica never exceeds what it has. Reservations expire unless they
    are kept, so a dead process leaks nothing; returning one touches no other.
    """

    async def held(
        self, replicas: Sequence[str], *, group: str = "", report_age_s: float = 0.0
    ) -> Mapping[str, KvHeld]:
        """What is held of each replica, as seen by `group`.

        What was taken within `report_age_s` counts as young, what was returned within it as gone; of that
        at most the last 2 s are remembered.
        """
        ...

    async def take(self, claim: KvClaim, *, kv_tokens_max: int, generations_max: int, ttl_s: float) -> Taken:
        """Reserve for `ttl_s`, or say why not. `kv_tokens_max` 0: nobody knows how much there is.

        A claim that is larger than all there is is let in where nobody else is.
        """
        ...

    async def began(self, claim: KvClaim, *, warm_s: float) -> None:
        """Its prompt is prefilled; the opening is taken to be there for `warm_s`. Who waits is told."""
        ...

    async def keep(self, replica: str, holders: Sequence[str], *, ttl_s: float) -> None:
        """Hold on to what is still held for another `ttl_s`."""
        ...

    async def give_back(self, claim: KvClaim) -> None:
        """Return a reservation. Twice, or after it has expired, changes nothing."""
        ...

    def listening(self, group: str) -> AbstractContextManager[asyncio.Event]:
        """Within it, the event is set at first and whenever who led the group has begun or given up."""
        ...


class ControlChannel(Protocol):
    """Cancel and cut, pushed to whoever listens and readable later by whoever did not."""

    async def send(self, run: RunId, control: Control) -> None:
        """Note a control message in the run's record and push it. Noting it twice changes nothing."""
        ...

    def listen(self, run: RunId) -> AbstractAsyncContextManager[AsyncIterator[Control]]:
        """Control messages of a run: those noted already, then those pushed, each once.

        The iterator outlives an outage; it raises `StoreUnavailable` when one lasts longer than any lease.
        """
        ...


class Exchange(Protocol):
    """Calls of tools that the caller executes, and their results, between runners and whoever is attached."""

    async def ask(self, run: RunId, *, epoch: int, call: CallerCall) -> None:
        """Note a call for whoever is attached now or later. Noting it twice changes nothing.

        Raises `LeaseLost`, `NotFound`.
        """
        ...

    async def result(self, run: RunId, call_id: str) -> CallerResult:
        """The result of a call, once the caller has sent it. Bound the wait from outside.

        Raises `StoreUnavailable` when the store does not answer for longer than any lease.
        """
        ...

    async def end(self, run: RunId, call_id: str) -> None:
        """Nobody waits for a call any more, or its result was taken. Harmless when it has ended."""
        ...

    def calls(self, run: RunId) -> AbstractAsyncContextManager[AsyncIterator[CallerCall | Withdrawn]]:
        """Calls without a result: those noted already, then those to come; and those withdrawn, each once."""
        ...

    async def send_once(self, run: RunId, call_id: str, token: str) -> bool:
        """Whether a call that must not be delivered twice may be sent by the sender `token` stands for."""
        ...

    async def answer(self, run: RunId, result: CallerResult) -> Receipt:
        """Give a call its result, once. Raises `NotFound` for a run that is not there."""
        ...

    async def attached(self, run: RunId, *, ttl_s: float) -> None:
        """Say that a caller is attached through this process, for so long."""
        ...

    async def is_attached(self, run: RunId) -> bool:
        """Whether some process says so."""
        ...


class Files(FileReader, Protocol):
    """Files of runs, by content. They go when their run goes."""

    async def keep(self, run: RunId, files: Sequence[File]) -> tuple[FileRef, ...]:
        """Keep what a run's tools made, within the run's bound; a file it has no room for has no digest.

        Safe to repeat. Raises `NotFound`, `StoreUnavailable`.
        """
        ...


class Directory(Protocol):
    """Who is there. Announcements expire by themselves, so a dead process disappears."""

    async def announce_replica(self, info: ReplicaInfo, *, ttl_s: float) -> None:
        """Show a replica until `ttl_s` has passed or it is announced again."""
        ...

    async def announce_runner(self, info: RunnerInfo, *, ttl_s: float) -> None:
        """Show a runner until `ttl_s` has passed or it is announced again."""
        ...

    async def withdraw(self, name: str) -> None:
        """Take a replica or runner off at once."""
        ...

    async def replicas(self) -> tuple[ReplicaInfo, ...]:
        """Everything announced, sorted by id."""
        ...

    async def runners(self) -> tuple[RunnerInfo, ...]:
        """Everything announced, sorted by name."""
        ...


class FleetStore(Protocol):
    """What is wanted of each profile, which replicas are meant to exist, and who may change them.

    The leader's writes are fenced: under an epoch that is over they raise `LeaseLost` and change nothing.
    """

    async def identity(self) -> str:
        """What tells this fleet's actors and groups from another fleet's on the same Ray cluster."""
        ...

    async def lead(self, *, owner: str, lease_s: float) -> int | None:
        """Become the leader if there is none; the epoch, or None while somebody else leads."""
        ...

    async def renew(self, *, epoch: int, lease_s: float) -> None:
        """Stay the leader. Raises `LeaseLost`."""
        ...

    async def resign(self, *, epoch: int) -> None:
        """Let somebody else lead at once; no error when that has happened already."""
        ...

    async def wanted(self) -> tuple[Wanted, ...]:
        """What is to be served, by profile."""
        ...

    async def want(self, wanted: Wanted) -> None:
        """Note what is to be served of a profile, whatever was noted before."""
        ...

    async def unwant(self, profile: str) -> None:
        """Serve a profile no more."""
        ...

    async def change(self, profile: str, change: Callable[[Wanted], Wanted]) -> Wanted:
        """Change what is wanted of a profile, atomically; as it is afterwards. Raises `NotFound`."""
        ...

    async def members(self) -> tuple[Member, ...]:
        """Every replica that is meant to exist, by name."""
        ...

    async def number(self, profile: str) -> int:
        """A number that no replica of the profile has had."""
        ...

    async def put_member(self, member: Member, *, epoch: int) -> None:
        """Note or change a member. Raises `LeaseLost`."""
        ...

    async def erase_member(self, replica: str, *, epoch: int) -> None:
        """Forget a member of which nothing is left. Raises `LeaseLost`."""
        ...

    async def failures(self) -> tuple[Failures, ...]:
        """The failures in a row, by profile."""
        ...

    async def put_failures(self, failures: Failures, *, epoch: int) -> None:
        """Note failures. Raises `LeaseLost`."""
        ...

    async def forget_failures(self, profile: str, *, epoch: int) -> None:
        """The streak is over. Raises `LeaseLost`."""
        ...

    async def keep_log(self, replica: str, lines: Sequence[str]) -> None:
        """Keep the last lines of a replica's engine for a day, whatever becomes of the replica."""
        ...

    async def log(self, replica: str) -> tuple[str, ...]:
        """The last lines that were kept. Raises `NotFound`."""
        ...


class Store(Protocol):
    """One connection to the run store, and its eight parts."""

    @property
    def log(self) -> RunLog: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def budgets(self) -> Budgets: ...
    @property
    def reservations(self) -> Reservations: ...
    @property
    def control(self) -> ControlChannel: ...
    @property
    def directory(self) -> Directory: ...
    @property
    def fleet(self) -> FleetStore: ...
    @property
    def exchange(self) -> Exchange: ...
    @property
    def files(self) -> Files: ...

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when the server does not answer."""
        ...

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        ...


def spend_amount(spend: Spend) -> Amount:
    """What a spend counts against a budget."""
    return Amount(tokens=spend.tokens, cost_usd=spend.cost_usd)
