"""Prometheus metrics of one coordinator, counted from run records: what is in a log is in the metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from heavy.core.records import (
    Event,
    GenerationRecord,
    LifecycleRecord,
    Record,
    ToolResultRecord,
)
from heavy.core.runs import Run
from heavy.telemetry import names

# Heavy runs last from seconds to hours; the usual buckets end far too early.
LONG_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 2400, 4800, 9600, 14400)
SHORT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class RunMetrics:
    """Counters and histograms over runs. No run ids in labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
        self._step_s = histogram(names.METRIC_STEP_SECONDS, "Generation time.", LONG_BUCKETS_S, "model")
        self._first_s = histogram(
            names.METRIC_FIRST_TOKEN_SECONDS, "Time to the first token.", SHORT_BUCKETS_S, "model"
        )
        self._queue_s = histogram(
            names.METRIC_QUEUE_SECONDS, "Time waited for a replica.", SHORT_BUCKETS_S, "model"
        )
        self._tokens = counter(names.METRIC_TOKENS, "Tokens, by kind.", "kind", "tenant", "model")
        self._tool_calls = counter(names.METRIC_TOOL_CALLS, "Tool calls.", "tool", "cache", "error")
        self._tool_s = histogram(names.METRIC_TOOL_SECONDS, "Tool call time.", SHORT_BUCKETS_S, "tool")
        self._cost = counter(names.METRIC_COST_USD, "Money spent.", "tenant", "model")
        self._gpu_s = counter(names.METRIC_GPU_SECONDS, "GPU-seconds held.", "tenant", "model")
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
        """A run has reached its final state."""
        method = run.result.method.value if run.result else ""
        self._runs.labels(run.state.value, method).inc()
        self._run_s.labels(run.state.value).observe(wall_s)

    def record(self, record: Record, tenant: str) -> None:
        """Count one record of a log."""
        body = record.body
        if isinstance(body, GenerationRecord):
            self._generation(body, tenant)
        elif isinstance(body, ToolResultRecord):
            self._tool_calls.labels(body.name, body.cache.value, str(body.is_error).lower()).inc()
            self._tool_s.labels(body.name).observe(body.duration_s)
        elif isinstance(body, LifecycleRecord) and body.event is Event.TRAJECTORY_ENDED and body.outcome:
            role = "arm" if record.trajectory.startswith("arm-") else "aggregator"
            outcome = body.outcome
            self._trajectories.labels(role, outcome.kind.value, outcome.reason, outcome.profile).inc()

    def _generation(self, body: GenerationRecord, tenant: str) -> None:
        spend, timing = body.spend, body.timing
        self._step_s.labels(body.model).observe(timing.first_token_s + timing.decode_s)
        self._first_s.labels(body.model).observe(timing.first_token_s)
        self._queue_s.labels(body.model).observe(timing.queue_s)
        for kind, tokens in (
            ("prompt", spend.tokens_prompt),
            ("cached", spend.tokens_cached),
            ("reasoning", spend.tokens_reasoning),
            ("output", spend.tokens_output),
        ):
            self._tokens.labels(kind, tenant, body.model).inc(tokens)
        self._cost.labels(tenant, body.model).inc(spend.cost_usd)
        self._gpu_s.labels(tenant, body.model).inc(spend.gpu_seconds)
