"""A batch on the screen: a bar that says rate, cost and time left; plain lines where nobody watches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from heavy.batch.results import BatchResult
from heavy.batch.runner import Progress
from heavy.batch.summary import BatchSummary, Distribution
from heavy.cli import draw
from heavy.cli.live import steady
from heavy.cli.plain import on_one_line
from heavy.core import clock

REFRESH_PER_S: Final = 4
LINE_EVERY_S: Final = 10.0
ANSWER_CHARS: Final = 60

Read = Callable[[], Progress]


class Screen:
    """Shows a sitting while `showing`: a bar below the results at a terminal, lines in a pipe, or nothing.

    `aside` keeps standard output free for something else: everything goes to standard error.
    """

    def __init__(self, *, quiet: bool, aside: bool = False) -> None:
        self._console = draw.console(stderr=aside)
        self._quiet = quiet
        self._lines = sys.stderr if quiet or aside else sys.stdout
        self._read: Read | None = None
        self._line_due_s = 0.0

    @contextlib.contextmanager
    def showing(self, read: Read) -> Iterator[None]:
        """Around a sitting; `read` says where it stands."""
        self._read = read
        self._line_due_s = clock.monotonic_s() + LINE_EVERY_S
        if self._quiet or not self._console.is_terminal:
            yield
            return
        with steady(self._console, lambda columns: bar(read(), columns), refresh_per_second=REFRESH_PER_S):
            yield

    def result(self, result: BatchResult) -> None:
        """One more ended."""
        if self._quiet:
            return
        self.say(result_text(result))
        now_s = clock.monotonic_s()
        if self._read is not None and not self._console.is_terminal and now_s >= self._line_due_s:
            self._line_due_s = now_s + LINE_EVERY_S
            self.say(progress_text(self._read()))

    def say(self, text: str | Text) -> None:
        """A line above the bar, at once: whoever reads a job's log reads it now."""
        if self._console.is_terminal:
            self._console.print(text, no_wrap=True, overflow="ellipsis")
        else:
            self._lines.write(f"{text}\n")
            self._lines.flush()


def result_text(result: BatchResult) -> Text:
    """One ended question on one line."""
    price = f"{draw.cost_text(result.spend)}, {result.latency_s:.1f} s"
    if not result.answered:
        reason = f"{result.failure.code}: {result.failure.message}" if result.failure else ""
        return Text.assemble(
            f"{result.id}  ", (result.state.value, "red"), f"  {on_one_line(reason, ANSWER_CHARS)}  [{price}]"
        )
    said = "(abstained)" if result.abstained else on_one_line(result.short_answer, ANSWER_CHARS)
    share = f"{result.agreement.share:.0%} agree, " if result.agreement and result.agreement.groups else ""
    return Text.assemble(f"{result.id}  ", (said, "bold"), (f"  [{share}{price}]", "dim"))


def progress_text(progress: Progress) -> str:
    """Where a batch stands, on one line."""
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    return (
        f"-- {progress.done:,} of {progress.total:,}{failed}, {progress.out} out, {rate_text(progress)}, "
        f"${progress.cost_usd:.4f}, {left_text(progress)}"
    )


def bar(progress: Progress, width: int) -> RenderableType:
    """The bar and what goes with it, on any width."""
    failed = (f", {progress.failed:,} failed", "red") if progress.failed else ""
    counts = Text.assemble((f"{progress.done:,}", "bold"), f" of {progress.total:,}", failed)
    facts = Text.assemble(
        f"{progress.out} out",
        (f" (at most {progress.limit})", "dim"),
        f"  {rate_text(progress)}  ${progress.cost_usd:.4f}  {left_text(progress)}",
    )
    drawn = ProgressBar(total=max(1, progress.total), completed=progress.done)
    if width < draw.NARROW_COLUMNS:
        return Group(Text(""), counts, facts, drawn)
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    row.add_row(counts, drawn, facts)
    return Group(Text(""), row)


def rate_text(progress: Progress) -> str:
    """Questions a second or a minute, whichever is readable."""
    per_s = progress.per_s
    return f"{per_s:.1f}/s" if per_s >= 1 else f"{per_s * 60:.1f}/min"


def left_text(progress: Progress) -> str:
    """How long it will take at this rate."""
    left_s = progress.left_s
    if left_s is None:
        return "time left unknown"
    minutes, seconds = divmod(round(left_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left"


def summary_text(summary: BatchSummary) -> str:
    """A summary for a terminal; everything else is in its files."""
    lines = [
        f"{summary.answered:,} of {summary.questions:,} answered, {summary.failed:,} failed, "
        f"{summary.unasked:,} without a result yet, {summary.abstained:,} abstained"
    ]
    if summary.simulated:
        lines.append("Some answers were made up by the simulated engine.")
    if summary.answered:
        lines += [
            _distribution("agreement", summary.agreement, "{:.2f}"),
            _distribution("cost, US$", summary.cost_usd, "{:.4f}"),
            _distribution("latency, s", summary.latency_s, "{:.1f}"),
            _distribution("tokens", summary.tokens, "{:,.0f}"),
        ]
    lines += [
        f"failed      {kind.count:,} x {kind.code}: {on_one_line(kind.message, ANSWER_CHARS)} "
        f"({', '.join(kind.ids)}{', ...' if kind.count > len(kind.ids) else ''})"
        for kind in summary.failures
    ]
    if summary.failures:
        lines.append("            ask them again with --retry-failed")
    lines.append(f"in all      ${summary.spend.cost_usd:.4f}, {summary.spend.tokens:,} tokens")
    return "\n".join(lines)


def _distribution(name: str, of: Distribution, form: str) -> str:
    shown = ("mean", of.mean), ("p10", of.p10), ("median", of.p50), ("p90", of.p90), ("max", of.max)
    return f"{name:<12}" + "  ".join(f"{what} {form.format(value)}" for what, value in shown)
