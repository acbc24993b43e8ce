"""Money: spends add up, prices say what they say, a profile's prices reach the ledger."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.profiles.schema import PricesSection, Profile, ServeSection
from heavy.replicas.api import TokenUsage
from heavy.runner.meter import ProfileMeter, prices_of
from heavy.store.api import spend_amount
from heavy.telemetry.metering import Prices

COUNTS = st.integers(0, 1_000_000)
# Multiples of 1/8 add up exactly in binary, so that sums may be compared with ==.
MEASURES = st.integers(0, 1_000_000).map(lambda eighths: eighths / 8)
SPENDS = st.builds(
    Spend,
    tokens_prompt=COUNTS,
    tokens_cached=COUNTS,
    tokens_reasoning=COUNTS,
    tokens_output=COUNTS,
    tool_calls=COUNTS,
    gpu_seconds=MEASURES,
    cost_usd=MEASURES,
    wall_s=MEASURES,
)


@given(SPENDS, SPENDS, SPENDS)
def test_spends_add_up_in_any_order(a: Spend, b: Spend, c: Spend) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + NOTHING_SPENT == a


@given(st.lists(SPENDS, max_size=8))
def test_every_field_of_a_sum_is_the_sum_of_that_field(spends: list[Spend]) -> None:
    total = sum(spends, NOTHING_SPENT)
    for field in fields(Spend):
        assert getattr(total, field.name) == sum(getattr(spend, field.name) for spend in spends)
    assert total.tokens == sum(spend.tokens for spend in spends)


def test_reasoning_and_cached_tokens_are_parts_and_not_counted_twice() -> None:
    spend = Spend(tokens_prompt=100, tokens_cached=80, tokens_reasoning=30, tokens_output=40)
    assert spend.tokens == 140
    assert spend_amount(spend).tokens == 140


def test_cached_tokens_cost_their_own_price_and_the_rest_of_the_prompt_the_full_one() -> None:
    prices = Prices(prompt_usd=2.0, cached_usd=0.5, output_usd=10.0)
    cost_usd = prices.tokens_usd(prompt=1_000_000, cached=600_000, output=100_000)
    assert cost_usd == pytest.approx(0.4 * 2.0 + 0.6 * 0.5 + 0.1 * 10.0)


@given(COUNTS, COUNTS)
def test_caching_never_makes_a_prompt_dearer_nor_free(prompt: int, cached: int) -> None:
    prices = Prices(prompt_usd=2.0, cached_usd=0.5)
    cached = min(cached, prompt)
    with_cache = prices.tokens_usd(prompt=prompt, cached=cached, output=0)
    assert 0 <= with_cache <= prices.tokens_usd(prompt=prompt, cached=0, output=0) + 1e-12
    assert with_cache >= prices.tokens_usd(prompt=prompt, cached=prompt, output=0) - 1e-12


def test_an_engine_that_claims_more_cached_than_prompt_tokens_cannot_make_money_negative() -> None:
    prices = Prices(prompt_usd=2.0, cached_usd=0.0, output_usd=1.0)
    assert prices.tokens_usd(prompt=10, cached=1_000_000, output=0) >= 0


def test_a_full_replica_bills_exactly_its_own_time() -> None:
    prices = Prices(gpu_hour_usd=3.0, gpus=8, slots=16)
    one = prices.spend(prompt=1, cached=0, reasoning=0, output=1, wall_s=3600.0, queue_s=0.0)
    total = sum([one] * 16, NOTHING_SPENT)
    assert total.gpu_seconds == pytest.approx(8 * 3600.0)
    assert total.cost_usd == pytest.approx(8 * 3.0)


def test_a_profile_without_a_price_for_cached_tokens_bills_them_in_full() -> None:
    profile = _profile(PricesSection(usd_per_million_prompt_tokens=4.0))
    assert prices_of(profile).cached_usd == 4.0
    free = _profile(PricesSection(usd_per_million_prompt_tokens=4.0, usd_per_million_cached_tokens=0.0))
    assert prices_of(free).cached_usd == 0.0


@given(COUNTS, COUNTS, COUNTS)
def test_an_estimate_is_never_less_than_what_tokens_cost_in_the_end(
    prompt: int, cached: int, output: int
) -> None:
    meter = ProfileMeter(
        _profile(
            PricesSection(
                usd_per_million_prompt_tokens=1.0,
                usd_per_million_cached_tokens=0.1,
                usd_per_million_output_tokens=10.0,
            )
        )
    )
    spend = meter.spend(TokenUsage(prompt, min(cached, prompt), 0, output), 1.0, 0.0)
    estimate = meter.estimate(prompt, output)
    assert spend.tokens == estimate.tokens
    assert spend.cost_usd <= estimate.cost_usd + 1e-9


def test_tokens_and_gpu_time_are_both_in_the_ledger_where_both_are_known() -> None:
    profile = _profile(
        PricesSection(usd_per_million_output_tokens=1.0, usd_per_gpu_hour=36.0), gpus=2, in_flight_max=4
    )
    spend = ProfileMeter(profile).spend(TokenUsage(10, 4, 3, 1_000_000), 12.0, 2.0)
    assert spend.gpu_seconds == pytest.approx(5.0)
    assert spend.cost_usd == pytest.approx(1.0 + 5.0 * 36.0 / 3600)
    assert (spend.tokens_cached, spend.tokens_reasoning, spend.wall_s) == (4, 3, 12.0)


def _profile(prices: PricesSection, **serve: int) -> Profile:
    return Profile(
        name="p",
        title="P",
        engine="simulated",
        model="m",
        context_tokens=1_000,
        prices=prices,
        serve=ServeSection(**serve),
    )
