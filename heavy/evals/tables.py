"""A report as tables, for terminals, Markdown and the page alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heavy.evals.findings import CurvePoint, Decisions, Findings, Gains, Grouping, Price, Way
from heavy.evals.intervals import Estimate
from heavy.evals.report import NAMED_MAX, Report


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first column is words, the rest numbers. `note` says how to read it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables_of(report: Report) -> list[Table]:
    """All tables of a report, the most asked for first."""
    found = report.findings
    if found is None:
        return [_unscored(report)]
    tables = [
        _ways(found.ways),
        _gains(found.gains, found.width),
        _price(found.price),
        _decisions(found.decisions, found.width),
        _curve(found),
        _agreement(found),
        _methods(found),
        _arms(found),
        *(_grouping(grouping, found.width) for grouping in found.groups),
        _calibration(found),
        _unscored(report),
    ]
    return [table for table in tables if table.rows]


def summary(report: Report) -> str:
    """What was asked, and what there is no score for, in a sentence or two each."""
    asked = report.asked
    lines = [f"{asked.dataset} ({asked.layout}): {asked.questions} questions, {report.scored} scored."]
    lines += [f"{count} rows left out: {reason}." for reason, count in sorted(asked.skipped.items())]
    if report.missing or report.ungraded:
        lines.append(
            f"{report.missing} have no usable run and {report.ungraded} no verdict; they count neither way. "
            f"If heavy were wrong on all of them its accuracy would be {report.worst_case:.1%}."
        )
    if report.greedy_waiting:
        lines.append(
            f"The greedy baseline is left out: {report.greedy_waiting} questions are still to be asked "
            "for it."
        )
    if asked.simulated:
        lines.append(
            "SIMULATED: the answers are made up by the simulated engine; no figure here says anything."
        )
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """The whole report as Markdown; at a terminal it reads as it is."""
    parts = [summary(report), *map(_as_markdown, tables_of(report))]
    return "\n\n".join(parts) + "\n"


def _as_markdown(table: Table) -> str:
    cells = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]

    def line(row: Sequence[str]) -> str:
        first, *rest = (cell.replace("|", "\\|") for cell in row)
        aligned = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
        return "| " + " | ".join(aligned) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    note = f"\n\n{table.note}" if table.note else ""
    return "\n".join([f"### {table.title}", "", line(table.header), rule, *map(line, table.rows)]) + note


def share(one: Estimate | None) -> str:
    """A share in percent with its interval: "81.2 [77.0, 84.9]"."""
    return _interval(one, lambda x: f"{100 * x:.1f}")


def points(one: Estimate | None) -> str:
    """A difference of shares in points: "+6.2 [+3.1, +9.4]"."""
    return _interval(one, lambda x: f"{100 * x:+.1f}")


def times(one: Estimate | None) -> str:
    """A ratio: "9.4x [9.1, 9.8]"."""
    return _interval(one, lambda x: f"{x:.2f}", "x")


def _interval(one: Estimate | None, form: Callable[[float], str], unit: str = "") -> str:
    if one is None:
        return "-"
    if one.low is None or one.high is None:
        return f"{form(one.value)}{unit}"
    return f"{form(one.value)}{unit} [{form(one.low)}, {form(one.high)}]"


def money(usd: float) -> str:
    """US dollars, with enough digits for a fraction of a cent."""
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.3g}"


def count(number: float) -> str:
    """A mean of counts."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def cost(value: float, unit: str) -> str:
    """What is counted as cost, in its unit."""
    return money(value) if unit == "usd" else f"{count(value)} tokens"


def seconds(value: float) -> str:
    """Wall time."""
    return f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def _ways(ways: Sequence[Way]) -> Table:
    return Table(
        "Ways of answering, on the same trajectories",
        ("way", "right, % [95%]", "cost", "tokens", "out", "GPU s", "mean", "median", "p95"),
        tuple(
            (
                *(way.name, share(way.accuracy), money(way.cost_usd), count(way.tokens)),
                *(count(way.tokens_output), f"{way.gpu_seconds:.2f}", seconds(way.latency_s)),
                *(seconds(way.latency_median_s), seconds(way.latency_p95_s)),
            )
            for way in ways
        ),
        "Per question. single: the mean over arms, the standard mode. vote: the sum of the arms' costs, the "
        "slowest arm's latency. heavy: the run's ledger and wall time. any: right if any arm is, what a "
        "perfect choice would reach. Latencies were taken under the load of this evaluation.",
    )


def _gains(gains: Gains, n: int) -> Table:
    rows = [
        ("heavy over single", points(gains.heavy_over_single)),
        (f"heavy over vote@{n}", points(gains.heavy_over_vote)),
        (f"vote@{n} over single", points(gains.vote_over_single)),
        (f"any@{n} over vote@{n}", points(gains.any_over_vote)),
    ]
    if gains.heavy_over_greedy is not None:
        rows.append(("heavy over greedy", points(gains.heavy_over_greedy)))
    return Table(
        "Gains, paired by question",
        ("difference", "points [95%]"),
        tuple(rows),
        "Paired bootstrap over questions.",
    )


