from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.evals.calibration import calibration
from heavy.evals.estimates import any_at, most_of, sum_of, vote_at, vote_of
from heavy.evals.intervals import Bootstrap, wilson

ARMS = st.lists(st.tuples(st.integers(-1, 3), st.booleans()), min_size=1, max_size=8)


def speaks(votes: Sequence[tuple[int, bool]]) -> bool:
    """Whether the vote of these arms, in this order, is right."""
    groups = [group for group, _ in votes if group >= 0]
    leaders = [g for g in dict.fromkeys(groups) if groups.count(g) == max(map(groups.count, groups))]
    return bool(leaders) and next(right for group, right in votes if group == leaders[0])


@given(st.lists(st.tuples(st.integers(-1, 2), st.booleans()), min_size=1, max_size=5), st.data())
def test_the_vote_of_k_is_the_mean_over_all_subsets_in_all_orders(
    arms: list[tuple[int, bool]], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(arms)))
    by_hand = [speaks(order) for order in permutations(arms, k)]
    estimate = vote_at([g for g, _ in arms], [r for _, r in arms], k)
    assert estimate == pytest.approx(sum(by_hand) / len(by_hand))


@given(ARMS)
def test_the_vote_of_all_in_their_order_is_the_servers(arms: list[tuple[int, bool]]) -> None:
    groups, right = [g for g, _ in arms], [r for _, r in arms]
    assert vote_of(groups, right, range(len(arms))) == speaks(arms)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=8))
def test_two_votes_are_worth_no_more_than_one(arms: list[tuple[int, bool]]) -> None:
    groups, right = [g for g, _ in arms], [r for _, r in arms]
    assert vote_at(groups, right, 2) == pytest.approx(vote_at(groups, right, 1))


@given(ARMS, st.data())
def test_any_of_k_is_the_mean_over_all_subsets(arms: list[tuple[int, bool]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(arms)))
    right = [r for _, r in arms]
    found = [any(subset) for subset in combinations(right, k)]
    assert any_at(sum(right), len(right), k) == pytest.approx(sum(found) / len(found))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8), st.data())
def test_the_slowest_and_the_sum_of_k_are_means_over_all_subsets(
    values: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(values)))
    subsets = list(combinations(values, k))
    assert most_of(values, k) == pytest.approx(sum(map(max, subsets)) / len(subsets))
    assert sum_of(values, k) == pytest.approx(sum(map(sum, subsets)) / len(subsets))


def test_a_vote_of_two_that_differ_is_the_first_ones_whichever_that_is() -> None:
    assert vote_of([0, 1], [True, False], (0, 1)) is True
    assert vote_of([0, 1], [True, False], (1, 0)) is False
    assert vote_at([0, 1], [True, False], 2) == 0.5


def test_an_arm_without_an_answer_does_not_vote() -> None:
    assert vote_at([-1, -1, 0], [False, False, True], 3) == 1.0
    assert vote_at([-1, -1], [False, False], 2) == 0.0


def test_wilsons_interval_is_the_published_one() -> None:
    """Newcombe 1998, table I: 81 of 263 and 0 of 20."""
    found = wilson(81, 263)
    assert (round(found.low or 0, 4), round(found.high or 0, 4)) == (0.2553, 0.3662)
    none = wilson(0, 20)
    assert (none.low, round(none.high or 0, 4)) == (0.0, 0.1611)


@settings(max_examples=5, deadline=None)
@given(st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([60, 200]))
def test_intervals_cover_what_they_should(share: float, n: int) -> None:
    rng = random.Random(7)
    boot = Bootstrap(n, seed=3)
    covered = {"wilson": 0, "bootstrap": 0}
    for _ in range(200):
        values = [float(rng.random() < share) for _ in range(n)]
        for name, found in (("wilson", wilson(int(sum(values)), n)), ("bootstrap", boot.mean(values))):
            assert found.low is not None
            assert found.high is not None
            covered[name] += found.low <= share <= found.high
    assert all(190 - 20 <= count <= 200 for count in covered.values())


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    rng = random.Random(5)
    left = [float(rng.random() < 0.5) for _ in range(300)]
    right = [value if rng.random() < 0.95 else 1 - value for value in left]
    other = [float(rng.random() < 0.5) for _ in range(300)]
    boot = Bootstrap(300, seed=1)
    paired, unpaired = boot.difference(left, right), boot.difference(left, other)
    assert (paired.high or 0) - (paired.low or 0) < ((unpaired.high or 0) - (unpaired.low or 0)) / 2


def test_the_same_seed_draws_the_same_interval() -> None:
    values = [(index * 0.37) % 1 for index in range(100)]
    assert Bootstrap(100, seed=1).mean(values) == Bootstrap(100, seed=1).mean(values)
    assert Bootstrap(100, seed=1).mean(values) != Bootstrap(100, seed=2).mean(values)


def test_a_ratio_to_nothing_is_not_said() -> None:
    boot = Bootstrap(10, seed=0)
    assert boot.ratio([1.0] * 10, [0.0] * 10) is None
    rare = boot.ratio([1.0] * 10, [1.0] + [0.0] * 9)
    assert rare is not None
    assert rare.low is None
    twice = boot.ratio([float(2 * i) for i in range(1, 11)], [float(i) for i in range(1, 11)])
    assert twice is not None
    assert (twice.value, twice.low, twice.high) == pytest.approx((2.0, 2.0, 2.0))


def test_calibration_counts_what_was_said_against_what_was_right() -> None:
    stated = [(0.9, True)] * 8 + [(0.9, False)] * 2 + [(0.2, False)] * 10
    found = calibration(stated, answers=25)
    assert found is not None
    assert (found.answers, found.stated, len(found.bins)) == (25, 20, 2)
    assert found.ece == pytest.approx(0.5 * 0.1 + 0.5 * 0.2)
    assert found.brier == pytest.approx((8 * 0.01 + 2 * 0.81 + 10 * 0.04) / 20)
    assert calibration([(1.0, True)], 1) is not None
    assert calibration([], 10) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_calibration_errors_stay_within_their_bounds(stated: list[tuple[float, bool]]) -> None:
    found = calibration(stated, len(stated))
    assert found is not None
    assert 0 <= found.ece <= found.rms + 1e-9 <= 1 + 1e-9
    assert sum(b.count for b in found.bins) == len(stated)
