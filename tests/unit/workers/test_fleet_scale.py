"""How many replicas load asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heavy.core.fleet import ReplicaInfo
from heavy.profiles.schema import ScaleSection
from workers.fleet.scale import Trend, kv_use, scaled

from tests_support.fleet_world import want

LIMITS = ScaleSection(rise_after_s=10.0, fall_after_s=100.0)
ONE_TO_THREE = replace(want(number=1), replicas_max=3)


def info(kv: float = 0.0, running: int = 0, waiting: int = 0) -> ReplicaInfo:
    return ReplicaInfo(
        "p-0",
        "p",
        "",
        "simulated",
        "m",
        "ready",
        running=running,
        waiting=waiting,
        kv_tokens_used=int(kv * 1_000),
        kv_tokens_max=1_000,
    )


def after(seconds: list[int], **load: float) -> list[int]:
    """The numbers at those seconds, under a load that lasts."""
    number, trend, numbers = ONE_TO_THREE, Trend(), []
    wait_s = load.pop("wait_s", 0.0)
    for second in seconds:
        ready = [info(**load) for _ in range(number.replicas)]  # type: ignore[arg-type]
        count, trend = scaled(number, LIMITS, ready, wait_s, trend, second * 1_000)
        number = replace(number, replicas=count)
        numbers.append(count)
    return numbers


def test_a_full_kv_cache_that_lasts_adds_one_replica_at_a_time_up_to_the_maximum() -> None:
    assert after([0, 9, 10, 19, 20, 21, 30, 40, 60], kv=0.9) == [1, 1, 2, 2, 2, 2, 3, 3, 3]


def test_a_long_wait_for_a_replica_adds_one_whatever_the_kv_use() -> None:
    assert after([0, 10], wait_s=6.0) == [1, 2]


def test_a_short_burst_changes_nothing() -> None:
    trend = Trend()
    for second, kv in ((0, 0.9), (5, 0.9), (9, 0.5), (12, 0.9), (20, 0.9)):
        number, trend = scaled(ONE_TO_THREE, LIMITS, [info(kv)], 0.0, trend, second * 1_000)
        assert number == 1


def test_what_the_others_could_carry_lets_one_go_after_the_cool_down() -> None:
    two = replace(ONE_TO_THREE, replicas=2)
    trend = Trend(changed_ms=0)
    ready = [info(0.05), info(0.05)]
    assert scaled(two, LIMITS, ready, 0.0, trend, 0)[0] == 2
    trend = scaled(two, LIMITS, ready, 0.0, trend, 0)[1]
    assert scaled(two, LIMITS, ready, 0.0, trend, 99_000)[0] == 2
    assert scaled(two, LIMITS, ready, 0.0, trend, 100_000)[0] == 1


def test_while_one_is_still_coming_no_further_one_is_asked_for() -> None:
    two = replace(ONE_TO_THREE, replicas=2)
    trend = Trend(few_since_ms=0)
    assert scaled(two, LIMITS, [info(1.0)], 99.0, trend, 999_000) == (2, Trend())


def test_one_that_still_waits_for_a_node_is_given_up_when_the_need_is_over_for_long() -> None:
    two, trend, numbers = replace(ONE_TO_THREE, replicas=2), Trend(changed_ms=0), []
    for second, kv in ((0, 0.9), (50, 0.05), (99, 0.05), (149, 0.05), (150, 0.05)):
        number, trend = scaled(two, LIMITS, [info(kv)], 0.0, trend, second * 1_000)
        numbers.append(number)
    assert numbers == [2, 2, 2, 2, 1]


def test_a_fixed_number_is_never_changed() -> None:
    assert scaled(want(number=2), LIMITS, [info(1.0)] * 2, 99.0, Trend(few_since_ms=0), 999_000)[0] == 2


@pytest.mark.parametrize(
    ("load", "use"), [({"kv": 0.5}, 0.5), ({"running": 32}, 0.5), ({"waiting": 99}, 1.0)]
)
def test_use_is_kv_or_places_whichever_is_more(load: dict[str, float], use: float) -> None:
    assert kv_use([info(**load)]) == use  # type: ignore[arg-type]
