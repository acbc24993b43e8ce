"""Metrics count what records and ledgers say, under few labels whatever models make up."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from heavy.core.ids import AGGREGATOR, RUN_LEVEL, TrajectoryId, arm
from heavy.core.ledger import Ledger, Spend
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import Members
from heavy.core.records import (
    ARMS_ENDED,
    Event,
    GenerationRecord,
    GenerationTiming,
    LifecycleRecord,
    Record,
    RecordBody,
    ToolResultRecord,
)
from heavy.core.runs import (
    AggregationMethod,
    Agreement,
    AnswerGroup,
    Outcome,
    OutcomeKind,
    Run,
    RunResult,
    RunSpec,
    RunState,
)
from heavy.core.tools import CacheState
from heavy.telemetry import names
from heavy.telemetry.labels import OTHER, VALUES_MAX
from heavy.telemetry.metrics import UNKNOWN_TOOL, RunMetrics

from tests_support.domain import policy, run_spec

SPEC: RunSpec = run_spec(
    policy=policy(width=4, members=Members(("small", "large", "small", "large"), "judge"))
)

ARM = arm(0)


class Counted:
    """Metrics of a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = RunMetrics(self.registry, ("python", "search", "time__*"))

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def labels(self) -> set[str]:
        return {v for family in self.registry.collect() for s in family.samples for v in s.labels.values()}


@pytest.fixture
def counted() -> Counted:
    return Counted()


def record(body: RecordBody, trajectory: TrajectoryId = ARM) -> Record:
    return Record(1, trajectory, 0, 0, body)


def generation(model: str = "m") -> GenerationRecord:
    return GenerationRecord(
        message=Message(Role.ASSISTANT, "It is 42."),
        finish_reason=FinishReason.STOP,
        spend=Spend(tokens_prompt=10, tokens_output=5),
        replica="r",
        model=model,
        request_id="0",
        timing=GenerationTiming(0.5, 1.0, 2.0),
    )


def tool(name: str, *, is_error: bool = False) -> ToolResultRecord:
    return ToolResultRecord("c", name, "text", is_error, CacheState.HIT, 0.25)


def test_generations_are_timed_under_the_profile_that_served_them(counted: Counted) -> None:
    for trajectory in (arm(0), arm(1), AGGREGATOR):
        counted.metrics.record(record(generation(), trajectory), SPEC)
    for profile in ("small", "large", "judge"):
        assert counted.value(f"{names.METRIC_GENERATION_SECONDS}_sum", profile=profile) == 3.0
        assert counted.value(f"{names.METRIC_FIRST_TOKEN_SECONDS}_count", profile=profile) == 1
        assert counted.value(f"{names.METRIC_QUEUE_SECONDS}_sum", profile=profile) == 0.5


def test_broken_calls_are_counted_per_profile_by_kind_and_by_what_became_of_them(counted: Counted) -> None:
    called = Message(Role.ASSISTANT, tool_calls=(ToolCall("functions.f:0", "f", "{}"),))
    for message, repairs in (
        (called, ()),
        (called, ("json_repair", "id_replaced")),
        (called, ("constrained", "schema_mismatch")),
        (called, ("a kind of some later version",)),
        (Message(Role.ASSISTANT, "42"), ()),
    ):
        body = replace(generation(), message=message, repairs=repairs)
        counted.metrics.record(record(body), SPEC)
    count = f"{names.METRIC_CALL_REPAIRS}_total"
    for kind, handling in (
        ("none", "clean"),
        ("json_repair", "mended"),
        ("id_replaced", "mended"),
        ("schema_mismatch", "told"),
        ("constrained", "constrained"),
    ):
        assert counted.value(count, profile="small", kind=kind, handling=handling) == 1
    assert "a kind of some later version" not in counted.labels()


def test_tool_calls_are_counted_by_name_cache_state_and_failure(counted: Counted) -> None:
    counted.metrics.record(record(tool("python")), SPEC)
    counted.metrics.record(record(tool("python", is_error=True)), SPEC)
    counts = f"{names.METRIC_TOOL_CALLS}_total"
    assert counted.value(counts, tool="python", cache="hit", error="false") == 1
    assert counted.value(counts, tool="python", cache="hit", error="true") == 1
    assert counted.value(f"{names.METRIC_TOOL_SECONDS}_sum", tool="python") == 0.5


@given(st.lists(st.text(max_size=20), max_size=30))
def test_names_that_models_make_up_never_become_labels(made_up: list[str]) -> None:
    counted = Counted()
    for name in made_up:
        counted.metrics.record(record(tool(name)), SPEC)
        counted.metrics.record(record(generation(model=name)), SPEC)
    tools = {s.labels["tool"] for f in counted.registry.collect() for s in f.samples if "tool" in s.labels}
    assert tools <= {"python", "search", UNKNOWN_TOOL}
    assert "m" not in counted.labels()


