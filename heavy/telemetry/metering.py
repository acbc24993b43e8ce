"""What a generation costs, by a profile's prices. The only place where tokens and seconds become money."""

from __future__ import annotations

from dataclasses import dataclass

from heavy.core.ledger import Spend

MILLION = 1_000_000
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of one profile. Token prices are US dollars per million; GPU time is per GPU and hour.

    A generation holds one of `slots` of a replica with `gpus` GPUs while it lasts, so it is billed
    `seconds * gpus / slots` GPU-seconds: a full replica bills exactly its own time.
    """

    prompt_usd: float = 0.0
    cached_usd: float = 0.0
    output_usd: float = 0.0
    gpu_hour_usd: float = 0.0
    gpus: int = 0
    slots: int = 1

    def tokens_usd(self, *, prompt: int, cached: int, output: int) -> float:
        """Money for tokens; `cached` is part of `prompt`, whatever an engine claims."""
        cached = min(cached, prompt)
        fresh = prompt - cached
        return (fresh * self.prompt_usd + cached * self.cached_usd + output * self.output_usd) / MILLION

    def gpu_seconds(self, seconds: float) -> float:
        """GPU-seconds of a generation that lasted `seconds`."""
        return seconds * self.gpus / self.slots

    def spend(
        self, *, prompt: int, cached: int, reasoning: int, output: int, wall_s: float, tool_calls: int
    ) -> Spend:
        """The ledger entry of one step. Token money and GPU money add up; a profile prices one of them."""
        gpu_seconds = self.gpu_seconds(wall_s)
        return Spend(
            tokens_prompt=prompt,
            tokens_cached=cached,
            tokens_reasoning=reasoning,
            tokens_output=output,
            tool_calls=tool_calls,
            gpu_seconds=gpu_seconds,
            cost_usd=self.tokens_usd(prompt=prompt, cached=cached, output=output)
            + gpu_seconds * self.gpu_hour_usd / SECONDS_PER_HOUR,
            wall_s=wall_s,
        )
