"""Drawing a run: lanes while it goes, a story when it has ended. Works on any width, light and dark."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from heavy.aggregation.answers import short_answer
from heavy.cli.plain import on_one_line, plain
from heavy.cli.view import Lane, RunView
from heavy.core.ids import AGGREGATOR
from heavy.core.ledger import Spend
from heavy.core.runs import AggregationMethod, OutcomeKind

NARROW_COLUMNS = 80
BAR_COLUMNS = 16
FACT_COLUMNS = 11
SAID_CHARS = 160
OTHERS_WIDE, OTHERS_NARROW = 66, 30
"""What the other columns of a lane take, about: the rest is for what it says."""
CHARS_PER_TOKEN = 4
"""A rule of thumb for text that no engine has counted yet."""

OUTCOME_STYLE = {OutcomeKind.COMPLETED: "green", OutcomeKind.CUT: "yellow", OutcomeKind.FAILED: "red"}
_METHOD = {
    AggregationMethod.VOTE: "by vote",
    AggregationMethod.REFLECTIVE: "by the reflective pass",
    AggregationMethod.SINGLE: "by the only arm that came to an answer",
}


def lanes(view: RunView, width: int, hint: str = "") -> RenderableType:
    """One lane a trajectory: steps, what it says now, tools, tokens, cost, outcome; a hint below."""
    wide = width >= NARROW_COLUMNS
    room = max(20, width - (OTHERS_WIDE if wide else OTHERS_NARROW))
    table = Table(box=None, pad_edge=False, expand=True, show_header=True, header_style="dim")
    table.add_column("trajectory", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
    if wide:
        table.add_column("tools", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    if wide:
        table.add_column("cost", justify="right", no_wrap=True)
    for lane in view.ordered:
        tools = [Text(tool_text(lane), style="cyan")] if wide else []
        cost = [cost_text(lane.spend)] if wide else []
        tokens = tokens_text(lane)
        table.add_row(lane.trajectory, str(lane.step + 1), doing(lane, room), *tools, tokens, *cost)
    named = (plain(title) for title in view.titles)
    head = Text.assemble(
        (view.state.value, "bold"), f"  {cost_text(view.spent)}  {view.run}  ", (", ".join(named), "dim")
    )
    head.truncate(width, overflow="ellipsis")
    return Group(head, table, *([Text(hint, style="bold")] if hint else []))


def doing(lane: Lane, room: int = SAID_CHARS) -> Text:
    """What a lane does now: its outcome, else the end of what it says, on one line of `room` columns."""
    if lane.outcome is not None:
        outcome = lane.outcome
        said = short_answer(outcome.answer) if outcome.usable else outcome.detail
        reason = f" ({outcome.reason})" if outcome.reason else ""
        ended = (f"{outcome.kind.value}{reason}", OUTCOME_STYLE[outcome.kind])
        return Text.assemble(ended, "  ", on_one_line(said, SAID_CHARS))
    said = on_one_line(lane.saying, len(lane.saying) + 1)
    return Text(said if len(said) <= room else f"…{said[1 - room :]}", style="dim")


def tokens_text(lane: Lane) -> str:
    """Output tokens so far; what is being generated is an estimate until the engine has counted it."""
    fresh = lane.fresh_chars // CHARS_PER_TOKEN
    return f"~{lane.spend.tokens_output + fresh:,}" if fresh else f"{lane.spend.tokens_output:,}"


def tool_text(lane: Lane) -> str:
    """How many calls, and what became of the last one."""
    return f"{lane.tool_calls} · {lane.tool}" if lane.tool else ""


def cost_text(spend: Spend) -> str:
    """Money, to the hundredth of a cent; GPU-seconds where nothing else is known."""
    if spend.cost_usd or not spend.gpu_seconds:
        return f"${spend.cost_usd:.4f}"
    return f"{spend.gpu_seconds:.1f} GPU-s"


def ending(view: RunView) -> RenderableType:
    """The answer with its agreement, dissent, evidence and cost; or why there is none."""
    title, text = answer(view)
    style = "green" if view.result else "red" if view.state.final else "cyan"
    panel = Panel(Text(text), title=title, border_style=style)
    told = (fact(name, said) for name, said in facts(view))
    return Group(panel, *agreement_lines(view), *told)


def ending_lines(view: RunView) -> Iterator[str]:
    """The same without frames, colours or a width: for pipes and files."""
    title, text = answer(view)
    yield f"{title}:"
    yield from text.splitlines()
    for line in agreement_lines(view):
        yield line.plain
    for name, said in facts(view):
        yield f"{name:<{FACT_COLUMNS}}{said}"


def answer(view: RunView) -> tuple[str, str]:
    """How the run was answered, and what; or how it ended, and why."""
    if not view.state.final:
        return view.state.value, "It has not ended yet: `heavy watch RUN` follows it."
    if view.result is None:
        failure = view.failure
        return view.state.value, plain(failure.message) if failure else f"The run is {view.state.value}."
    said = "The aggregator abstained." if view.result.abstained else plain(view.result.answer)
    return f"answer, {_METHOD[view.result.method]}", said


def agreement_lines(view: RunView) -> list[Text]:
    """One bar a group of equivalent answers."""
    groups = view.result.agreement.groups if view.result else ()
    arms = sum(len(group.arms) for group in groups)
    lines = []
    for index, group in enumerate(groups):
        share = len(group.arms) / arms
        bar = "█" * round(share * BAR_COLUMNS)
        name = "agreement  " if index == 0 else " " * 11
        lines.append(
            Text.assemble(
                (name, "bold"),
                (f"{bar:<{BAR_COLUMNS}} ", "green" if index == 0 else "yellow"),
                f"{len(group.arms)} of {arms}  {plain(group.answer)}",
            )
        )
    return lines


def fact(name: str, text: str) -> RenderableType:
    """A name and what there is to say of it; what does not fit goes on below itself, not below the name."""
    row = Table.grid(padding=0)
    row.add_column(width=FACT_COLUMNS, no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(Text(name, style="bold"), Text(text))
    return row


def facts(view: RunView) -> Iterator[tuple[str, str]]:
    """What else there is to know: dissent, evidence, what the run cost, and who spoke."""
    if view.result is not None and view.result.dissent:
        yield "dissent", plain(view.result.dissent)
    if view.result is not None and view.result.citations:
        yield (
            "evidence",
            ", ".join(
                c.trajectory + (f" step {c.step}" if c.step is not None else "")
                for c in sorted(view.result.citations, key=lambda cited: cited.trajectory)
            ),
        )
    spend = view.spent
    yield (
        "cost",
        f"{cost_text(spend)}, {spend.wall_s:.1f} s of model and tool time, {spend.tool_calls} tool calls",
    )
    yield (
        "tokens",
        f"{spend.tokens_prompt:,} prompt ({spend.tokens_cached:,} cached), "
        f"{spend.tokens_output:,} output ({spend.tokens_reasoning:,} reasoning)",
    )
    yield "model", plain(", ".join(view.titles)) or "none spoke"
    if view.run:
        yield "run", view.run


def lane_line(lane: Lane) -> str:
    """One plain line for a trajectory that has ended."""
    assert lane.outcome is not None
    what = "aggregator" if lane.trajectory == AGGREGATOR else lane.trajectory
    return (
        f"{what:<11}{doing(lane).plain}  [{lane.spend.tokens_output:,} tokens, {lane.tool_calls} tool calls]"
    )


def console(*, stderr: bool = False) -> Console:
    """A console that knows whether a person looks at it."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def span_text(seconds: float) -> str:
    """A stretch of time in its largest unit: 42 s, 7 min, 3 h, 2 d."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{max(0, int(seconds))} s"
