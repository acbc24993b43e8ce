from __future__ import annotations

from collections import Counter

from heavy.coordinator.plan import arm_spec
from heavy.coordinator.proposal import spread
from heavy.core.runs import TrajectorySpec
from heavy.profiles.loader import load_profiles
from heavy.replicas.cost import Offer

from tests_support.domain import PROFILE, run_spec

SIMULATED = load_profiles().get(PROFILE)


def spec(words: int) -> TrajectorySpec:
    return arm_spec(run_spec("word " * words), 0, SIMULATED, 1)


def idle(*names: str) -> list[Offer]:
    return [Offer(name, slots=64, kv_max=700_000) for name in names]


def test_arms_with_a_short_prompt_begin_apart_and_those_with_a_long_one_together() -> None:
    apart = Counter(spread(idle("a", "b", "c", "d"), SIMULATED, spec(5), 8))
    assert set(apart.values()) == {2}
    together = Counter(spread(idle("a", "b", "c", "d"), SIMULATED, spec(40_000), 8))
    assert list(together.values()) == [8]


def test_a_busy_replica_gets_fewer_arms() -> None:
    busy = Offer("busy", slots=64, held=30, taken=30, kv_max=700_000)
    assert Counter(spread([*idle("idle"), busy], SIMULATED, spec(5), 8)) == {"idle": 8}


def test_where_no_replica_is_there_none_is_named() -> None:
    assert spread([], SIMULATED, spec(5), 3) == ["", "", ""]
