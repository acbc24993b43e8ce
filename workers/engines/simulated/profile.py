"""How a simulated server behaves in time, how large it is, and how its answers agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of model time; `time_scale` 10 plays them ten times as fast."""

    ttft_s: float = 0.2
    itl_s: float = 0.009
    prefill_tokens_per_s: float = 20_000.0
    jitter: float = 0.1
    time_scale: float = 1.0
    crowding: float = 0.0
    """How much longer a token takes on a full server, as a share: 1.0 is twice as long as alone."""
    prefill_alone: bool = False
    """Prompts are prefilled one at a time, and nothing is decoded meanwhile; else each for itself."""

    def prefill_s(self, uncached_tokens: int) -> float:
        """Model time that so many uncached tokens of a prompt take; the first token comes `ttft_s` later."""
        return uncached_tokens / self.prefill_tokens_per_s

    def token_s(self, running: int, running_max: int) -> float:
        """Model time between two tokens of one of so many streams."""
        return self.itl_s * (1.0 + self.crowding * (running - 1) / max(1, running_max - 1))


@dataclass(frozen=True, slots=True)
class Limits:
    """Capacities, as a real server has them."""

    context_tokens: int = 262_144
    kv_tokens: int = 715_000
    running_max: int = 64
    waiting_max: int = 256


@dataclass(frozen=True, slots=True)
class Habits:
    """What it says by default: some reasoning, calls of the first tool, then an answer.

    `agreement` is the chance that an answer is the question's own; otherwise one of `rivals` others.
    """

    reasoning_tokens: int = 24
    steps_min: int = 1
    steps_max: int = 3
    answer_tokens: int = 12
    agreement: float = 0.7
    rivals: int = 3


@dataclass(frozen=True, slots=True)
class SimulatedProfile:
    """Everything that one simulated server is made of, but for its script and its mistakes."""

    name: str
    timing: Timing = Timing()
    limits: Limits = Limits()
    habits: Habits = Habits()

    def with_overrides(self, given: dict[str, Any]) -> SimulatedProfile:
        """A copy with those fields of its parts replaced whose value is not None. Raises ValueError."""
        parts: dict[str, Any] = {}
        left = {key: value for key, value in given.items() if value is not None}
        for part_name in ("timing", "limits", "habits"):
            part = getattr(self, part_name)
            mine = {key: left.pop(key) for key in tuple(left) if key in type(part).__dataclass_fields__}
            parts[part_name] = replace(part, **mine)
        if left:
            raise ValueError(f"a simulated profile has no {', '.join(sorted(left))}")
        return replace(self, **parts)


# k2-8xh200 is what the bench of the whole system assumes; the others are round figures, not measurements.
PROFILES = {
    profile.name: profile
    for profile in (
        SimulatedProfile("k2-8xh200"),
        SimulatedProfile(
            "laptop",
            Timing(ttft_s=0.05, itl_s=0.03, prefill_tokens_per_s=500.0),
            Limits(context_tokens=8_192, kv_tokens=65_536, running_max=16, waiting_max=64),
        ),
        SimulatedProfile("instant", Timing(ttft_s=0.0, itl_s=0.0, prefill_tokens_per_s=1e12, jitter=0.0)),
    )
}
