"""Metrics count what records and ledgers say, under few labels whatever models make up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from heavy.core.ids import AGGREGATOR, RUN_LEVEL, TrajectoryId, arm
from heavy.core.ledger import Ledger, Spend
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import Members
from heavy.core.records import (
    Event,
    GenerationRecord,
    GenerationTiming,
    LifecycleRecord,
    Record,
    RecordBody,
    ToolResultRecord,
)
from heavy.core.runs import Outcome, OutcomeKind, Run, RunSpec, RunState
from heavy.core.tools import CacheState
from heavy.telemetry import names
from heavy.telemetry.metrics import UNKNOWN_TOOL, RunMetrics

from tests_support.domain import policy, run_spec

SPEC: RunSpec = run_spec(policy=policy(width=2, members=Members(("small", "large"), "judge")))

ARM = arm(0)


class Counted:
    """Metrics of a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = RunMetrics(self.registry, ("python", "search"))

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
        assert counted.value(f"{names.METRIC_STEP_SECONDS}_sum", profile=profile) == 3.0
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


def test_no_label_is_an_id_of_a_run_or_a_word_of_anybody(counted: Counted) -> None:
    for body in (generation("an engine's word"), tool("python"), tool("rm -rf")):
        counted.metrics.record(record(body), SPEC)
    outcome = Outcome(arm(0), OutcomeKind.CUT, "straggler", "a sentence", "an answer")
    counted.metrics.record(record(LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=outcome)), SPEC)
    counted.metrics.run_ended(_run(RunState.FAILED), 1.0)
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
    counted.metrics.run_ended(_run(RunState.COMPLETED, {arm(0): spend, AGGREGATOR: spend}), 12.0)
    tokens = f"{names.METRIC_TOKENS}_total"
    for profile in ("small", "judge"):
        for kind, count in (("prompt", 100), ("cached", 40), ("reasoning", 20), ("output", 30)):
            assert counted.value(tokens, kind=kind, tenant="default", profile=profile) == count
        assert counted.value(f"{names.METRIC_COST_USD}_total", tenant="default", profile=profile) == 0.5
        assert counted.value(f"{names.METRIC_GPU_SECONDS}_total", tenant="default", profile=profile) == 6.0
    assert counted.value(f"{names.METRIC_RUNS}_total", state="completed", method="") == 1
    assert counted.value(f"{names.METRIC_RUN_SECONDS}_sum", state="completed") == 12.0


def test_runs_under_way_come_and_go_and_refusals_are_counted(counted: Counted) -> None:
    counted.metrics.run_started()
    counted.metrics.run_started()
    counted.metrics.run_left()
    counted.metrics.refused("overloaded")
    assert counted.value(names.METRIC_RUNS_ACTIVE) == 1
    assert counted.value(f"{names.METRIC_REFUSED}_total", reason="overloaded") == 1


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
