"""A coordinator with its HTTP side on loopback: what a browser or a script is pointed at."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry

from heavy.aggregation.equivalence import Equivalence
from heavy.config import Settings
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.ids import RunId, TrajectoryId
from heavy.gateway.app import Gateway
from heavy.profiles.loader import load_profiles
from heavy.runner.api import Runner
from heavy.store.redis import RedisStore, connect
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing
from heavy.testing.runner import Part, ScriptedRunner

PAST_RUNS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Runs:
    """The ids of runs written into a page's store."""

    reflective: RunId
    voted: RunId
    failed: RunId
    cancelled: RunId
    live: RunId
    long: RunId


class PageServer:
    """Store, coordinator and gateway are real; the runner plays `parts`, or is `runner` where one is given.

    A server that was stopped may be started again, at its address.
    """

    def __init__(
        self,
        store_url: str,
        parts: Mapping[TrajectoryId, Part] | None = None,
        *,
        port: int = 0,
        runner: Runner | None = None,
        **settings: Any,
    ) -> None:
        chosen = {"store_timeout_s": 5.0, "retention_s": 600.0, "profile": "simulated", **settings}
        self.settings = Settings(store_url=store_url, **chosen)
        self.parts = dict(parts or {})
        self.port = port
        self._runner = runner
        self.store: RedisStore
        self._stack: AsyncExitStack | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Serve."""
        async with AsyncExitStack() as stack:
            settings = self.settings.model_copy(update={"http_port": self.port})
            self.store = await connect(settings.store_url, settings)
            stack.push_async_callback(self.store.close)
            equivalence, registry = Equivalence(), CollectorRegistry()
            book = load_profiles(settings.profile_directories)
            runner = self._runner or ScriptedRunner(self.store.control, self.parts)
            stack.push_async_callback(equivalence.close)
            service = CoordinatorService(
                Parts(self.store, runner, book, equivalence, settings.lease_s),
                PolicyDefaults(book.by_name, (settings.profile,), settings, ("python",), ("python",)),
                settings,
                RunMetrics(registry, ()),
                Tracing("", "test"),
                "page-server",
            )
            await service.start()
            stack.push_async_callback(service.stop)
            gateway = Gateway(settings, registry, lambda: True, service)
            await gateway.start()
            stack.push_async_callback(gateway.stop)
            self.port = gateway.port
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Serve no more. Safe to call twice."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()
