"""What metrics show of a real directory, and of a store that goes away and comes back."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from heavy.config import Settings
from heavy.coordinator.lookout import Lookout
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.profiles.loader import load_profiles
from heavy.store.api import KvClaim
from heavy.store.redis import connect
from heavy.telemetry import names
from heavy.telemetry.fleet import FleetMetrics

from tests_support.servers import StoreServer
from tests_support.waiting import until


async def test_it_shows_who_is_there_and_whether_the_store_answers(tmp_path: Path) -> None:
    server = StoreServer("valkey", tmp_path)
    server.start()
    profiles, registry = load_profiles(), CollectorRegistry()
    store = await connect(server.url, Settings(store_timeout_s=0.5))
    metrics = FleetMetrics(registry, profiles.by_name, ("simulated",))
    lookout = Lookout(store, profiles, metrics, interval_s=0.05)

    async def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    try:
        await lookout.start()
        ready = {"profile": "simulated", "state": "ready"}
        assert await value(names.METRIC_REPLICAS, **ready) == 0
        info = ReplicaInfo("simulated-0", "simulated", "http://x", "simulated", "m", "ready", 2, 1, 30, 40)
        await store.directory.announce_replica(info, ttl_s=60.0)
        claim = KvClaim("simulated-0", "a-generation", "its-run", 5, 7, 0)
        await store.reservations.take(claim, kv_tokens_max=40, generations_max=8, ttl_s=60.0)
        unknown = ReplicaInfo("new-0", "of a later version", "http://x", "sglang", "m", "ready")
        await store.directory.announce_replica(unknown, ttl_s=60.0)
        for name, wait_s in (("runner-0", 2.0), ("runner-1", 9.0)):
            runner = RunnerInfo(name, 3, 64, queue_wait_s={"simulated": wait_s})
            await store.directory.announce_runner(runner, ttl_s=60.0)
        await until(lambda: value(names.METRIC_RUNNER_BUSY), lambda busy: busy == 6)
        assert await value(names.METRIC_REPLICAS, **ready) == 1
        assert await value(names.METRIC_QUEUE_NOW, profile="simulated") == 9.0
        one = {"replica": "simulated-0", "profile": "simulated"}
        assert await value(names.METRIC_REPLICA_KV_USED, **one) == 30
        await until(lambda: value(names.METRIC_REPLICA_KV_RESERVED, **one), lambda tokens: tokens == 12)
        server.stop()
        await until(lambda: value(names.METRIC_STORE_UP), lambda up: up == 0)
        server.start()
        await until(lambda: value(names.METRIC_STORE_UP), lambda up: up == 1)
    finally:
        await lookout.stop()
        await store.close()
        server.stop()
