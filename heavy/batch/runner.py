"""Asking a batch: so many at once, within its budget, each ended run written down before it is forgotten."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from heavy.batch.budget import UNLIMITED, BatchBudget, Purse
from heavy.batch.directory import BatchDirectory, LogWriter, Manifest
from heavy.batch.questions import NO_OVERRIDES, Question, digest, merged
from heavy.batch.results import Asked, BatchResult, of_refusal, of_run
from heavy.batch.throttle import Throttle
from heavy.client import DEFAULTS, HeavyClient
from heavy.core import clock
from heavy.core.draft import PolicyDraft
from heavy.core.errors import (
    CannotWrite,
    ConfigError,
    HeavyError,
    InvalidRequest,
    LimitExceeded,
    Overloaded,
    ServerUnavailable,
    StoreUnavailable,
    Unauthenticated,
    first_of,
)
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.records import GenerationRecord, LifecycleRecord, Record
from heavy.core.runs import Outcome

CONCURRENCY: Final = 16
CONCURRENCY_MAX: Final = 1_000
FULL_PATIENCE_S: Final = 3_600.0
RETRY_AFTER_S: Final = 2.0
RETRY_AFTER_S_MAX: Final = 60.0

T = TypeVar("T")

STOPPING: Final = (Unauthenticated, ServerUnavailable, StoreUnavailable, Overloaded, CannotWrite, ConfigError)
"""Errors that would meet every question alike: they stop the batch. Any other is one question's own."""


