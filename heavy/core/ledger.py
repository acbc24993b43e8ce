"""What was spent. A `Spend` adds up: steps into trajectories, trajectories into a run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final


@dataclass(frozen=True, slots=True)
class Spend:
    """Tokens by kind, tool calls, GPU-seconds, money and wall time of one step, trajectory or run.

    `tokens_cached` is the part of `tokens_prompt` that the engine did not prefill again;
    `tokens_reasoning` is the part of `tokens_output` spent on reasoning. `wall_s` adds up like the
    rest, so over parallel arms it is time spent, not time passed.
    """

    tokens_prompt: int = 0
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    tokens_output: int = 0
    tool_calls: int = 0
    gpu_seconds: float = 0.0
    cost_usd: float = 0.0
    wall_s: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def tokens(self) -> int:
        """Tokens that count against a token budget: prompt (cached or not) and output."""
        return self.tokens_prompt + self.tokens_output


NOTHING_SPENT: Final = Spend()


@dataclass(frozen=True, slots=True)
class Ledger:
    """The spend of a run: in all, and per trajectory."""

    total: Spend
    trajectories: dict[str, Spend]