def test_tools_that_a_server_offers_are_counted_under_the_server() -> None:
    counted = Counted()
    for name in ("time__now", "time__zone", "elsewhere__now"):
        counted.metrics.record(record(tool(name)), SPEC)
    counts = f"{names.METRIC_TOOL_CALLS}_total"
    assert counted.value(counts, tool="time__*", cache="hit", error="false") == 2
    assert counted.value(counts, tool=UNKNOWN_TOOL, cache="hit", error="false") == 1


def test_no_label_is_an_id_of_a_run_or_a_word_of_anybody(counted: Counted) -> None:
    for body in (generation("an engine's word"), tool("python"), tool("rm -rf")):
        counted.metrics.record(record(body), SPEC)
    outcome = Outcome(arm(0), OutcomeKind.CUT, "straggler", "a sentence", "an answer")
    counted.metrics.record(record(LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=outcome)), SPEC)
    counted.metrics.run_ended(_run(RunState.FAILED))
    text = generate_latest(counted.registry).decode()
    for word in (SPEC.run, "an engine's word", "rm -rf", "a sentence", "an answer", "arm-0"):
        assert word not in text


def test_trajectories_are_counted_by_role_outcome_reason_and_profile(counted: Counted) -> None:
    for trajectory, reason in ((arm(1), "straggler"), (AGGREGATOR, "")):
        outcome = Outcome(trajectory, OutcomeKind.CUT if reason else OutcomeKind.COMPLETED, reason)
        counted.metrics.record(
            record(LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=outcome), trajectory), SPEC
        )
    count = f"{names.METRIC_TRAJECTORIES}_total"
    assert counted.value(count, role="arm", outcome="cut", reason="straggler", profile="large") == 1
    assert counted.value(count, role="aggregator", outcome="completed", reason="", profile="judge") == 1


def test_what_a_run_spent_is_counted_from_its_ledger_cut_generations_included(counted: Counted) -> None:
    spend = Spend(100, 40, 20, 30, 2, 6.0, 0.5, 9.0)
    counted.metrics.run_ended(_run(RunState.COMPLETED, {arm(0): spend, AGGREGATOR: spend}))
    tokens = f"{names.METRIC_TOKENS}_total"
    for profile in ("small", "judge"):
        for kind, count in (("prompt", 100), ("cached", 40), ("reasoning", 20), ("output", 30)):
            assert counted.value(tokens, kind=kind, tenant="default", profile=profile) == count
        assert counted.value(f"{names.METRIC_COST_USD}_total", tenant="default", profile=profile) == 0.5
        assert counted.value(f"{names.METRIC_GPU_SECONDS}_total", tenant="default", profile=profile) == 6.0
    assert counted.value(f"{names.METRIC_RUNS}_total", state="completed", method="") == 1
    assert counted.value(f"{names.METRIC_RUN_SECONDS}_sum", state="completed") == 1.0


def test_runs_under_way_are_counted_in_the_state_they_are_in(counted: Counted) -> None:
    def active() -> list[float]:
        states = (RunState.ACCEPTED, RunState.RUNNING, RunState.AGGREGATING)
        return [counted.value(names.METRIC_RUNS_ACTIVE, state=state.value) for state in states]

    with counted.metrics.under_way() as one:
        assert active() == [1, 0, 0]
        one(RunState.RUNNING)
        with counted.metrics.under_way() as other:
            assert active() == [1, 1, 0]
            other(RunState.RUNNING)
            other(RunState.AGGREGATING)
            assert active() == [0, 1, 1]
        assert active() == [0, 1, 0]
    assert active() == [0, 0, 0]


def test_a_run_that_ends_by_an_error_is_under_way_no_more(counted: Counted) -> None:
    def run() -> None:
        with counted.metrics.under_way() as standing:
            standing(RunState.RUNNING)
            raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        run()
    assert counted.value(names.METRIC_RUNS_ACTIVE, state="running") == 0


def test_refusals_are_counted_and_reasons_that_are_made_up_end_at_a_bound(counted: Counted) -> None:
    counted.metrics.refused("overloaded")
    for number in range(1_000):
        counted.metrics.refused(f"reason-{number}")
    count = f"{names.METRIC_REFUSED}_total"
    assert counted.value(count, reason="overloaded") == 1
    reasons = {s.labels["reason"] for f in counted.registry.collect() for s in f.samples if s.name == count}
    assert len(reasons) == VALUES_MAX + 1
    assert counted.value(count, reason=OTHER) == 1_000 + 2 - VALUES_MAX


@pytest.mark.parametrize(
    ("arms_usd", "aggregator_usd", "basis", "premium"),
    [
        ((1.0, 2.0, 3.0), 2.0, "cost", 4.0),
        ((1.0, 1.0), 0.0, "cost", 2.0),
        ((0.0, 0.0), 0.0, "tokens", 3.0),
    ],
)
def test_the_premium_is_what_the_run_cost_over_its_median_arm(
    counted: Counted, arms_usd: tuple[float, ...], aggregator_usd: float, basis: str, premium: float
) -> None:
    spends = {arm(i): Spend(tokens_output=10, cost_usd=usd) for i, usd in enumerate(arms_usd)}
    never_began = {arm(3): Spend()}
    aggregator = {AGGREGATOR: Spend(tokens_output=10, cost_usd=aggregator_usd)}
    counted.metrics.run_ended(_run(RunState.COMPLETED, spends | never_began | aggregator))
    assert counted.value(f"{names.METRIC_PREMIUM}_sum", basis=basis) == premium
    assert counted.value(f"{names.METRIC_PREMIUM}_count", basis=basis) == 1


