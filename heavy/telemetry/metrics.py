"""Prometheus metrics of one coordinator, counted from the records and ledgers of its runs."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from heavy.core.ids import AGGREGATOR, TrajectoryId
from heavy.core.ledger import Spend
from heavy.core.records import (
    Event,
    GenerationRecord,
    LifecycleRecord,
    Record,
    ToolResultRecord,
)
from heavy.core.repairs import Handling, Repair, handling_of
from heavy.core.runs import Run, RunSpec
from heavy.telemetry import names

# Heavy runs last from seconds to hours; the usual buckets end far too early.
LONG_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 2400, 4800, 9600, 14400)
SHORT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


UNKNOWN_TOOL = "unknown"
"""The label of every tool that is none: models make names up, and each label value is kept for ever."""


_REPAIRS = {repair.value: repair for repair in Repair}


class RunMetrics:
    """Counters and histograms over runs. Every label value is configured or from a fixed list:

    no ids, no model's words. `tools` are the names of the tools there are.
    """

    def __init__(self, registry: CollectorRegistry, tools: Iterable[str]) -> None:
        self._tools = frozenset(tools)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self._runs = counter(names.METRIC_RUNS, "Runs ended, by final state and method.", "state", "method")
        self._active = Gauge(names.METRIC_RUNS_ACTIVE, "Runs under way here.", registry=registry)
        self._run_s = histogram(names.METRIC_RUN_SECONDS, "Run wall time.", LONG_BUCKETS_S, "state")
        self._trajectories = counter(
            names.METRIC_TRAJECTORIES, "Trajectories ended.", "role", "outcome", "reason", "profile"
        )
        self._step_s = histogram(names.METRIC_STEP_SECONDS, "Generation time.", LONG_BUCKETS_S, "profile")
        self._first_s = histogram(
            names.METRIC_FIRST_TOKEN_SECONDS, "Time to the first token.", SHORT_BUCKETS_S, "profile"
        )
        self._queue_s = histogram(
            names.METRIC_QUEUE_SECONDS, "Time waited for a replica.", SHORT_BUCKETS_S, "profile"
        )
        self._tokens = counter(names.METRIC_TOKENS, "Tokens, by kind.", "kind", "tenant", "profile")
        self._tool_calls = counter(names.METRIC_TOOL_CALLS, "Tool calls.", "tool", "cache", "error")
        self._tool_s = histogram(names.METRIC_TOOL_SECONDS, "Tool call time.", SHORT_BUCKETS_S, "tool")
        self._repairs = counter(
            names.METRIC_CALL_REPAIRS,
            "Generations with tool calls, by what had to be mended in them; kind none: nothing.",
            "profile",
            "kind",
            "handling",
        )
        self._cost = counter(names.METRIC_COST_USD, "Money spent.", "tenant", "profile")
        self._gpu_s = counter(names.METRIC_GPU_SECONDS, "GPU-seconds held.", "tenant", "profile")
        self._refused = counter(names.METRIC_REFUSED, "Requests refused, by reason.", "reason")

    def run_started(self) -> None:
        """A run has begun here."""
        self._active.inc()

    def run_left(self) -> None:
        """A run is no longer under way here, whatever became of it."""
        self._active.dec()

    def refused(self, reason: str) -> None:
        """A request was not accepted."""
        self._refused.labels(reason).inc()

    def run_ended(self, run: Run, wall_s: float) -> None:
        """A run has reached its final state. Its ledger has all it spent, cut generations included."""
        method = run.result.method.value if run.result else ""
        self._runs.labels(run.state.value, method).inc()
        self._run_s.labels(run.state.value).observe(wall_s)
        if run.ledger is not None:
            for name, spend in run.ledger.trajectories.items():
                self._spent(spend, run.spec.tenant, _profile_of(run.spec, name))

    def record(self, record: Record, spec: RunSpec) -> None:
        """Count one record of a run's log."""
        match record.body:
            case GenerationRecord() as body:
                self._generation(body, _profile_of(spec, record.trajectory))
            case ToolResultRecord() as body:
                tool = body.name if body.name in self._tools else UNKNOWN_TOOL
                self._tool_calls.labels(tool, body.cache.value, str(body.is_error).lower()).inc()
                self._tool_s.labels(tool).observe(body.duration_s)
            case LifecycleRecord(event=Event.TRAJECTORY_ENDED, outcome=outcome) if outcome is not None:
                role = "aggregator" if record.trajectory == AGGREGATOR else "arm"
                profile = _profile_of(spec, record.trajectory)
                self._trajectories.labels(role, outcome.kind.value, outcome.reason, profile).inc()

    def _generation(self, body: GenerationRecord, profile: str) -> None:
        timing = body.timing
        self._step_s.labels(profile).observe(timing.first_token_s + timing.decode_s)
        self._first_s.labels(profile).observe(timing.first_token_s)
        self._queue_s.labels(profile).observe(timing.queue_s)
        if body.message.tool_calls and not body.repairs:
            self._repairs.labels(profile, "none", Handling.CLEAN.value).inc()
        for repair in map(_repair, body.repairs):
            if repair is not None:
                self._repairs.labels(profile, repair.value, handling_of(repair).value).inc()

    def _spent(self, spend: Spend, tenant: str, profile: str) -> None:
        for kind, tokens in (
            ("prompt", spend.tokens_prompt),
            ("cached", spend.tokens_cached),
            ("reasoning", spend.tokens_reasoning),
            ("output", spend.tokens_output),
        ):
            self._tokens.labels(kind, tenant, profile).inc(tokens)
        self._cost.labels(tenant, profile).inc(spend.cost_usd)
        self._gpu_s.labels(tenant, profile).inc(spend.gpu_seconds)


def _profile_of(spec: RunSpec, trajectory: str) -> str:
    return spec.policy.members.profile_of(TrajectoryId(trajectory))


def _repair(name: str) -> Repair | None:
    """The repair of that name; None for one that this version does not know, as an older runner may write."""
    return _REPAIRS.get(name)
