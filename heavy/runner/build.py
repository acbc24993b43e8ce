"""What a runner process is made of: every wrapper and its order, in one place."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from heavy.agent.limits import AgentLimits
from heavy.agent.trajectory import Trajectory
from heavy.config import Settings
from heavy.core.redaction import NOTHING, Redactor
from heavy.core.runs import TrajectorySpec
from heavy.core.tools import ToolSpec
from heavy.profiles.loader import ProfileBook, load_profiles
from heavy.replicas.api import Replica
from heavy.replicas.holds import KvHolds
from heavy.replicas.http import HttpPool
from heavy.replicas.registry import ReplicaRegistry
from heavy.replicas.router import RoutedReplica, RoutingLimits
from heavy.runner.deltas import Deltas
from heavy.runner.host import TrajectoryHost
from heavy.runner.journal import StoreJournal
from heavy.runner.meter import ProfileMeter
from heavy.runner.traced import TracedReplica, TracedTool
from heavy.store.api import Store
from heavy.store.redis import connect
from heavy.telemetry.tracing import Tracing
from heavy.tools.api import Tool
from heavy.tools.cache import ToolCache
from heavy.tools.cache_server import CacheLimits
from heavy.tools.caller import CallerTool
from heavy.tools.config import read_tools
from heavy.tools.presentation import Presentation
from heavy.tools.redaction import redactor_of
from heavy.tools.registry import ToolBox, open_tools
from heavy.tools.toolset import Toolset
from heavy.tools.transcripts import StoreTraceReader


@dataclass(frozen=True, slots=True)
class RunnerParts:
    """A runner that executes, and what has to be closed with it."""

    host: TrajectoryHost
    router: RoutedReplica
    holds: KvHolds
    store: Store
    tools: ToolBox
    pool: HttpPool
    deltas: Deltas
    tracing: Tracing

    async def close(self) -> None:
        """Cut what is under way, then close everything, what was opened last first."""
        await self.host.stop()
        await self.deltas.stop()
        await self.holds.close()
        await self.pool.close()
        await self.tools.close()
        await self.store.close()
        await asyncio.to_thread(self.tracing.shutdown)


async def open_runner(settings: Settings) -> RunnerParts:
    """Connect a runner. Raises `ConfigError`, `StoreUnavailable`."""
    store = await connect(settings.store_url, settings)
    profiles = load_profiles(settings.profile_directories)
    redact = redactor_of(settings)
    tracing = Tracing(settings.otlp_endpoint, settings.service_name, redact)
    config = read_tools(settings.tools_file)
    bounds = CacheLimits.of(config.cache)
    cache = await ToolCache.connect(cache_url_of(settings), cache_secret_of(settings), bounds)
    tools = await open_tools(config, cache=cache, files=store.files)
    pool = HttpPool(settings.runner_in_flight_max)
    registry = ReplicaRegistry.over_http(
        store.directory, profiles, pool, silence_s=settings.generation_silence_s
    )
    holds = KvHolds(store.reservations, settings.reservation_ttl_s)
    router = RoutedReplica(
        registry, routing_limits_of(settings), holds, lambda profile: profiles.get(profile).routing
    )
    replica = TracedReplica(router, tracing, profiles.by_name)
    deltas = Deltas(store.log, settings.delta_interval_ms / 1000)
    deltas.start()
    bench = Bench(profiles, replica, tools, store, tracing, limits_of(settings), redact)
    host = TrajectoryHost(
        store,
        deltas,
        bench,
        tracing,
        in_flight_max=settings.runner_in_flight_max,
        lease_s=settings.lease_s,
        redact=redact,
    )
    return RunnerParts(host, router, holds, store, tools, pool, deltas, tracing)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every trajectory of a runner is put together from."""

    profiles: ProfileBook
    replica: Replica
    tools: ToolBox
    store: Store
    tracing: Tracing
    limits: AgentLimits
    redact: Redactor = NOTHING

    def trajectory(self, spec: TrajectorySpec, journal: StoreJournal) -> Trajectory:
        """A trajectory ready to run. Raises `NotFound` for a profile or tool that this runner lacks."""
        profile = self.profiles.get(spec.profile)
        traced = [TracedTool(tool, self.tracing, spec.traceparent) for tool in self._tools(spec)]
        limits = profile.limits
        toolset = Toolset(
            traced, Presentation(limits.tool_output_chars_max, profile.fence_tool_outputs, self.redact)
        )
        meter, bounds = ProfileMeter(profile), self.limits.changed(profile.agent)
        return Trajectory(spec, profile, self.replica, toolset, journal, meter, bounds)

    async def over(self, spec: TrajectorySpec) -> None:
        """What tools kept for a trajectory that ended goes."""
        await self.tools.end(spec.run, spec.trajectory)

    def title(self, profile: str) -> str:
        """What people call the model of a profile."""
        return self.profiles.get(profile).title

    def _tools(self, spec: TrajectorySpec) -> tuple[Tool, ...]:
        """What the spec names; an aggregator has the trace tools over its candidates besides."""
        reader = StoreTraceReader(self.store.log, spec.run, spec.candidates) if spec.candidates else None
        chosen = self.tools.select(spec.tools, reader)
        return (*chosen, *(self._callers(tool, spec) for tool in spec.caller_tools))

    def _callers(self, tool: ToolSpec, spec: TrajectorySpec) -> Tool:
        """A tool that the caller executes; what its arms ask of it alike is asked once, if it said so."""
        return self.tools.shared_in_run(CallerTool(tool, self.store.exchange, spec.epoch))


def cache_url_of(settings: Settings) -> str:
    """The tool cache's server: its own, or the store's."""
    return settings.cache_url or settings.store_url


def cache_secret_of(settings: Settings) -> bytes:
    """What keys cache entries: configured, or derived from the store's URL, which every runner shares."""
    configured = settings.cache_secret.get_secret_value()
    return configured.encode() or hashlib.sha256(f"heavy tool cache {settings.store_url}".encode()).digest()


def limits_of(settings: Settings) -> AgentLimits:
    """The agent's bounds, as far as settings say; profiles have the last word."""
    return AgentLimits(checkpoint_tokens=settings.checkpoint_tokens, checkpoint_s=settings.checkpoint_s)


def routing_limits_of(settings: Settings) -> RoutingLimits:
    """How long places on replicas are waited for, as far as settings say."""
    return RoutingLimits(wait_max_s=settings.route_wait_s, lead_max_s=settings.route_lead_s)
