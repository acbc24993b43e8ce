"""What k arms would have done, from the n that were rolled out: exact means over all subsets of k arms.

A mean over all subsets is an unbiased estimate for k fresh arms, and has the least variance of those that
treat arms alike. pass@k in this form: Chen et al. 2021, arXiv 2107.03374.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import comb


def any_at(right: int, n: int, k: int) -> float:
    """The chance that at least one of k arms is right, of n arms of which `right` are."""
    return 1.0 - comb(n - right, k) / comb(n, k)


def vote_at(groups: Sequence[int], right: Sequence[bool], k: int) -> float:
    """The chance that the vote of k arms is right.

    `groups` names each arm's group of equivalent answers by a number, negative for an arm that does not
    vote; `right` says whether each arm is right. The largest group answers, in the words of its first arm;
    of groups as large the one whose first arm comes first: the server's own rule, so that the vote of all
    arms is the server's vote.
    """
    return _vote_at(tuple(groups), tuple(right), k)


@lru_cache(maxsize=65_536)
def _vote_at(groups: tuple[int, ...], right: tuple[bool, ...], k: int) -> float:
    subsets = combinations(range(len(groups)), k)
    return sum(vote_of(groups, right, subset) for subset in subsets) / comb(len(groups), k)


def vote_of(groups: Sequence[int], right: Sequence[bool], arms: Sequence[int]) -> bool:
    """Whether the vote of these arms, in this order, is right."""
    sizes: dict[int, int] = {}
    first: dict[int, int] = {}
    for index in arms:
        group = groups[index]
        if group >= 0:
            sizes[group] = sizes.get(group, 0) + 1
            first.setdefault(group, index)
    if not sizes:
        return False
    leading = max(sizes, key=lambda group: sizes[group])
    return right[first[leading]]


def most_of(values: Sequence[float], k: int) -> float:
    """The mean over all subsets of k of their largest value: how long k parallel arms take."""
    n = len(values)
    ordered = sorted(values)
    return sum(value * comb(index, k - 1) for index, value in enumerate(ordered)) / comb(n, k)


def sum_of(values: Sequence[float], k: int) -> float:
    """The mean over all subsets of k of their sum: what k arms cost."""
    return k * sum(values) / len(values)
