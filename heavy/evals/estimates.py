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
    """The chance that the vote of k arms is right, over all subsets of k and all orders in which they come.

    `groups` names each arm's group of equivalent answers by a number, negative for an arm that does not
    vote; `right` says whether each arm is right. Of the largest groups each comes first as often, and so does
    each arm of it: which of them speaks is chance, and averaging over it leaves less of it in the estimate.
    """
    return _vote_at(tuple(groups), tuple(right), k)


@lru_cache(maxsize=65_536)
def _vote_at(groups: tuple[int, ...], right: tuple[bool, ...], k: int) -> float:
    subsets = combinations(range(len(groups)), k)
    return sum(_vote_in_any_order(groups, right, subset) for subset in subsets) / comb(len(groups), k)


def _vote_in_any_order(groups: Sequence[int], right: Sequence[bool], arms: Sequence[int]) -> float:
    members = _members(groups, arms)
    most = max(map(len, members.values()), default=0)
    leading = [arm for group in members.values() if len(group) == most for arm in group]
    return sum(right[arm] for arm in leading) / len(leading) if leading else 0.0


def vote_of(groups: Sequence[int], right: Sequence[bool], arms: Sequence[int]) -> bool:
    """Whether the vote of these arms, in this order, is right: the server's own rule.

    The largest group answers, in the words of its first arm; of groups as large the one whose first arm
    comes first.
    """
    members = _members(groups, arms)
    if not members:
        return False
    leading = max(members.values(), key=len)
    return right[leading[0]]


def _members(groups: Sequence[int], arms: Sequence[int]) -> dict[int, list[int]]:
    """The arms of each group that votes, groups and arms in the order in which they come."""
    members: dict[int, list[int]] = {}
    for arm in arms:
        if groups[arm] >= 0:
            members.setdefault(groups[arm], []).append(arm)
    return members


def most_of(values: Sequence[float], k: int) -> float:
    """The mean over all subsets of k of their largest value: how long k parallel arms take."""
    n = len(values)
    ordered = sorted(values)
    return sum(value * comb(index, k - 1) for index, value in enumerate(ordered)) / comb(n, k)


def sum_of(values: Sequence[float], k: int) -> float:
    """The mean over all subsets of k of their sum: what k arms cost."""
    return k * sum(values) / len(values)