def unanswered(result: BatchResult) -> bool:
    """Whether a question has a result, and no answer."""
    return not result.answered


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a batch is asked. Only `policy` is pinned; everything else may differ from sitting to sitting.

    `logs` keeps every record of each run. `retry_failed` asks again what has failed in earlier sittings,
    as far as it is `retriable`.
    `full_patience_s` is how long one question waits for a server that is full before the batch stops.
    """

    policy: PolicyDraft = DEFAULTS
    concurrency_max: int = CONCURRENCY
    budget: BatchBudget = UNLIMITED
    logs: bool = False
    retry_failed: bool = False
    retriable: Callable[[BatchResult], bool] = unanswered
    full_patience_s: float = FULL_PATIENCE_S


class EndReason(StrEnum):
    """Why a batch asks no more."""

    COMPLETE = "complete"
    BUDGET = "budget"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a batch stands. `answered` and `failed` count questions, earlier sittings included.

    `cost_usd` and `tokens` are of everything that has ended. `here` counts what ended in this sitting, in
    `elapsed_s`. `limit` is how many may be out now.
    """

    total: int
    answered: int
    failed: int
    out: int
    limit: int
    cost_usd: float
    tokens: int
    here: int
    elapsed_s: float

    @property
    def done(self) -> int:
        """Questions with a result."""
        return self.answered + self.failed

    @property
    def per_s(self) -> float:
        """Questions ended a second in this sitting."""
        return self.here / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds to the end at this rate; None while there is no rate."""
        return (self.total - self.done) / self.per_s if self.per_s else None


@dataclass(frozen=True, slots=True)
class BatchEnd:
    """How a sitting ended: why, and where the batch stands."""

    reason: EndReason
    progress: Progress


class Batch:
    """One sitting of a batch: begins it, or goes on where an earlier sitting ended, however it did.

    `run` once. Meanwhile `progress` says where it stands, and `stop` lets it end after what is out.
    `on_result` is called after each result is on disk.
    """

    def __init__(
        self,
        client: HeavyClient,
        questions: Sequence[Question],
        root: Path,
        plan: BatchPlan,
        on_result: Callable[[BatchResult], None] = lambda _: None,
    ) -> None:
        """Raises `ConfigError` for a plan that cannot work or two questions with one id."""
        if not 1 <= plan.concurrency_max <= CONCURRENCY_MAX:
            raise ConfigError(f"concurrency is {plan.concurrency_max}; it must be 1 to {CONCURRENCY_MAX}.")
        if len({question.id for question in questions}) != len(questions):
            raise ConfigError("Two questions of the batch have the same id; results are told apart by id.")
        self._client = client
        self._questions = questions
        self._directory = BatchDirectory(root)
        self._plan = plan
        self._on_result = on_result
        self._purse = Purse(plan.budget)
        self._throttle = Throttle(plan.concurrency_max)
        self._ended: dict[str, BatchResult] = {}
        self._answered = 0
        self._here = 0
        self._since_s = clock.monotonic_s()
        self._reason = EndReason.COMPLETE
        self._changed = asyncio.Event()

    @property
    def progress(self) -> Progress:
        """Where the batch stands now."""
        return Progress(
            total=len(self._questions),
            answered=self._answered,
            failed=len(self._ended) - self._answered,
            out=self._purse.out,
            limit=self._throttle.limit,
            cost_usd=self._purse.cost_usd,
            tokens=self._purse.tokens,
            here=self._here,
            elapsed_s=clock.monotonic_s() - self._since_s,
        )

    def stop(self) -> None:
        """Ask nothing more; `run` returns once what is out has ended. Cancel `run` to leave at once: runs
        that are out go on at the server, and the next sitting finds them."""
        self._reason = EndReason.STOPPED
        self._changed.set()

    async def run(self) -> BatchEnd:
        """Ask what has no result yet. Raises `ConfigError` when the directory is of another batch, and what
        stops a batch: the server out of reach, full for too long, or the disk full."""
        with self._directory as directory:
            manifest = directory.begin(digest(self._questions), len(self._questions), self._plan.policy)
            for earlier in directory.results():
                self._note(earlier)
            try:
                async with asyncio.TaskGroup() as group:
                    await self._ask_all(group, manifest)
            except* HeavyError as failures:
                raise first_of(failures) from failures
        return BatchEnd(self._reason, self.progress)

    async def _ask_all(self, group: asyncio.TaskGroup, manifest: Manifest) -> None:
        for question in self._questions:
            ended = self._ended.get(question.id)
            if ended is not None and not (self._plan.retry_failed and self._plan.retriable(ended)):
                continue
            attempt = 1 if ended is None else ended.attempt + (not ended.out_of_sight)
            policy = merged(self._plan.policy, question.policy)
            if not await self._turn(policy):
                return
            self._purse.take(question.id, policy)
            asked = Asked(question.id, attempt, request_id(manifest, question, attempt), question.metadata)
            group.create_task(self._one(asked, question, policy))

    async def _turn(self, policy: PolicyDraft) -> bool:
        """Wait until one more may be asked; False when none may any more."""
        while self._reason is EndReason.COMPLETE:
            if self._purse.out < self._throttle.limit:
                if self._purse.fits(policy):
                    return True
                if not self._purse.out:
                    self._reason = EndReason.BUDGET
                    break
            self._changed.clear()
            await self._changed.wait()
        return False

    async def _one(self, asked: Asked, question: Question, policy: PolicyDraft) -> None:
        """One question: asked, followed, written down."""
        try:
            result = await self._answer(asked, question, policy)
            self._directory.append(result)
        finally:
            self._purse.give_back(question.id)
            self._changed.set()
        self._here += 1
        self._throttle.answered()
        self._note(result)
        self._on_result(result)

    async def _answer(self, asked: Asked, question: Question, policy: PolicyDraft) -> BatchResult:
        run: RunId | None = None
        try:
            created = await self._patiently(
                lambda: self._client.create(question.messages, policy, request_id=asked.request_id)
            )
            run = created.spec.run
            return await self._followed(asked, run)
        except STOPPING:
            raise
        except HeavyError as error:
            if isinstance(error, InvalidRequest) and question.policy == NO_OVERRIDES:
                _require_own_fault(error)
            return of_refusal(asked, error, clock.now_ms(), run or "")

    async def _followed(self, asked: Asked, run: RunId) -> BatchResult:
        """The result of a run, once it has ended; its records go into its log on the way."""
        log = self._directory.log(run) if self._plan.logs else None
        trace = _Trace(log)
        try:
            await self._patiently(lambda: self._watch(asked.id, run, trace))
            ended = await self._patiently(lambda: self._client.get(run))
            if not ended.state.final:
                raise ServerUnavailable(f"The server ended the log of {run} before the run had ended.")
            return of_run(asked, ended, trace.outcomes.values(), log.finish() if log else "")
        finally:
            if log is not None:
                log.discard()

    async def _watch(self, question: str, run: RunId, trace: _Trace) -> None:
        async with self._client.watch(run, after=trace.last_record, deltas=False) as stream:
            async for event in stream:
                if isinstance(event, Record):
                    trace.take(event)
                    self._purse.seen(question, trace.spend)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call, tried again for as long as the server is full. Raises `Overloaded` when it stays so."""
        until_s = clock.monotonic_s() + self._plan.full_patience_s
        while True:
            try:
                return await call()
            except Overloaded as error:
                failure, after_s = error, error.retry_after_s
            except LimitExceeded as error:
                if error.limit != "deadline_s":
                    raise
                failure = Overloaded(f"The server is slow: {error}", RETRY_AFTER_S)
                after_s = RETRY_AFTER_S
            now_s = clock.monotonic_s()
            if now_s >= until_s:
                raise failure
            after_s = min(RETRY_AFTER_S_MAX, max(after_s, 0.1)) * random.uniform(1.0, 1.5)
            self._throttle.full(self._purse.out - 1, now_s, after_s)
            await asyncio.sleep(after_s)

    def _note(self, result: BatchResult) -> None:
        """Count a result that is on disk: the last one of a question stands, all of them cost."""
        before = self._ended.get(result.id)
        self._ended[result.id] = result
        self._answered += result.answered - (before is not None and before.answered)
        if result.ledger is not None:
            self._purse.book(result.spend)


class _Trace:
    """What a run's records have told so far."""

    def __init__(self, log: LogWriter | None) -> None:
        self.last_record = 0
        self.spend: Spend = NOTHING_SPENT
        self.outcomes: dict[TrajectoryId, Outcome] = {}
        self._log = log

    def take(self, record: Record) -> None:
        """One record more, in order."""
        self.last_record = record.number
        if self._log is not None:
            self._log.add(record)
        match record.body:
            case GenerationRecord(spend=spend):
                self.spend += spend
            case LifecycleRecord(outcome=outcome) if outcome is not None:
                self.outcomes[outcome.trajectory] = outcome


def request_id(manifest: Manifest, question: Question, attempt: int) -> str:
    """The same for the same question of the same batch, whoever asks and when."""
    name = hashlib.sha256(question.id.encode()).hexdigest()[:32]
    return f"{manifest.batch}-{name}-{attempt}"


def _require_own_fault(error: InvalidRequest) -> None:
    """A policy that the server refuses is the batch's fault, not one question's: raises `ConfigError`."""
    faults = [v for v in error.violations if v.field.startswith("policy")]
    if faults:
        said = "; ".join(f"{fault.field}: {fault.problem}" for fault in faults)
        raise ConfigError(f"The server refuses the policy of this batch: {said}") from error
