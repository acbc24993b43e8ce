"""A journal in memory: remembers everything, keeps a budget, and fails where a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from heavy.core.errors import BudgetExhausted, HeavyError
from heavy.core.files import File, FileRef, ref_of
from heavy.core.records import (
    GenerationRecord,
    LifecycleRecord,
    PartialGenerationRecord,
    RecordBody,
    ToolIntentRecord,
    ToolResultRecord,
)
from heavy.replicas.api import TextDelta
from heavy.store.api import Amount

Body = TypeVar("Body", bound=RecordBody)


@dataclass
class RecordingJournal:
    """Satisfies `heavy.agent.journal.Journal`. Every operation gives way once, as a real store would.

    `failing` is asked with each operation's name before it takes effect; an error it returns is raised.
    """

    tokens_max: int | None = None
    cost_usd_max: float | None = None
    tool_calls_max: int | None = None
    failing: Callable[[str], HeavyError | None] = lambda operation: None
    records: list[tuple[int, RecordBody]] = field(default_factory=list)
    deltas: list[tuple[int, TextDelta]] = field(default_factory=list)
    reserved: dict[str, Amount] = field(default_factory=dict)
    """Reservations that are open."""
    settled: dict[str, Amount] = field(default_factory=dict)
    tool_calls: int = 0
    kept: list[File] = field(default_factory=list)

    async def record(self, step: int, body: RecordBody) -> None:
        """Append."""
        await self._operation("record")
        self.records.append((step, body))

    async def keep(self, files: Sequence[File]) -> tuple[FileRef, ...]:
        """Remember."""
        await self._operation("keep")
        self.kept += files
        return tuple(map(ref_of, files))

    def delta(self, step: int, delta: TextDelta) -> None:
        """Remember."""
        self.deltas.append((step, delta))

    async def reserve(self, request_id: str, amount: Amount) -> None:
        """Set aside; reserving again under one id changes nothing."""
        await self._operation("reserve")
        if request_id in self.reserved or request_id in self.settled:
            return
        held = [*self.reserved.values(), *self.settled.values()]
        self._check("tokens", sum(a.tokens for a in held), amount.tokens, self.tokens_max)
        self._check("cost_usd", sum(a.cost_usd for a in held), amount.cost_usd, self.cost_usd_max)
        self.reserved[request_id] = amount

    async def settle(self, request_id: str, spent: Amount) -> None:
        """Return and book; settling twice changes nothing."""
        await self._operation("settle")
        self.reserved.pop(request_id, None)
        self.settled.setdefault(request_id, spent)

    async def count_tool_calls(self, calls: int) -> None:
        """Count against `tool_calls_max`."""
        await self._operation("count_tool_calls")
        self._check("tool_calls", self.tool_calls, calls, self.tool_calls_max)
        self.tool_calls += calls

    def bodies(self, kind: type[Body]) -> list[Body]:
        """The records of one kind, in order."""
        return [body for _, body in self.records if isinstance(body, kind)]

    @property
    def generations(self) -> list[GenerationRecord]:
        """Finished generations."""
        return self.bodies(GenerationRecord)

    @property
    def partials(self) -> list[PartialGenerationRecord]:
        """Unfinished ones."""
        return self.bodies(PartialGenerationRecord)

    @property
    def intents(self) -> list[ToolIntentRecord]:
        """Calls about to be made."""
        return self.bodies(ToolIntentRecord)

    @property
    def results(self) -> list[ToolResultRecord]:
        """What calls gave back."""
        return self.bodies(ToolResultRecord)

    @property
    def notes(self) -> list[str]:
        """Decisions, as they were noted."""
        return [body.detail for body in self.bodies(LifecycleRecord)]

    async def _operation(self, name: str) -> None:
        await asyncio.sleep(0)
        if error := self.failing(name):
            raise error

    def _check(self, limit: str, used: float, wanted: float, allowed: float | None) -> None:
        if allowed is not None and used + wanted > allowed:
            raise BudgetExhausted(f"{limit}: {allowed} are allowed.", limit, used, allowed)
