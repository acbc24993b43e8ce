"""A profile's prices as the agent's meter."""

from __future__ import annotations

from heavy.core.ledger import Spend
from heavy.profiles.schema import Profile
from heavy.replicas.api import TokenUsage
from heavy.store.api import Amount
from heavy.telemetry.metering import Prices


def prices_of(profile: Profile) -> Prices:
    """The prices that a profile writes down. Cached tokens without a price of their own cost the full one."""
    prices = profile.prices
    cached = prices.usd_per_million_cached_tokens
    return Prices(
        prompt_usd=prices.usd_per_million_prompt_tokens,
        cached_usd=prices.usd_per_million_prompt_tokens if cached is None else cached,
        output_usd=prices.usd_per_million_output_tokens,
        gpu_hour_usd=prices.usd_per_gpu_hour,
        gpus=profile.serve.gpus,
        slots=profile.serve.in_flight_max,
    )


class ProfileMeter:
    """Implements `heavy.agent.meter.Meter` by a profile's prices."""

    def __init__(self, profile: Profile) -> None:
        self._prices = prices_of(profile)

    def estimate(self, prompt_tokens: int, output_tokens: int) -> Amount:
        """The most a generation of that size can cost: nothing cached; GPU time is not known and left out."""
        cost_usd = self._prices.tokens_usd(prompt=prompt_tokens, cached=0, output=output_tokens)
        return Amount(tokens=prompt_tokens + output_tokens, cost_usd=cost_usd)

    def spend(self, usage: TokenUsage, wall_s: float, queue_s: float) -> Spend:
        """The ledger entry of one generation."""
        return self._prices.spend(
            prompt=usage.prompt,
            cached=usage.cached,
            reasoning=usage.reasoning,
            output=usage.output,
            wall_s=wall_s,
            queue_s=queue_s,
        )
