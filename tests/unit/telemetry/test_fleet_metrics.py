"""What a coordinator shows of replicas, runners and the store: what it last saw, and nothing older."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from heavy.core import clock
from heavy.profiles.loader import load_profiles
from heavy.telemetry import names
from heavy.telemetry.fleet import REPLICAS_MAX, STALE_S, FleetMetrics, FleetSight, ReplicaSight

READY = ReplicaSight("simulated-0", "simulated", "ready", 3, 1, 16, 700, 1_000, 800, 8, 24.0)


class Shown:
    """A fleet's metrics in a registry of their own."""

    def __init__(self, *served: str) -> None:
        self.registry = CollectorRegistry()
        self.metrics = FleetMetrics(self.registry, load_profiles().by_name, served)

    def saw(self, *replicas: ReplicaSight) -> None:
        sight = FleetSight(replicas, runners=2, trajectories=5, slots=128, queue_wait_s={"simulated": 7.5})
        self.metrics.saw(sight, 0.002)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def test_a_replica_is_shown_with_its_state_load_and_price() -> None:
    shown = Shown("simulated")
    shown.saw(READY)
    one = {"replica": "simulated-0", "profile": "simulated"}
    for name, value in (
        (names.METRIC_REPLICA_RUNNING, 3),
        (names.METRIC_REPLICA_WAITING, 1),
        (names.METRIC_REPLICA_SLOTS, 16),
        (names.METRIC_REPLICA_KV_USED, 700),
        (names.METRIC_REPLICA_KV_MAX, 1_000),
        (names.METRIC_REPLICA_KV_RESERVED, 800),
        (names.METRIC_REPLICA_GPUS, 8),
        (names.METRIC_REPLICA_USD, 24),
    ):
        assert shown.value(name, **one) == value
    assert shown.value(names.METRIC_REPLICA_STATE, **one, state="ready") == 1
    assert shown.value(names.METRIC_REPLICAS, profile="simulated", state="ready") == 1
    assert shown.value(names.METRIC_RUNNERS) == 2
    assert shown.value(names.METRIC_RUNNER_BUSY) == 5
    assert shown.value(names.METRIC_RUNNER_SLOTS) == 128
    assert shown.value(names.METRIC_QUEUE_NOW, profile="simulated") == 7.5
    assert shown.value(f"{names.METRIC_STORE_SECONDS}_count") == 1


def test_a_served_profile_without_a_replica_is_a_zero_and_not_an_absence() -> None:
    shown = Shown("simulated")
    shown.saw()
    assert shown.value(names.METRIC_REPLICAS, profile="simulated", state="ready") == 0
    assert shown.value(names.METRIC_REPLICAS, profile="kimi-k2-thinking", state="ready") is None


def test_a_profile_once_seen_is_missed_when_its_last_replica_goes() -> None:
    shown = Shown()
    shown.saw(READY)
    shown.saw()
    assert shown.value(names.METRIC_REPLICAS, profile="simulated", state="ready") == 0
    assert b"simulated-0" not in generate_latest(shown.registry)


def test_the_title_says_what_a_profile_is() -> None:
    shown = Shown("simulated")
    profile = load_profiles().get("simulated")
    labels = {"profile": "simulated", "title": profile.title, "engine": "simulated"}
    assert shown.value(names.METRIC_PROFILE, **labels) == 1


def test_while_the_store_is_down_the_last_sight_is_shown_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Shown("simulated")
    assert shown.value(names.METRIC_STORE_UP) == 0
    shown.saw(READY)
    assert shown.value(names.METRIC_STORE_UP) == 1
    shown.metrics.saw_nothing()
    assert shown.value(names.METRIC_STORE_UP) == 0
    assert shown.value(names.METRIC_RUNNERS) == 2
    now_s = clock.monotonic_s()
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s + STALE_S + 1)
    assert shown.value(names.METRIC_RUNNERS) is None
    assert shown.value(names.METRIC_REPLICAS, profile="simulated", state="ready") is None


def test_a_directory_of_thousands_makes_a_bounded_number_of_series() -> None:
    shown = Shown("simulated")
    many = [
        ReplicaSight(f"simulated-{i}", "simulated", "ready", 0, 0, 1, 0, 0, 0, 0, 0.0)
        for i in range(4 * REPLICAS_MAX)
    ]
    shown.saw(*many)
    samples = [s for family in shown.registry.collect() for s in family.samples if "replica" in s.labels]
    assert len({sample.labels["replica"] for sample in samples}) == REPLICAS_MAX
    assert shown.value(names.METRIC_REPLICAS, profile="simulated", state="ready") == 4 * REPLICAS_MAX
