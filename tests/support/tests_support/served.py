"""A Heavy as it is served, but without Ray: a coordinator and a runner as they are made, and an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from heavy.app import serving
from heavy.config import Settings
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.profiles.loader import load_profiles
from heavy.runner.build import open_runner
from heavy.store.api import Store
from workers.launch import free_port

from tests_support.engines import server
from tests_support.up import PROFILES

PROFILE = "brisk"
LISTED_S = 600.0


@dataclass(frozen=True, slots=True)
class Served:
    """Where it serves gRPC and HTTP, as `host:port`."""

    address: str
    http: str
    store: Store


@asynccontextmanager
async def served(store_url: str, *, traces: str = "") -> AsyncIterator[Served]:
    """Everything of the brisk simulated engine around a block; spans go to `traces`."""
    port = free_port()
    settings = Settings(
        store_url=store_url,
        port=0,
        http_port=port,
        profile_dirs=str(PROFILES),
        served=PROFILE,
        otlp_endpoint=traces,
        metrics_interval_s=0.2,
    )
    profile = load_profiles([PROFILES]).get(PROFILE)
    flags = ["--served-model-name", profile.model, *profile.serve.args]
    if traces:
        flags += ["--enable-trace", "--otlp-traces-endpoint", traces]
    with server("workers.engines.simulated", *flags) as base_url:
        runner = await open_runner(settings)
        try:
            info = ReplicaInfo("brisk-0", PROFILE, base_url, "simulated", profile.model, "ready")
            await runner.store.directory.announce_replica(info, ttl_s=LISTED_S)
            await runner.store.directory.announce_runner(RunnerInfo("runner-0", 0, 64), ttl_s=LISTED_S)
            async with serving(settings, lambda _: runner.host) as rpc:
                yield Served(rpc.address, f"127.0.0.1:{port}", runner.store)
        finally:
            await asyncio.shield(runner.close())
