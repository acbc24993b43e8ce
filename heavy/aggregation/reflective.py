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
from heavy.core.records import GenerationRecord, PartialGenerationRecord
from heavy.core.runs import (
    Citation,
    Outcome,
    RunSpec,
    TraceCandidate,
    TrajectoryRole,
    TrajectorySpec,
)
from heavy.profiles.schema import Profile
from heavy.prompts import render
from heavy.store.api import RunLog
from heavy.tools.traces import GET_ANSWER, READ_SEGMENT, SEARCH_TRAJECTORY

LABELS = "ABCDEFGH"
PAGE_RECORDS = 256
PAGES_MAX = 4096
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
    run: RunSpec, outcomes: Sequence[Outcome], log: RunLog, tail_chars: int
) -> list[Candidate]:
    """Usable outcomes in an order that depends on the run's seed alone, labelled A, B, ... in that order."""
    usable = sorted((o for o in outcomes if o.usable), key=lambda o: o.trajectory)
    random.Random(derive_seed(run.policy.seed, "shuffle")).shuffle(usable)
    tails = await reasoning_tails(run, log, tail_chars)
    return [
        Candidate(
            label, o.trajectory, o.answer, short_answer(o.answer), tails.get(o.trajectory, ""), o.kind.value
        )
        for label, o in zip(LABELS, usable, strict=False)
    ]


async def reasoning_tails(run: RunSpec, log: RunLog, tail_chars: int) -> dict[TrajectoryId, str]:
    """The last `tail_chars` characters of each trajectory's reasoning, tool calls and results.

    Reads the log page by page and keeps only the tails, so eight transcripts of any length fit in memory.
    """
    tails: dict[TrajectoryId, str] = {}
    after = 0
    for _ in range(PAGES_MAX):
        page = await log.read(run.run, after=after, limit=PAGE_RECORDS)
        for record in page:
            text = _thought(record.body)
            if text and record.trajectory:
                tails[record.trajectory] = (tails.get(record.trajectory, "") + text)[-tail_chars or None :]
        if len(page) < PAGE_RECORDS:
            break
        after = page[-1].number
    return tails if tail_chars else {}


def _thought(body: object) -> str:
    match body:
        case GenerationRecord(message=message) | PartialGenerationRecord(message=message, reason="cut"):
            calls = "".join(f"\n[calls {call.name} {call.arguments}]" for call in message.tool_calls)
            spoken = message.content if message.tool_calls else ""
            return "\n".join(part for part in (message.reasoning, spoken) if part) + calls + "\n"
        case _:
            content = getattr(body, "content", "")
            return f"[result] {content}\n" if content else ""


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
