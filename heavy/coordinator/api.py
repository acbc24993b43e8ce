"""What a coordinator offers to whatever faces callers: the gRPC service, the HTTP gateway.

Requests arrive here complete: a `Policy` whose defaults are filled in and whose limits were checked
(see `heavy.coordinator.defaults`). Every method checks the tenant: another tenant's run is `NotFound`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from heavy.coordinator.defaults import PolicyDefaults
from heavy.core.calling import CallerCall, CallerResult, Receipt, Withdrawn
from heavy.core.files import File
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.messages import Message
from heavy.core.policy import Policy
from heavy.core.records import Delta, Record
from heavy.core.runs import Outcome, Run, RunState
from heavy.core.tools import ToolSpec
from heavy.store.api import Created, RunPage


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A checked request. `attached`: it belongs to a call; otherwise it lives until it ends by itself.

    `fingerprint` is the digest of what the caller sent (`heavy.coordinator.defaults.fingerprint`) and goes
    into the run's spec: the same `request_id` with another fingerprint is a `RequestConflict`.
    """

    tenant: str
    request_id: str
    messages: tuple[Message, ...]
    policy: Policy
    attached: bool
    traceparent: str
    fingerprint: str = ""
    caller_tools: tuple[ToolSpec, ...] = ()
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class TrajectoryPage:
    """Records of one trajectory. `outcome` once it has ended; `more` when records follow the last one."""

    records: tuple[Record, ...]
    outcome: Outcome | None
    more: bool


class Coordinator(Protocol):
    """Accepts runs, lets them be watched, and stops them."""

    @property
    def policies(self) -> PolicyDefaults:
        """How drafts become policies now: the profiles, what is served, the tools."""
        ...

    async def create(self, request: CreateRequest) -> Created:
        """Accept a run, or find the one that this `request_id` created.

        An attached run whose creator never attaches is in its grace from the start. Raises
        `InvalidRequest`, `Overloaded`, `RequestConflict`, `StoreUnavailable`.
        """
        ...

    def watch(
        self, tenant: str, run: RunId, *, after: int, deltas: bool
    ) -> AsyncIterator[Record | tuple[Delta, ...]]:
        """Records above `after` as they come, and deltas if wanted; ends after the final record.

        Closing the iterator (`aclose`, where it has one) or cancelling its consumer ends it. Raises
        `NotFound`, `StoreUnavailable`.
        """
        ...

    async def get(self, tenant: str, run: RunId) -> Run:
        """The run record. Raises `NotFound`, `StoreUnavailable`."""
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
        """The tenant's runs, newest first; no `states` means all. `InvalidRequest` for a bad token.

        `id_start`: only runs whose ids begin so.
        """
        ...

    async def cancel(self, tenant: str, run: RunId, reason: str) -> Run:
        """Ask a run to stop; the run as it was when that was noted. Harmless on a run that has ended."""
        ...

    async def trajectory(
        self, tenant: str, run: RunId, trajectory: TrajectoryId, *, after: int, limit: int
    ) -> TrajectoryPage:
        """At most `limit` records of one trajectory with numbers above `after`. Raises `NotFound`."""
        ...

    async def records(self, tenant: str, run: RunId, *, after: int, limit: int) -> tuple[Record, ...]:
        """At most `limit` records of a run with numbers above `after`. Raises `NotFound`."""
        ...

    async def file(self, tenant: str, run: RunId, digest: str) -> bytes:
        """The content of a file of a run. Raises `NotFound`, for another tenant's run too."""
        ...

    async def replicas(self) -> tuple[ReplicaInfo, ...]:
        """The replicas that are there now. They belong to no tenant: for administrators."""
        ...

    async def runners(self) -> tuple[RunnerInfo, ...]:
        """The runners that are there now. They belong to no tenant: for administrators."""
        ...

    def calls(
        self, tenant: str, run: RunId, held: frozenset[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[CallerCall | Withdrawn]]:
        """Calls of the caller's tools as they come, to be sent to the caller.

        `held` are the ids of calls that the caller has from an earlier connection: not sent again. A write
        that was on its way before, and that it does not hold, is answered as unknown. Raises `NotFound`.
        """
        ...

    async def answer(self, tenant: str, run: RunId, result: CallerResult) -> Receipt:
        """Take the caller's result of a call. Raises `NotFound`, `StoreUnavailable`."""
        ...

    def attach(self, run: RunId) -> AbstractAsyncContextManager[None]:
        """Within it, a caller is there. When the last one leaves an attached run, its grace begins.

        Entering ends a grace under way. Without effect on runs that were created detached.
        """
        ...
