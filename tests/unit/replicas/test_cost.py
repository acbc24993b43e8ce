from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from heavy.core.fleet import ReplicaInfo
from heavy.profiles.schema import RoutingSection
from heavy.replicas.choice import demand_of, offer_of
from heavy.replicas.cost import Demand, Offer, Pace, cheapest, cost_s
from heavy.store.api import KvHeld

PACE = Pace(prefill_token_s=0.0001, token_s=0.01, output_tokens=500, crowding=1.0)
"""A usual generation takes 5 s."""
counts = st.integers(0, 80)
tokens = st.integers(0, 900_000)
offers = st.builds(
    Offer,
    replica=st.sampled_from("abcdef"),
    slots=st.integers(1, 64),
    held=counts,
    taken=counts,
    waiting=counts,
    kv_max=st.sampled_from([0, 1_000, 715_000]),
    kv_held=tokens,
    kv_taken=tokens,
    ahead_tokens=tokens,
    cached_tokens=tokens,
)
demands = st.builds(Demand, st.integers(1, 200_000), st.integers(1, 200_000))
paces = st.builds(
    Pace,
    prefill_token_s=st.floats(0, 1),
    token_s=st.floats(0, 1),
    output_tokens=st.floats(0, 1e5),
    crowding=st.floats(0, 10),
)
WORSE = ("taken", "waiting", "kv_taken", "ahead_tokens")


@given(st.lists(offers, min_size=1, max_size=6), demands, paces)
def test_the_chosen_one_is_never_dominated(offers: list[Offer], demand: Demand, pace: Pace) -> None:
    chosen = cheapest(offers, demand, pace)
    assert chosen is not None
    for other in offers:
        if (other.slots, other.kv_max) == (chosen.slots, chosen.kv_max):
            no_worse = all(getattr(other, name) <= getattr(chosen, name) for name in WORSE)
            no_worse = no_worse and other.cached_tokens >= chosen.cached_tokens
            assert not no_worse or cost_s(other, demand, pace) >= cost_s(chosen, demand, pace)


@given(offers, demands, paces, st.sampled_from(WORSE), st.integers(1, 10_000))
def test_more_of_what_costs_never_costs_less(
    offer: Offer, demand: Demand, pace: Pace, what: str, more: int
) -> None:
    worse = replace(offer, **{what: getattr(offer, what) + more})
    assert cost_s(worse, demand, pace) >= cost_s(offer, demand, pace) >= 0
    assert cost_s(replace(offer, cached_tokens=offer.cached_tokens + more), demand, pace) <= cost_s(
        offer, demand, pace
    )


@given(offers, demands, paces)
def test_of_equals_the_preferred_one_is_taken(offer: Offer, demand: Demand, pace: Pace) -> None:
    same = [replace(offer, replica=name) for name in "abc"]
    chosen = cheapest(same, demand, pace, prefer="b")
    assert chosen is not None
    assert chosen.replica == "b"


def one(name: str, **changes: int) -> Offer:
    return Offer(name, **{"slots": 64, **changes})


def chosen(prompt_tokens: int, *offers: Offer) -> str:
    best = cheapest(offers, Demand(prompt_tokens, prompt_tokens), PACE)
    assert best is not None
    return best.replica


def test_a_long_prompt_stays_where_it_is_until_waiting_there_costs_more_than_prefilling_it_again() -> None:
    full = one("warm", held=64, taken=64, cached_tokens=100_000)
    assert chosen(100_000, full, one("cold")) == "warm"  # a place in 0.1 s and a crowd of 5 s, against 10 s
    assert chosen(40_000, full, one("cold")) == "cold"
    crowded = replace(full, taken=190, waiting=126)
    assert chosen(100_000, crowded, one("cold")) == "cold"


