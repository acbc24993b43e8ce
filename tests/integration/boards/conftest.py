"""One Heavy that is watched by everything that can watch it: a real Prometheus and a receiver of traces."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.boards.__main__ import DASHBOARDS
from heavy.client import HeavyClient
from heavy.coordinator.tally import LoggedSpend
from heavy.core.draft import PolicyDraft
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.policy import AggregationMode
from heavy.core.runs import Run
from heavy.store.reading import records_of

from tests_support.otlp import TraceReceiver
from tests_support.prometheus import Prometheus
from tests_support.served import served
from tests_support.servers import StoreServer
from tests_support.waiting import until

QUESTION = "What is 6 times 7, and where is the zanzibarite?"
ARMS = PolicyDraft(width=3, early_stop=False, aggregation=AggregationMode.REFLECTIVE)


RUNS_TIMED = "sum(heavy_run_queue_seconds_count)"
"""Runs of which everything has been counted: this comes last."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Two runs that ended, what Prometheus had scraped of them at `at_s`, and what their logs add up to."""

    runs: tuple[Run, ...]
    logged: Spend
    prometheus: Prometheus
    at_s: float

    def values(self, expr: str) -> list[float]:
        """What an expression gave then, one value a series."""
        return self.prometheus.values(expr, self.at_s)


@pytest.fixture(scope="session")
def watched_store() -> Iterator[StoreServer]:
    """A store server of its own, so that no other test empties it."""
    with tempfile.TemporaryDirectory(prefix="heavy-watched-") as directory:
        server = StoreServer("valkey", Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def receiver() -> Iterator[TraceReceiver]:
    """Where all spans go."""
    receiver = TraceReceiver()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def watched(
    watched_store: StoreServer, receiver: TraceReceiver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    """Runs that were watched. One before the other, so that every counter has been seen to rise."""
    async with served(watched_store.url, traces=receiver.endpoint) as heavy:
        directory = tmp_path_factory.mktemp("prometheus")
        prometheus = Prometheus(heavy.http, directory, DASHBOARDS / "alerts.yml")
        prometheus.start()
        try:
            await scraped(prometheus, RUNS_TIMED, 0)
            runs = []
            async with HeavyClient(heavy.address) as client:
                for number in (1, 2):
                    runs.append(await client.answer(QUESTION, ARMS))
                    await scraped(prometheus, RUNS_TIMED, number)
            await scraped(prometheus, "count_over_time(heavy_store_up[2m])", 5)
            at_s = time.time()
            logged = NOTHING_SPENT
            for run in runs:
                spends: dict[str, LoggedSpend] = {}
                async for record in records_of(heavy.store.log, run.spec.run):
                    if record.trajectory:
                        spends.setdefault(record.trajectory, LoggedSpend()).take(record)
                logged = sum((spend.total for spend in spends.values()), logged)
            yield Watched(tuple(runs), logged, prometheus, at_s)
        finally:
            prometheus.stop()


async def scraped(prometheus: Prometheus, expr: str, least: float) -> None:
    """Wait until an expression has a value of at least so much."""

    async def read() -> list[float]:
        return prometheus.values(expr)

    await until(read, lambda values: bool(values) and values[0] >= least, within_s=60.0)
