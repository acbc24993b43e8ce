"""Prometheus metrics of one coordinator, counted from the records and ledgers of the runs it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from heavy.core.ids import AGGREGATOR, TrajectoryId
from heavy.core.ledger import Ledger, Spend
from heavy.core.records import (
    ARMS_ENDED,
    Event,
    GenerationRecord,
    LifecycleRecord,
    Record,
    ToolResultRecord,
)
from heavy.core.repairs import Handling, Repair, handling_of
from heavy.core.runs import FINAL_STATES, AggregationMethod, Run, RunSpec, RunState
from heavy.telemetry import names
from heavy.telemetry.labels import Values
from heavy.telemetry.timeline import Part, Timeline

# Heavy runs last from seconds to hours; the usual buckets end far too early.
LONG_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 2400, 4800, 9600, 14400)
SHORT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKEN_BUCKETS_S = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 5)
USD_BUCKETS = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
PREMIUM_BUCKETS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 24, 32)
SHARE_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1)

UNKNOWN_TOOL = "unknown"
"""The label of every tool that is none: models make names up, and each label value is kept for ever."""

_REPAIRS = {repair.value: repair for repair in Repair}

Standing = Callable[[RunState], None]
"""Told where a run under way stands, each time it moves."""


class RunMetrics:
    """Counters and histograms over runs, of which each coordinator counts those it ended: they add up.

    No label value is an id or a word of a model: tenants, profiles and `tools` (the names of those there are)
    are configured, the rest are codes of ours. What clients and runners could make up is bounded besides.
    """

    def __init__(self, registry: CollectorRegistry, tools: Iterable[str]) -> None:
        self._tools = frozenset(tools)
        self._reasons, self._refusals, self._placed = Values(), Values(), Values()
        self._tenants = Values(most=1_000)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self._runs = counter(names.METRIC_RUNS, "Runs ended, by final state and method.", "state", "method")
        self._active = Gauge(
            names.METRIC_RUNS_ACTIVE, "Runs under way here, by state.", ("state",), registry=registry
        )
        self._run_s = histogram(names.METRIC_RUN_SECONDS, "Run wall time.", LONG_BUCKETS_S, "state")
        self._run_queue_s = histogram(
            names.METRIC_RUN_QUEUE_SECONDS, "Time a run waited for its turn.", SHORT_BUCKETS_S
        )
        self._path_s = counter(names.METRIC_RUN_PATH_SECONDS, "Critical path of runs, by part.", "part")
        self._run_usd = histogram(names.METRIC_RUN_COST_USD, "Money a run cost.", USD_BUCKETS)
        self._premium = histogram(
            names.METRIC_PREMIUM,
            "What a run cost over what its median arm cost; basis: by money, or by tokens if they are free.",
            PREMIUM_BUCKETS,
            "basis",
        )
        self._agreement = histogram(
            names.METRIC_AGREEMENT, "Share of the largest group of equivalent answers.", SHARE_BUCKETS
        )
        self._fanouts = counter(names.METRIC_FANOUTS, "Fan-outs ended, by why no more was waited.", "stopped")
        self._refused = counter(names.METRIC_REFUSED, "Requests refused, by reason.", "reason")
        self._trajectories = counter(
            names.METRIC_TRAJECTORIES, "Trajectories ended.", "role", "outcome", "reason", "profile"
        )
        self._step_s = histogram(
            names.METRIC_STEP_SECONDS, "Generation and tool calls of a step.", LONG_BUCKETS_S, "profile"
        )
        self._generation_s = histogram(
            names.METRIC_GENERATION_SECONDS, "First and further tokens.", LONG_BUCKETS_S, "profile"
        )
        self._first_s = histogram(
            names.METRIC_FIRST_TOKEN_SECONDS, "Time to the first token.", SHORT_BUCKETS_S, "profile"
        )
        self._token_s = histogram(
            names.METRIC_TOKEN_SECONDS,
            "Time between two tokens: the mean of each generation.",
            TOKEN_BUCKETS_S,
            "profile",
        )
        self._queue_s = histogram(
            names.METRIC_QUEUE_SECONDS, "Time waited for a replica.", SHORT_BUCKETS_S, "profile"
        )
        self._placements = counter(
            names.METRIC_PLACEMENTS, "Generations, by why they went to their replica.", "profile", "reason"
        )
        self._tokens = counter(names.METRIC_TOKENS, "Tokens, by kind.", "kind", "tenant", "profile")
        self._cost = counter(names.METRIC_COST_USD, "Money spent.", "tenant", "profile")
        self._gpu_s = counter(names.METRIC_GPU_SECONDS, "GPU-seconds billed.", "tenant", "profile")
        self._tool_calls = counter(names.METRIC_TOOL_CALLS, "Tool calls.", "tool", "cache", "error")
        self._tool_s = histogram(names.METRIC_TOOL_SECONDS, "Tool call time.", SHORT_BUCKETS_S, "tool")
        self._repairs = counter(
            names.METRIC_CALL_REPAIRS,
            "Generations with tool calls, by what had to be mended in them; kind none: nothing.",
            "profile",
            "kind",
            "handling",
        )
        self._begin()

    @contextmanager
    def under_way(self) -> Iterator[Standing]:
        """Within it, a run is under way here, accepted at first; it is told where the run stands."""
        now = RunState.ACCEPTED

        def moved(state: RunState) -> None:
            nonlocal now
            self._active.labels(now.value).dec()
            now = state
            self._active.labels(now.value).inc()

        self._active.labels(now.value).inc()
        try:
            yield moved
        finally:
            self._active.labels(now.value).dec()

    def refused(self, reason: str) -> None:
        """A request was not accepted."""
        self._refused.labels(self._refusals.of(reason)).inc()

    def run_ended(self, run: Run) -> None:
        """A run has reached its final state. Its ledger has all it spent, cut generations included."""
        ended_ms = run.ended_ms or run.spec.created_ms
        self._runs.labels(run.state.value, run.result.method.value if run.result else "").inc()
        self._run_s.labels(run.state.value).observe((ended_ms - run.spec.created_ms) / 1000)
        if run.result is not None and run.result.agreement.groups:
            self._agreement.observe(run.result.agreement.share)
        if run.ledger is not None:
            for name, spend in run.ledger.trajectories.items():
                self._spent(spend, self._tenants.of(run.spec.tenant), _profile_of(run.spec, name))
            self._run_usd.observe(run.ledger.total.cost_usd)
            for basis, ratio in premium_of(run.ledger).items():
                self._premium.labels(basis).observe(ratio)

    def record(self, record: Record, spec: RunSpec) -> None:
        """Count one record of an ended run's log."""
        match record.body:
            case GenerationRecord() as body:
                self._generation(body, _profile_of(spec, record.trajectory))
            case ToolResultRecord() as body:
                tool = self._tool_label(body.name)
                self._tool_calls.labels(tool, body.cache.value, str(body.is_error).lower()).inc()
                self._tool_s.labels(tool).observe(body.duration_s)
            case LifecycleRecord(event=Event.TRAJECTORY_ENDED, outcome=outcome) if outcome is not None:
                role = "aggregator" if record.trajectory == AGGREGATOR else "arm"
                reason, profile = self._reasons.of(outcome.reason), _profile_of(spec, record.trajectory)
                self._trajectories.labels(role, outcome.kind.value, reason, profile).inc()
            case LifecycleRecord(event=Event.NOTE, detail=note) if note.startswith(ARMS_ENDED):
                self._fanouts.labels(self._reasons.of(note.removeprefix(ARMS_ENDED))).inc()

    def timed(self, run: Run, timeline: Timeline) -> None:
        """Count where the time of an ended run went, from its whole log."""
        if timeline.queued_s is not None:
            self._run_queue_s.observe(timeline.queued_s)
        for part, seconds in timeline.path(run.ended_ms or run.spec.created_ms).items():
            self._path_s.labels(part.value).inc(seconds)
        for trajectory, seconds in timeline.steps:
            self._step_s.labels(_profile_of(run.spec, trajectory)).observe(seconds)

    def _tool_label(self, name: str) -> str:
        """The tool's name where it is configured; `server__*` for what else an MCP server offers."""
        known = (label for label in (name, f"{name.partition('__')[0]}__*") if label in self._tools)
        return next(known, UNKNOWN_TOOL)

    def _generation(self, body: GenerationRecord, profile: str) -> None:
        timing = body.timing
        self._generation_s.labels(profile).observe(timing.first_token_s + timing.decode_s)
        self._first_s.labels(profile).observe(timing.first_token_s)
        self._queue_s.labels(profile).observe(timing.queue_s)
        self._placements.labels(profile, self._placed.of(body.placed or "unknown")).inc()
        if (further := body.spend.tokens_output - 1) > 0:
            self._token_s.labels(profile).observe(timing.decode_s / further)
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

    def _begin(self) -> None:
        """Series that are expected begin at 0, so that the first run of a kind is seen as an increase."""
        for state in RunState:
            if state in FINAL_STATES:
                methods = AggregationMethod if state is RunState.COMPLETED else ("",)
                for method in methods:
                    self._runs.labels(state.value, str(method))
                self._run_s.labels(state.value)
            else:
                self._active.labels(state.value)
        for part in Part:
            self._path_s.labels(part.value)
        for reason in ("overloaded", "store_unavailable"):
            self._refused.labels(self._refusals.of(reason))
        for stopped in ("all_ended", "early_stop", "straggler", "deadline", "cancelled"):
            self._fanouts.labels(self._reasons.of(stopped))


def premium_of(ledger: Ledger) -> dict[str, float]:
    """What a run cost, aggregation and all, over what its median arm cost: the price of heavy mode.

    By `cost` where the median arm cost money, else by `tokens`; arms that spent nothing never began, and
    without any there is no premium.
    """
    arms = [s for name, s in ledger.trajectories.items() if name != AGGREGATOR and s.tokens > 0]
    if not arms:
        return {}
    if (usd := median(spend.cost_usd for spend in arms)) > 0:
        return {"cost": ledger.total.cost_usd / usd}
    return {"tokens": ledger.total.tokens / median(spend.tokens for spend in arms)}


def _profile_of(spec: RunSpec, trajectory: str) -> str:
    return spec.policy.members.profile_of(TrajectoryId(trajectory))


def _repair(name: str) -> Repair | None:
    """The repair of that name; None for one that this version does not know, as an older runner may write."""
    return _REPAIRS.get(name)