def test_agreement_is_that_of_runs_whose_arms_answered(counted: Counted) -> None:
    agreement = Agreement((AnswerGroup("42", (arm(0), arm(1))),), 0.625)
    result = RunResult("It is 42.", "42", AggregationMethod.VOTE, agreement)
    counted.metrics.run_ended(replace(_run(RunState.COMPLETED), result=result))
    counted.metrics.run_ended(_run(RunState.FAILED))
    assert counted.value(f"{names.METRIC_AGREEMENT}_sum") == 0.625
    assert counted.value(f"{names.METRIC_AGREEMENT}_count") == 1
    assert counted.value(f"{names.METRIC_RUNS}_total", state="completed", method="vote") == 1


def test_the_time_between_tokens_is_a_generations_mean_and_one_token_has_none(counted: Counted) -> None:
    counted.metrics.record(record(generation()), SPEC)
    single = replace(generation(), spend=Spend(tokens_prompt=10, tokens_output=1))
    counted.metrics.record(record(single), SPEC)
    assert counted.value(f"{names.METRIC_TOKEN_SECONDS}_sum", profile="small") == 2.0 / 4
    assert counted.value(f"{names.METRIC_TOKEN_SECONDS}_count", profile="small") == 1


def test_fan_outs_are_counted_by_why_no_more_was_waited(counted: Counted) -> None:
    for why in ("early_stop", "straggler", "early_stop"):
        note = LifecycleRecord(Event.NOTE, f"{ARMS_ENDED}{why}")
        counted.metrics.record(record(note, RUN_LEVEL), SPEC)
    count = f"{names.METRIC_FANOUTS}_total"
    assert counted.value(count, stopped="early_stop") == 2
    assert counted.value(count, stopped="straggler") == 1


def test_notes_and_changes_of_state_count_nothing(counted: Counted) -> None:
    before = generate_latest(counted.registry)
    for event in (Event.NOTE, Event.RUN_STATE, Event.TRAJECTORY_STARTED):
        counted.metrics.record(record(LifecycleRecord(event, "text"), RUN_LEVEL), SPEC)
    assert generate_latest(counted.registry) == before


def _run(state: RunState, trajectories: dict[TrajectoryId, Spend] | None = None) -> Run:
    named = {str(name): spend for name, spend in (trajectories or {}).items()}
    total = sum(named.values(), Spend())
    run = Run(SPEC, state, epoch=1, records=3, ledger=Ledger(total, named))
    return replace(run, ended_ms=SPEC.created_ms + 1_000)


SPENDS = st.builds(
    Spend,
    *([st.integers(0, 10_000)] * 5),
    # Multiples of 1/8 add up exactly in binary, so that sums may be compared with ==.
    *([st.integers(0, 10_000).map(lambda eighths: eighths / 8)] * 3),
)
LEDGERS = st.dictionaries(st.sampled_from([arm(0), arm(1), arm(2), AGGREGATOR]), SPENDS)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["ours", "theirs"]), LEDGERS), max_size=12))
def test_over_all_coordinators_metrics_add_up_to_the_ledgers_of_all_runs(
    runs: list[tuple[bool, str, dict[TrajectoryId, Spend]]],
) -> None:
    coordinators = Counted(), Counted()
    expected: dict[tuple[str, str, str], float] = defaultdict(float)
    for first, tenant, ledger in runs:
        run = _run(RunState.COMPLETED, ledger)
        run = replace(run, spec=replace(run.spec, tenant=tenant))
        coordinators[0 if first else 1].metrics.run_ended(run)
        for name, spend in ledger.items():
            profile = SPEC.policy.members.profile_of(name)
            expected["prompt", tenant, profile] += spend.tokens_prompt
            expected["output", tenant, profile] += spend.tokens_output
            expected["cost", tenant, profile] += spend.cost_usd
            expected["gpu", tenant, profile] += spend.gpu_seconds

    def total(name: str, **labels: str) -> float:
        return sum(counted.value(f"{name}_total", **labels) for counted in coordinators)

    for (what, tenant, profile), value in expected.items():
        where = {"tenant": tenant, "profile": profile}
        match what:
            case "cost":
                assert total(names.METRIC_COST_USD, **where) == value
            case "gpu":
                assert total(names.METRIC_GPU_SECONDS, **where) == value
            case kind:
                assert total(names.METRIC_TOKENS, kind=kind, **where) == value
    counts = [c.value(f"{names.METRIC_RUN_COST_USD}_count") for c in coordinators]
    assert sum(counts) == len(runs)
    costs = [c.value(f"{names.METRIC_RUN_COST_USD}_sum") for c in coordinators]
    assert sum(costs) == sum(spend.cost_usd for _, _, ledger in runs for spend in ledger.values())
