"""The reflective pass: an aggregator trajectory over the question and the shuffled, anonymous candidates.

What it is shown first is each candidate's answer and the tail of its reasoning, cut and not summarised;
through trace tools it may open any transcript, so transcripts larger than its context are no obstacle.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from heavy.aggregation.answers import Reflection, short_answer
from heavy.core.ids import AGGREGATOR, TrajectoryId, derive_seed
from heavy.core.messages import Message, Role
from heavy.core.policy import Sampling
from heavy.core.records import (
    GenerationRecord,
    PartialGenerationRecord,
    RecordBody,
    ToolResultRecord,
)
from heavy.core.runs import (
    Citation,
    Outcome,
    RunSpec,
    TraceCandidate,
    TrajectoryRole,
    TrajectorySpec,
)
from heavy.profiles.schema import AggregationSection, Profile
from heavy.prompts import render
from heavy.store.api import RunLog
from heavy.store.reading import records_of
from heavy.tools.traces import GET_ANSWER, READ_SEGMENT, SEARCH_TRAJECTORY

LABELS = "ABCDEFGH"
TRACE_TOOLS = (GET_ANSWER, SEARCH_TRAJECTORY, READ_SEGMENT)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One outcome as the aggregator sees it."""

    label: str
    trajectory: TrajectoryId
    answer: str
    short_answer: str
    reasoning: str
    outcome: str


async def candidates_of(
    run: RunSpec, outcomes: Sequence[Outcome], log: RunLog, shown: AggregationSection
) -> list[Candidate]:
    """Usable outcomes in an order that depends on the run's seed alone, labelled A, B, ... in that order."""
    usable = sorted((o for o in outcomes if o.usable), key=lambda o: o.trajectory)
    random.Random(derive_seed(run.policy.seed, "shuffle")).shuffle(usable)
    tails = await reasoning_tails(run, log, shown)
    return [
        Candidate(label, o.trajectory, o.answer, short_answer(o.answer), tails.get(o.trajectory, ""), o.kind)
        for label, o in zip(LABELS, usable, strict=False)
    ]


async def reasoning_tails(run: RunSpec, log: RunLog, shown: AggregationSection) -> dict[TrajectoryId, str]:
    """The end of each trajectory's reasoning, with its tool calls and results if `shown` says so.

    Reads the log page by page and keeps only the tails, so eight transcripts of any length fit in memory.
    """
    tails: dict[TrajectoryId, str] = {}
    if not shown.reasoning_tail_chars:
        return tails
    async for record in records_of(log, run.run):
        text = thought_of(record.body, with_tools=shown.show_tools)
        if text and record.trajectory:
            tail = "\n".join(part for part in (tails.get(record.trajectory, ""), text) if part)
            tails[record.trajectory] = tail[-shown.reasoning_tail_chars :]
    return tails


def thought_of(body: RecordBody, *, with_tools: bool) -> str:
    """What a record shows of a trajectory's thinking; the visible text of its last turn is its answer."""
    match body:
        case GenerationRecord(message=message):
            parts = [message.reasoning, message.content if message.tool_calls else ""]
            if with_tools:
                parts += [f"[calls {call.name} {call.arguments}]" for call in message.tool_calls]
            return "\n".join(part.strip() for part in parts if part.strip())
        case PartialGenerationRecord(message=message, reason="cut"):
            return message.reasoning.strip()
        case ToolResultRecord(content=content) if with_tools:
            return f"[result] {content.strip()}"
        case _:
            return ""


def question_of(messages: Sequence[Message]) -> str:
    """The conversation as the aggregator reads it: the bare text of a single user turn, else turn by turn."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"[{message.role.value}]\n{message.content}" for message in messages)


def aggregator_spec(
    run: RunSpec, candidates: Sequence[Candidate], profile: Profile, *, epoch: int
) -> TrajectorySpec:
    """The trajectory that reads the candidates. Its sampling and its tools are the profile's to say."""
    prompt = render(
        profile,
        "aggregate",
        question=question_of(run.messages),
        candidates=list(candidates),
        tools=profile.aggregation.trace_tools,
    )
    preset = profile.sampling.aggregator
    budget = run.policy.budget
    return TrajectorySpec(
        run=run.run,
        trajectory=AGGREGATOR,
        role=TrajectoryRole.AGGREGATOR,
        tenant=run.tenant,
        profile=profile.name,
        messages=(Message(Role.USER, prompt),),
        tools=TRACE_TOOLS if profile.aggregation.trace_tools else (),
        sampling=Sampling(preset.temperature, preset.top_p, run.policy.seed),
        context_policy=profile.context_policy,
        context_keep_last=profile.context_keep_last,
        steps_max=min(budget.steps_per_trajectory_max, profile.limits.steps_max),
        tool_calls_max=None,
        reasoning_tokens_per_step_max=budget.reasoning_tokens_per_step_max,
        deadline_ms=run.deadline_ms,
        epoch=epoch,
        traceparent=run.traceparent,
        candidates=tuple(TraceCandidate(c.label, c.trajectory) for c in candidates),
    )


def citations_of(reflection: Reflection, candidates: Sequence[Candidate]) -> tuple[Citation, ...]:
    """The labels an aggregator cited, as trajectories and steps."""
    by_label = {candidate.label: candidate.trajectory for candidate in candidates}
    return tuple(Citation(by_label[cited.label], cited.step) for cited in reflection.cites)
