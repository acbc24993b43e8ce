"""Prometheus metrics of what serves: replicas, runners and the store, as this coordinator last saw them."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from heavy.core import clock
from heavy.core.fleet import ReplicaState
from heavy.profiles.schema import Profile
from heavy.telemetry import names

STALE_S: Final = 15.0
"""A sight older than this is no longer shown: better no number than one from before an outage."""
REPLICAS_MAX: Final = 256
"""Replicas shown one by one; the counts by state have all of them."""
STORE_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class ReplicaSight:
    """One replica: what it announces, and what its profile says that it costs while it is there."""

    replica: str
    profile: str
    state: str
    running: int
    waiting: int
    slots: int
    kv_tokens_used: int
    kv_tokens_max: int
    kv_tokens_reserved: int
    gpus: int
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class FleetSight:
    """Everything that serves, at one moment. `trajectories` and `slots` are those of all runners.

    `queue_wait_s`: per profile, how long the first in line has waited for a replica with room; none: no line.
    """

    replicas: tuple[ReplicaSight, ...]
    runners: int
    trajectories: int
    slots: int
    queue_wait_s: Mapping[str, float] = field(default_factory=dict)


class FleetMetrics(Collector):
    """Gauges from the last sight. A replica that is gone takes its series with it.

    Profiles are counted that this server is told to serve (`served`) or has ever seen a replica of: of those,
    no replica at all is a number too, and the one that wakes people.
    """

    def __init__(
        self, registry: CollectorRegistry, profiles: Mapping[str, Profile], served: Iterable[str]
    ) -> None:
        self._profiles = profiles
        self._served = set(served)
        self._sight: FleetSight | None = None
        self._seen_s = 0.0
        self._store_up = False
        self._store_s = Histogram(
            names.METRIC_STORE_SECONDS,
            "Time the run store took to list who is there.",
            buckets=STORE_BUCKETS_S,
            registry=registry,
        )
        registry.register(self)

    def saw(self, sight: FleetSight, took_s: float) -> None:
        """The store answered with this, after so long."""
        self._sight, self._seen_s, self._store_up = sight, clock.monotonic_s(), True
        self._served |= {one.profile for one in sight.replicas if one.profile in self._profiles}
        self._store_s.observe(took_s)

    def saw_nothing(self) -> None:
        """The store did not answer."""
        self._store_up = False

    def collect(self) -> Iterator[Metric]:
        """The gauges now."""
        yield GaugeMetricFamily(
            names.METRIC_STORE_UP, "Whether the run store answered last time.", float(self._store_up)
        )
        yield self._profile_info()
        if self._sight is not None and clock.monotonic_s() - self._seen_s <= STALE_S:
            yield from _runners(self._sight)
            yield _counts(self._sight.replicas, sorted(self._served))
            yield _queues(self._sight, sorted(self._served))
            yield _states(self._sight.replicas)
            yield from _loads(self._sight.replicas)

    def _profile_info(self) -> Metric:
        family = GaugeMetricFamily(
            names.METRIC_PROFILE, "A profile that is served; its title says what it is.", labels=_INFO_LABELS
        )
        for name in sorted(self._served & self._profiles.keys()):
            profile = self._profiles[name]
            family.add_metric((name, profile.title, profile.engine), 1.0)
        return family


_INFO_LABELS: Final = ("profile", "title", "engine")


def _runners(sight: FleetSight) -> Iterator[Metric]:
    yield GaugeMetricFamily(names.METRIC_RUNNERS, "Runners there.", sight.runners)
    yield GaugeMetricFamily(names.METRIC_RUNNER_BUSY, "Trajectories on all runners.", sight.trajectories)
    yield GaugeMetricFamily(names.METRIC_RUNNER_SLOTS, "Trajectories all runners can take.", sight.slots)


def _counts(replicas: tuple[ReplicaSight, ...], served: Iterable[str]) -> Metric:
    family = GaugeMetricFamily(names.METRIC_REPLICAS, "Replicas, by state.", labels=("profile", "state"))
    counts = Tally((one.profile, one.state) for one in replicas)
    for profile in served:
        for state in ReplicaState:
            family.add_metric((profile, state.value), counts[profile, state.value])
    return family


def _queues(sight: FleetSight, served: Iterable[str]) -> Metric:
    family = GaugeMetricFamily(
        names.METRIC_QUEUE_NOW,
        "How long the first in line has waited for a replica.",
        labels=("profile",),
    )
    for profile in served:
        family.add_metric((profile,), sight.queue_wait_s.get(profile, 0.0))
    return family


def _states(replicas: tuple[ReplicaSight, ...]) -> Metric:
    family = GaugeMetricFamily(
        names.METRIC_REPLICA_STATE, "1 for the state a replica is in.", labels=("replica", "profile", "state")
    )
    for one in replicas[:REPLICAS_MAX]:
        family.add_metric((one.replica, one.profile, one.state), 1.0)
    return family


def _loads(replicas: tuple[ReplicaSight, ...]) -> Iterator[Metric]:
    for name, text, value in (
        (names.METRIC_REPLICA_RUNNING, "Generations running, by the engine's report.", "running"),
        (names.METRIC_REPLICA_WAITING, "Generations waiting in the engine.", "waiting"),
        (names.METRIC_REPLICA_SLOTS, "Generations it takes at once.", "slots"),
        (names.METRIC_REPLICA_KV_USED, "KV cache in use, in tokens.", "kv_tokens_used"),
        (names.METRIC_REPLICA_KV_RESERVED, "KV reserved for generations, in tokens.", "kv_tokens_reserved"),
        (names.METRIC_REPLICA_KV_MAX, "KV cache there is, in tokens; 0 if not told.", "kv_tokens_max"),
        (names.METRIC_REPLICA_GPUS, "GPUs it holds while it is there, used or not.", "gpus"),
        (names.METRIC_REPLICA_USD, "What its GPUs cost an hour, used or not.", "usd_per_hour"),
    ):
        family = GaugeMetricFamily(name, text, labels=("replica", "profile"))
        for one in replicas[:REPLICAS_MAX]:
            family.add_metric((one.replica, one.profile), float(getattr(one, value)))
        yield family
