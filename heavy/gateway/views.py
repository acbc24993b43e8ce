"""What the HTTP API shows of runs: at a glance and in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import median
from typing import Final

from heavy.core import clock
from heavy.core.files import FileRef
from heavy.core.ids import AGGREGATOR
from heavy.core.ledger import Ledger, Spend
from heavy.core.messages import Message, Role
from heavy.core.policy import Policy
from heavy.core.runs import AggregationMethod, Run, RunFailure, RunResult, RunState
from heavy.core.tools import ToolSpec
from heavy.profiles.schema import Profile

QUESTION_CHARS: Final = 300
ANSWER_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model as people know it: its profile's name, and its title with name and size."""

    profile: str
    title: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run at a glance. `median_arm` is what the arms spent at the median: what a single run costs."""

    run_id: str
    state: RunState
    question: str
    created_ms: int
    ended_ms: int | None
    deadline_ms: int
    width: int
    models: tuple[ModelView, ...]
    """Of the arms and the aggregator, each once."""
    simulated: bool
    records: int
    spend: Spend | None
    median_arm: Spend | None
    method: AggregationMethod | None
    agreement: float | None
    short_answer: str
    abstained: bool
    dissents: bool
    failure: str
    cancel_reason: str


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run in full, without its log. `now_ms` is the server's clock, for the times of a live run."""

    summary: RunSummary
    messages: tuple[Message, ...]
    policy: Policy
    caller_tools: tuple[ToolSpec, ...]
    """Those that the caller executed, as it declared them."""
    attached: bool
    request_id: str
    result: RunResult | None
    failure: RunFailure | None
    ledger: Ledger | None
    files: tuple[FileRef, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class RunList:
    """One page of runs, newest first. `next_page_token` is empty on the last."""

    runs: tuple[RunSummary, ...]
    next_page_token: str


def summary_of(run: Run, profiles: Mapping[str, Profile]) -> RunSummary:
    """A run at a glance."""
    spec, result = run.spec, run.result
    members = spec.policy.members
    return RunSummary(
        run_id=spec.run,
        state=run.state,
        question=_clip(_question(spec.messages), QUESTION_CHARS),
        created_ms=spec.created_ms,
        ended_ms=run.ended_ms,
        deadline_ms=spec.deadline_ms,
        width=spec.policy.width,
        models=tuple(model_of(n, profiles) for n in dict.fromkeys((*members.arms, members.aggregator))),
        simulated=spec.simulated,
        records=run.records,
        spend=run.ledger.total if run.ledger else None,
        median_arm=median_arm(run.ledger) if run.ledger else None,
        method=result.method if result else None,
        agreement=result.agreement.share if result else None,
        short_answer=_clip(result.short_answer or result.answer, ANSWER_CHARS) if result else "",
        abstained=result.abstained if result else False,
        dissents=bool(result and result.dissent),
        failure=run.failure.code if run.failure else "",
        cancel_reason=run.cancel_reason,
    )


def detail_of(run: Run, profiles: Mapping[str, Profile]) -> RunDetail:
    """A run in full."""
    spec = run.spec
    return RunDetail(
        summary=summary_of(run, profiles),
        messages=spec.messages,
        policy=spec.policy,
        caller_tools=spec.caller_tools,
        attached=spec.attached,
        request_id=spec.request_id,
        result=run.result,
        failure=run.failure,
        ledger=run.ledger,
        files=spec.files,
        now_ms=clock.now_ms(),
    )


def model_of(name: str, profiles: Mapping[str, Profile]) -> ModelView:
    """The model of a profile; one that this server no longer knows has only its name."""
    known = profiles.get(name)
    return ModelView(name, known.title if known else name, known.simulated if known else False)


def median_arm(ledger: Ledger) -> Spend | None:
    """What the arms spent at the median, kind by kind: the price of a single run, as metrics count it.

    Arms that spent nothing never began; without any there is no such price.
    """
    arms = [s for name, s in ledger.trajectories.items() if name != AGGREGATOR and s.tokens > 0]
    if not arms:
        return None
    middle = {kind.name: median(getattr(spend, kind.name) for spend in arms) for kind in fields(Spend)}
    return Spend(**{name: round(value) if name in _COUNTS else value for name, value in middle.items()})


_COUNTS: Final = ("tokens_prompt", "tokens_cached", "tokens_reasoning", "tokens_output", "tool_calls")


def _question(messages: tuple[Message, ...]) -> str:
    return next((m.content for m in reversed(messages) if m.role is Role.USER), "")


def _clip(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1].rstrip() + "…"
