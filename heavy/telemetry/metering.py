"""What a generation costs, by a profile's prices. The only place where tokens and seconds become money."""

from __future__ import annotations

from dataclasses import dataclass

from heavy.core.ledger import Spend

MILLION = 1_000_000
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of one profile. Token prices are US dollars per million; GPU time is per GPU and hour.

    A generation holds one of `slots` of a replica with `gpus` GPUs from when it gets one to its end, and is
    billed that share: `seconds * gpus / slots` GPU-seconds. Its price does not depend on who else is served:
    a full replica bills exactly its own time, and what an idler one does not bill is the operator's, shown
    beside it (`heavy.telemetry.names.METRIC_REPLICA_GPUS` over time, less what was billed).
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
        self, *, prompt: int, cached: int, reasoning: int, output: int, wall_s: float, queue_s: float
    ) -> Spend:
        """The ledger entry of one generation. Token money and GPU money add up; a profile prices one of them.

        Waiting for a replica is time, but no GPU's.
        """
        gpu_seconds = self.gpu_seconds(max(0.0, wall_s - queue_s))
        return Spend(
            tokens_prompt=prompt,
            tokens_cached=cached,
            tokens_reasoning=reasoning,
            tokens_output=output,
            gpu_seconds=gpu_seconds,
            cost_usd=self.tokens_usd(prompt=prompt, cached=cached, output=output)
            + gpu_seconds * self.gpu_hour_usd / SECONDS_PER_HOUR,
            wall_s=wall_s,
        )