def _price(price: Price) -> Table:
    extra = price.cost_per_extra_right
    rows = (
        ("single, per question", cost(price.single, price.cost_unit)),
        ("heavy, per question", cost(price.heavy, price.cost_unit)),
        ("heavy premium (cost over single)", times(price.premium)),
        ("slowdown (latency over single)", times(price.slowdown)),
        (
            "one more right answer costs",
            "no gain to pay for" if extra is None else cost(extra, price.cost_unit),
        ),
        ("part of heavy spent on aggregation", f"{price.aggregation_share:.1%}"),
    )
    return Table("What the gain costs", ("", "value [95%]"), rows)


def _decisions(found: Decisions, n: int) -> Table:
    rows = (
        ("both right", str(found.both_right)),
        ("heavy right, vote wrong", str(found.heavy_alone_right)),
        ("vote right, heavy wrong", str(found.vote_alone_right)),
        ("both wrong", str(found.both_wrong)),
        ("heavy right where no arm was", str(found.right_where_no_arm_was)),
        ("heavy abstained", str(found.abstained)),
        (f"part of the gap vote@{n} to any@{n} won", share(found.gap_won)),
    )
    return Table(f"Heavy against vote@{n}", ("questions", "count"), rows)


def _curve(found: Findings) -> Table:
    unit = found.price.cost_unit

    def row(at: CurvePoint) -> tuple[str, ...]:
        heavy_cost = "-" if at.heavy_cost is None else cost(at.heavy_cost, unit)
        return (str(at.k), share(at.vote), share(at.any), cost(at.cost, unit), share(at.heavy), heavy_cost)

    return Table(
        "Accuracy against cost, by number of arms",
        ("k", "vote@k, %", "any@k, %", "cost of k arms", "heavy, %", "heavy's cost"),
        tuple(map(row, found.curve)),
        "vote@k and any@k are means over all subsets of k of the arms: unbiased for k fresh arms. heavy "
        f"below {found.width} arms: k of the same arms, drawn for each question, aggregated anew.",
    )


def _agreement(found: Findings) -> Table:
    return Table(
        "Agreement against correctness",
        ("arms that agree", "questions", f"vote@{found.width}, %", "heavy, %"),
        tuple(
            (f"{one.leading} of {found.width}", str(one.questions), share(one.vote), share(one.heavy))
            for one in found.agreement
        ),
    )


def _methods(found: Findings) -> Table:
    rows = tuple((m.method, str(m.questions), share(m.heavy), share(m.vote)) for m in found.methods)
    return Table("How runs answered", ("method", "questions", "heavy, %", f"vote@{found.width}, %"), rows)


def _arms(found: Findings) -> Table:
    return Table(
        "Each arm by itself",
        ("arm", "profile", "right, % [95%]", "cost", "tokens", "latency", "cut", "failed", "no answer"),
        tuple(
            (
                *(str(arm.arm), arm.profile, share(arm.accuracy), money(arm.cost_usd), count(arm.tokens)),
                *(seconds(arm.latency_s), str(arm.cut), str(arm.failed), str(arm.unanswered)),
            )
            for arm in found.arms
        ),
    )


def _grouping(grouping: Grouping, n: int) -> Table:
    greedy = any(row.greedy for row in grouping.rows)
    header = (
        *(", ".join(grouping.labels), "n", *(("greedy, %",) if greedy else ()), "single, %", f"vote@{n}, %"),
        *("heavy, %", f"any@{n}, %", "heavy-single", "heavy-vote"),
    )
    rows = tuple(
        (
            *(", ".join(row.values) or "-", str(row.questions), *((share(row.greedy),) if greedy else ())),
            *(share(row.single), share(row.vote), share(row.heavy), share(row.any)),
            *(points(row.heavy_over_single), points(row.heavy_over_vote)),
        )
        for row in grouping.rows
    )
    return Table(f"By {', '.join(grouping.labels)}", header, rows)


def _calibration(found: Findings) -> Table:
    rows = tuple(
        (name, f"{one.stated} of {one.answers}", f"{one.ece:.3f}", f"{one.rms:.3f}", f"{one.brier:.3f}")
        for name, one in sorted(found.calibration.items())
    )
    return Table("Calibration of stated confidences", ("way", "stated", "ECE", "RMS", "Brier"), rows)


def _unscored(report: Report) -> Table:
    total = report.missing + report.ungraded
    note = f"The first {NAMED_MAX} of {total}." if total > NAMED_MAX else ""
    rows = tuple((one.question, one.reason) for one in report.unscored)
    return Table("Questions without a score", ("question", "reason"), rows, note)