def test_a_prefill_that_makes_a_crowd_wait_is_spared_it_but_not_an_idle_replica() -> None:
    warm = one("warm", taken=40, cached_tokens=2_000)
    # 0.2 s of prefill against 0.8 s less of a crowd: worth it for itself, not for the thirty who wait for it.
    assert chosen(2_000, warm, one("fewer", taken=30)) == "warm"
    assert chosen(2_000, warm, one("idle")) == "idle"


def test_arms_go_together_only_where_their_prefill_outweighs_an_idle_replica() -> None:
    packed = one("packed", taken=1)
    assert (
        chosen(2_000, replace(packed, cached_tokens=2_000), one("idle")) == "packed"
    )  # 0.2 s against 0.08 s
    assert chosen(500, replace(packed, cached_tokens=500), one("idle")) == "idle"


def test_what_others_were_promised_to_be_prefilled_is_waited_for() -> None:
    assert chosen(1_000, one("a", ahead_tokens=50_000), one("b", taken=20)) == "b"


def test_a_replica_without_memory_for_it_has_no_room_unless_nobody_is_there() -> None:
    tight = one("a", kv_max=1_000, kv_held=800, held=1)
    assert not tight.has_room(Demand(100, 201))
    assert tight.has_room(Demand(100, 200))
    assert one("a", kv_max=1_000).has_room(Demand(5_000, 9_000))
    assert not one("a", slots=2, held=2).has_room(Demand(1, 1))


INFO = ReplicaInfo("r", "p", "u", "sglang", "m", "ready", in_flight_max=8)


def test_an_offer_counts_what_is_reserved_and_not_yet_in_the_report_once() -> None:
    info = replace(INFO, running=3, waiting=1, kv_tokens_used=300, kv_tokens_max=10_000)
    held = KvHeld(tokens=500, generations=5, young_tokens=100, young_generations=1)
    offer = offer_of(info, held, RoutingSection())
    assert (offer.taken, offer.kv_taken) == (5, 500)
    foreign = offer_of(replace(info, running=30, kv_tokens_used=3_000), held, RoutingSection())
    assert (foreign.taken, foreign.kv_taken) == (32, 3_100)
    assert (foreign.held, foreign.kv_held) == (5, 500)


def test_an_offer_counts_nothing_that_is_gone_and_still_in_the_report() -> None:
    info = replace(INFO, running=6, waiting=2, kv_tokens_used=800, kv_tokens_max=10_000)
    begun_anew = KvHeld(tokens=600, generations=6, young_tokens=600, young_generations=6)
    gone = replace(begun_anew, gone_tokens=800, gone_generations=8)
    offer = offer_of(info, gone, RoutingSection())
    assert (offer.taken, offer.kv_taken) == (6, 600)
    over = offer_of(info, replace(gone, gone_tokens=9_000, gone_generations=90), RoutingSection())
    assert (over.taken, over.kv_taken) == (6, 600)


def test_a_profile_may_set_less_memory_than_the_engine_reports_or_what_it_does_not_report() -> None:
    assert offer_of(INFO, KvHeld(), RoutingSection()).kv_max == 0
    assert offer_of(INFO, KvHeld(), RoutingSection(kv_tokens_max=500)).kv_max == 500
    reporting = replace(INFO, kv_tokens_max=400)
    assert offer_of(reporting, KvHeld(), RoutingSection(kv_tokens_max=500)).kv_max == 400


def test_an_opening_that_somebody_is_prefilling_counts_as_there() -> None:
    held = KvHeld(led=True)
    assert offer_of(INFO, held, RoutingSection(), opening_tokens=700).cached_tokens == 700
    assert offer_of(INFO, KvHeld(warm_tokens=900), RoutingSection(), opening_tokens=700).cached_tokens == 700


def test_what_a_generation_may_say_is_reserved_up_to_a_bound() -> None:
    routing = RoutingSection(output_tokens_reserved=1_000)
    assert demand_of(500, 48_000, routing) == Demand(500, 1_500)
    assert demand_of(500, 64, routing) == Demand(500, 564)
