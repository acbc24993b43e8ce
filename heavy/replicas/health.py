"""Whether a replica is well: a pure decision with hysteresis, and a light loop around it for its host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from heavy.core.errors import EngineRefused, EngineTimeout, HeavyError
from heavy.replicas.api import ReplicaLoad
from heavy.replicas.client import HttpReplica

NO_LOAD: Final = ReplicaLoad(running=0, waiting=0, kv_tokens_used=0, kv_tokens_max=0, raw={})


class Health(StrEnum):
    """`UNKNOWN` until the first probes; `ILL` after failures in a row; `WELL` after successes in a row."""

    UNKNOWN = "unknown"
    WELL = "well"
    ILL = "ill"


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """A probe has two questions of at most `timeout_s` each, and `interval_s` lies between two probes.

    Ill after `failures_max` failures in a row, or `timeouts_max` of them for want of an answer; well again
    after `successes_min` successes in a row. A busy server answers when its scheduler has made a step, and
    SGLang's looks for that once a second: one patient probe tells it from a hung one better than several
    hasty ones, each of which begins to wait anew.
    """

    interval_s: float = 0.5
    timeout_s: float = 6.0
    failures_max: int = 3
    timeouts_max: int = 1
    successes_min: int = 1


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What is known after a probe. `changed`: this probe changed `health`; `problem`: why it failed."""

    health: Health = Health.UNKNOWN
    load: ReplicaLoad = NO_LOAD
    problem: str = ""
    changed: bool = False
    failures: int = 0
    successes: int = 0
    """Probes in a row with this result; one of the two counts is 0."""
    timeouts: int = 0
    """How many of the failures had no answer."""


def decide(last: HealthReport, probe: ReplicaLoad | HeavyError, limits: HealthLimits) -> HealthReport:
    """The next report: what a probe brought, the load of the last success kept while probes fail."""
    if isinstance(probe, ReplicaLoad):
        successes = last.successes + 1
        health = Health.WELL if successes >= limits.successes_min else last.health
        return HealthReport(health, probe, "", health is not last.health, 0, successes)
    failures, timeouts = last.failures + 1, last.timeouts + isinstance(probe, EngineTimeout)
    ill = failures >= limits.failures_max or timeouts >= limits.timeouts_max
    health = Health.ILL if ill else last.health
    return HealthReport(health, last.load, str(probe), health is not last.health, failures, 0, timeouts)


class HealthCheck:
    """Probes one server: whether it still generates, then its load where it reports one.

    Costs a token where the server is idle, and nothing where it is not.
    """

    def __init__(self, client: HttpReplica, limits: HealthLimits | None = None) -> None:
        self._client = client
        self._limits = limits or HealthLimits()
        self._reports_load = client.endpoint.dialect == "sglang"

    async def reports(self) -> AsyncGenerator[HealthReport]:
        """A report after each probe, for ever; owns no task, and ends when it is closed or cancelled."""
        report = HealthReport()
        while True:
            report = decide(report, await self._probe(), self._limits)
            yield report
            await asyncio.sleep(self._limits.interval_s)

    async def _probe(self) -> ReplicaLoad | HeavyError:
        try:
            await self._client.check_health(self._limits.timeout_s)
            return await self._load()
        except HeavyError as error:
            return error

    async def _load(self) -> ReplicaLoad:
        if self._reports_load:
            try:
                return await self._client.load(self._limits.timeout_s)
            except EngineRefused:  # well, but an older server or one behind a proxy without this route
                self._reports_load = False
        return NO_LOAD
