"""One generation while it streams: what there is of it so far, readable from outside at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from heavy.agent.meter import Meter
from heavy.core import clock
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.messages import Message, Role
from heavy.core.records import CHECKPOINT, PartialGenerationRecord, ToolResultRecord
from heavy.replicas.api import TextDelta, TokenUsage

CHARS_PER_TOKEN: Final = 4
"""What a token is worth where engines bundle several into one delta: English prose, rounded up."""


@dataclass(slots=True)
class Progress:
    """Collects a step: the text streamed so far, then the finished message, then the results that are in.

    It outlives a cancelled step, so that nothing that was generated or executed is lost with it.
    """

    prompt_tokens: int = 0
    """What the prompt is taken to have, until the engine has counted."""

    started_s: float = field(default_factory=clock.monotonic_s)
    message: Message | None = None
    """The whole turn, once the generation has ended."""
    generation: Spend | None = None
    """What the generation cost, once the engine has said so."""
    results: list[ToolResultRecord] = field(default_factory=list)
    queue_s: float = 0.0
    """How much of its time was spent waiting for a replica, as far as is known."""
    _reasoning: list[str] = field(default_factory=list)
    _content: list[str] = field(default_factory=list)
    _deltas: int = 0
    _chars: int = 0
    _checkpoint_tokens: int = 0
    _checkpoint_s: float = field(default_factory=clock.monotonic_s)

    def take(self, delta: TextDelta) -> None:
        """Add fresh text."""
        self.queue_s = self.queue_s or delta.queue_s
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        if delta.content:
            self._content.append(delta.content)
        if fresh := len(delta.reasoning) + len(delta.content):
            self._deltas += 1
            self._chars += fresh

    @property
    def streamed(self) -> bool:
        """Whether there is any text."""
        return self._deltas > 0

    @property
    def tokens(self) -> int:
        """Output tokens so far, estimated: engines count only at the end."""
        return max(self._deltas, self._chars // CHARS_PER_TOKEN)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the generation was asked for."""
        return clock.monotonic_s() - self.started_s

    @property
    def content(self) -> str:
        """The visible text so far."""
        return self.message.content if self.message else "".join(self._content)

    def finish(self, meter: Meter, usage: TokenUsage, queue_s: float) -> Spend:
        """The engine has counted: what the generation cost."""
        self.generation = meter.spend(usage, self.elapsed_s, queue_s)
        return self.generation

    def spend(self, meter: Meter) -> Spend:
        """What the step has cost so far. A generation that was cut counts by its prompt and its text."""
        return sum(map(_result_spend, self.results), self._generated(meter))

    def _generated(self, meter: Meter) -> Spend:
        if self.generation is None and self.streamed:
            usage = TokenUsage(self.prompt_tokens, output=self.tokens)
            return meter.spend(usage, self.elapsed_s, self.queue_s)
        return self.generation or NOTHING_SPENT

    def checkpoint_due(self, every_tokens: int, every_s: float) -> bool:
        """Whether there is enough fresh text, or old enough fresh text, to be worth keeping."""
        fresh = self.tokens - self._checkpoint_tokens
        return fresh >= every_tokens or (fresh > 0 and clock.monotonic_s() - self._checkpoint_s >= every_s)

    def partial(self, reason: str, meter: Meter) -> PartialGenerationRecord:
        """What there is and what it cost, as a record. Starts the count to the next checkpoint anew.

        With any other reason than `CHECKPOINT` nothing more comes: what it says it cost is what it cost.
        """
        self._checkpoint_tokens, self._checkpoint_s = self.tokens, clock.monotonic_s()
        text = Message(Role.ASSISTANT, content="".join(self._content), reasoning="".join(self._reasoning))
        spend = self._generated(meter)
        if reason != CHECKPOINT:
            self.generation = spend
        return PartialGenerationRecord(self.message or text, self.tokens, reason, spend)


def _result_spend(result: ToolResultRecord) -> Spend:
    """What a tool result adds; readers of the log count it the same way."""
    return Spend(tool_calls=1, wall_s=result.duration_s)
