"""A run as a story one can read: what was asked, what each trajectory thought, did and got, how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from heavy.cli import draw
from heavy.cli.plain import clipped, on_one_line, plain
from heavy.cli.view import RunView, ending_of
from heavy.core.files import FileRef, listed
from heavy.core.ids import RUN_LEVEL, TrajectoryId
from heavy.core.messages import Message
from heavy.core.records import (
    CHECKPOINT,
    Event,
    GenerationRecord,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    ToolIntentRecord,
    ToolResultRecord,
)
from heavy.core.runs import Run

TEXT_CHARS = 1_200
TOOL_CHARS = 800
INDENT = (0, 0, 0, 2)


class Story:
    """Tells a run from its record and its log. `full` leaves nothing out."""

    def __init__(self, run: Run, records: Sequence[Record], *, full: bool) -> None:
        self._run = run
        self._records = records
        self._full = full
        self._view = RunView()
        for record in records:
            self._view.apply(record)

    def whole(self, now_ms: int) -> Iterator[RenderableType]:
        """The question, every trajectory, the answer, the ledger."""
        yield from self.head(now_ms)
        for lane in self._view.ordered:
            yield from self.trajectory(lane.trajectory)
        yield Rule("the end" if self._run.state.final else "so far", style="dim")
        yield from self._notes(RUN_LEVEL)
        yield draw.ending(self._view)
        yield ledger(self._view)

    def head(self, now_ms: int) -> Iterator[RenderableType]:
        """Which run, what was asked, under which policy."""
        run, policy = self._run, self._run.spec.policy
        ended_ms = run.ended_ms or now_ms
        took = draw.span_text((ended_ms - run.spec.created_ms) / 1000)
        age = draw.span_text((now_ms - run.spec.created_ms) / 1000)
        yield Text.assemble((run.spec.run, "bold"), f"  {run.state.value}, asked {age} ago, took {took}")
        if run.spec.simulated:
            yield Text("What it says was made up by the simulated engine.", style="yellow")
        parts = [f"{policy.width} arms", f"quorum {policy.quorum}", policy.aggregation.value]
        parts.append("tools " + (", ".join(policy.tools) or "none"))
        if run.spec.caller_tools:
            parts.append("of the caller's own " + ", ".join(tool.name for tool in run.spec.caller_tools))
        if policy.budget.cost_usd_max is not None:
            parts.append(f"at most ${policy.budget.cost_usd_max:g}")
        yield Text(", ".join(parts), style="dim")
        for message in run.spec.messages:
            shown = clipped(message.content, self._chars(TEXT_CHARS))
            yield Text.assemble((f"{message.role.value:<11}", "bold"), shown)
        yield from _files("files      ", run.spec.files)

    def trajectory(self, name: TrajectoryId) -> Iterator[RenderableType]:
        """One trajectory, step by step, to its outcome."""
        lane = self._view.lanes[name]
        yield Rule(
            Text.assemble((name, "bold"), f"  {plain(lane.title)}" if lane.title else ""),
            align="left",
            style="dim",
        )
        step = -1
        for record in self._records:
            if record.trajectory != name:
                continue
            if record.step != step and record.step >= 0 and not isinstance(record.body, LifecycleRecord):
                step = record.step
                yield self._step_head(record)
            for part in self._told(record):
                yield Padding(part, INDENT)
        if lane.outcome is not None:
            outcome = lane.outcome
            reason = f" ({outcome.reason})" if outcome.reason else ""
            yield Text.assemble(
                (f"{outcome.kind.value}{reason}", draw.OUTCOME_STYLE[outcome.kind]),
                f"  {plain(outcome.detail)}" if outcome.detail else "",
                (f"  {outcome.spend.tokens_output:,} tokens, {draw.cost_text(outcome.spend)}", "dim"),
            )

    def _step_head(self, record: Record) -> Text:
        since_s = (record.at_ms - self._run.spec.created_ms) / 1000
        return Text.assemble((f"step {record.step}", "bold cyan"), (f"  at {since_s:.1f} s", "dim"))

    def _told(self, record: Record) -> Iterator[RenderableType]:
        match record.body:
            case GenerationRecord() as body:
                yield from self._message(body.message)
                yield Text(_generation_facts(body), style="dim")
            case PartialGenerationRecord(reason=reason) as body if reason != CHECKPOINT:
                yield from self._message(body.message)
                yield Text(f"broken off: {reason}, after about {body.tokens_output:,} tokens", style="yellow")
            case ToolIntentRecord(call=call):
                arguments = clipped(call.arguments, self._chars(TOOL_CHARS))
                yield Text.assemble(("→ ", "cyan"), (plain(call.name), "cyan"), f"  {arguments}")
            case ToolResultRecord() as body:
                style = "red" if body.is_error else "cyan"
                yield Text.assemble(
                    ("← ", style),
                    (f"{ending_of(body)}, {body.duration_s:.2f} s  ", style),
                    clipped(body.content.strip(), self._chars(TOOL_CHARS)),
                )
                yield from _files("files  ", body.files)
            case LifecycleRecord(event=Event.NOTE, detail=detail):
                yield Text(f"note: {plain(detail)}", style="yellow")

    def _message(self, message: Message) -> Iterator[RenderableType]:
        if message.reasoning.strip():
            yield Text(clipped(message.reasoning.strip(), self._chars(TEXT_CHARS)), style="dim italic")
        if message.content.strip():
            yield Text(clipped(message.content.strip(), self._chars(TEXT_CHARS)))

    def _notes(self, name: TrajectoryId) -> Iterator[RenderableType]:
        for record in self._records:
            if record.trajectory == name and isinstance(record.body, LifecycleRecord):
                yield from (self._told(record) if record.body.event is Event.NOTE else ())

    def _chars(self, most: int) -> int | None:
        return None if self._full else most


def ledger(view: RunView) -> RenderableType:
    """What each trajectory cost, and how it ended."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("ledger", no_wrap=True)
    for name in ("prompt", "cached", "reasoning", "output", "tools", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True, overflow="ellipsis")
    for lane in view.ordered:
        spend, outcome = lane.spend, lane.outcome
        table.add_row(
            lane.trajectory,
            *(f"{n:,}" for n in (spend.tokens_prompt, spend.tokens_cached, spend.tokens_reasoning)),
            f"{spend.tokens_output:,}",
            str(spend.tool_calls),
            draw.cost_text(spend),
            f"{outcome.kind.value} {on_one_line(outcome.reason, 40)}" if outcome else "under way",
        )
    return table


def _files(label: str, files: Sequence[FileRef]) -> Iterator[Text]:
    if files:
        yield Text.assemble((label, "bold"), plain(listed(files)))


def _generation_facts(body: GenerationRecord) -> str:
    spend, timing = body.spend, body.timing
    facts = [
        f"{spend.tokens_output:,} tokens",
        f"prompt {spend.tokens_prompt:,} ({spend.tokens_cached:,} cached)",
        f"waited {timing.queue_s:.1f} s, first token {timing.first_token_s:.1f} s, "
        f"rest {timing.decode_s:.1f} s",
        f"by {body.replica}",
    ]
    if body.repairs:
        facts.append(f"mended: {', '.join(body.repairs)}")
    if body.finish_reason.value not in ("stop", "tool_calls"):
        facts.append(f"ended by {body.finish_reason.value}")
    return ", ".join(facts)
