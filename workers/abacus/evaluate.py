"""The offline evaluation: single, greedy, vote, heavy and any-of-8 on the same problems, with intervals.

`measure` writes one JSON line per problem as it goes, so that a run can be cut and its summary made again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from workers.abacus import answers
from workers.abacus.intervals import bootstrap, wilson
from workers.abacus.loops import Backend, Trajectory, aggregate, solve
from workers.abacus.prompting import LABELS, Candidate
from workers.abacus.tasks import Problem, Split, make_problem

ARMS = 8
CHUNK = 25
Row = dict[str, Any]


def vote(given: Sequence[str | None]) -> str | None:
    """The most frequent answer; a tie goes to the one given first."""
    counts = Counter(answer for answer in given if answer)
    return max(counts, key=lambda answer: counts[answer]) if counts else None


def shuffled(problem: Problem, arms: Sequence[Trajectory], seed: str) -> list[Candidate]:
    """The arms as anonymous candidates in an order of their own."""
    order = random.Random(seed).sample(list(arms), len(arms))
    return [
        Candidate(label, arm.answer, arm.thinking, "completed" if arm.answer else "failed")
        for label, arm in zip(LABELS, order, strict=False)
    ]


def measure(backend: Backend, family: str, level: int, split: Split, indices: Iterable[int]) -> list[Row]:
    """Every figure of the protocol for some problems of one family and level."""
    numbers = list(indices)
    problems = [make_problem(family, level, split, index) for index in numbers]
    sampled = solve(backend, [problem for problem in problems for _ in range(ARMS)], 1.0, 1 + numbers[0])
    greedy = solve(backend, problems, 0.0, 0)
    groups = [sampled[i : i + ARMS] for i in range(0, len(sampled), ARMS)]
    open_ones = [i for i, arms in enumerate(groups) if len({arm.answer for arm in arms}) > 1]
    sets = [
        (problems[i], shuffled(problems[i], groups[i], f"{family}/{level}/{numbers[i]}")) for i in open_ones
    ]
    settled = dict(zip(open_ones, aggregate(backend, sets), strict=True)) if sets else {}
    rows = []
    for i, (problem, arms) in enumerate(zip(problems, groups, strict=True)):
        voted = vote([arm.answer for arm in arms])
        heavy = settled[i][0] if i in settled else voted
        cited = {c.label: c.short_answer for c in shuffled(problem, arms, f"{family}/{level}/{numbers[i]}")}
        rows.append(
            {
                "family": family, "level": level, "index": numbers[i], "backend": backend.name,
                "single": sum(arm.right for arm in arms) / ARMS,
                "greedy": greedy[i].right,
                "vote": answers.is_right(voted, problem.answer),
                "heavy": answers.is_right(heavy, problem.answer),
                "any": any(arm.right for arm in arms),
                "dispute": i in settled,
                "cites_hold": i not in settled or all(cited.get(c) == heavy for c in settled[i][1]),
                "calls": sum(arm.calls for arm in (*arms, greedy[i])),
                "malformed": sum(arm.malformed for arm in (*arms, greedy[i])),
                "errors": sum(arm.errors for arm in (*arms, greedy[i])),
            }
        )  # fmt: skip
    return rows


def summarise(rows: Sequence[Row]) -> list[Row]:
    """One row per family, level and backend, with 95% intervals."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["family"], row["level"], row["backend"]), []).append(row)
    made = []
    for (family, level, backend), group in sorted(groups.items()):
        total = len(group)
        out: Row = {"family": family, "level": level, "backend": backend, "problems": total}
        singles = [row["single"] for row in group]
        out["single"] = (sum(singles) / total, *bootstrap(singles))
        for name in ("greedy", "vote", "heavy", "any"):
            hits = sum(row[name] for row in group)
            out[name] = (hits / total, *wilson(hits, total))
        gains = [float(row["heavy"]) - float(row["vote"]) for row in group]
        out["heavy_minus_vote"] = (sum(gains) / total, *bootstrap(gains))
        gap = out["any"][0] - out["vote"][0]
        out["share_of_gap"] = out["heavy_minus_vote"][0] / gap if gap > 0 else None
        out["dispute"] = sum(row["dispute"] for row in group) / total
        out["cites_hold"] = sum(row["cites_hold"] for row in group) / total
        calls, malformed = sum(row["calls"] for row in group), sum(row["malformed"] for row in group)
        out["calls"], out["errors"] = calls, sum(row["errors"] for row in group)
        out["well_formed"] = (1 - malformed / calls, *wilson(calls - malformed, calls)) if calls else None
        made.append(out)
    return made


def table(summary: Sequence[Row]) -> str:
    """The summary as Markdown."""

    def cell(value: tuple[float, float, float]) -> str:
        return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"

    lines = [
        "| family | level | problems | single | greedy | vote@8 | heavy | any-of-8 | heavy - vote | of gap |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summary:
        share = "-" if row["share_of_gap"] is None else f"{row['share_of_gap']:.2f}"
        cells = [cell(row[name]) for name in ("single", "greedy", "vote", "heavy", "any", "heavy_minus_vote")]
        lines.append(
            f"| {row['family']} | {row['level']} | {row['problems']} | {' | '.join(cells)} | {share} |"
        )
    return "\n".join(lines) + "\n"


def read(path: Path) -> list[Row]:
    """The rows written so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def backend_for(arguments: argparse.Namespace) -> Backend:
    """INT4 through OpenVINO, or a checkpoint or the bf16 weights through torch."""
    if arguments.int4:
        from workers.abacus.pipeline import OpenVinoBackend

        return OpenVinoBackend(arguments.int4, arguments.threads)
    import torch
    from tokenizers import Tokenizer

    from workers.abacus.sample import TorchBackend, load, load_safetensors

    torch.set_num_threads(arguments.threads)
    model = load_safetensors(arguments.bf16) if arguments.bf16 else load(arguments.checkpoint)
    files = arguments.bf16 or arguments.tokenizer
    return TorchBackend(model, Tokenizer.from_file(str(files / "tokenizer.json")))


def main() -> None:
    """Measure what `--plan` asks for: `family:level:problems` each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--int4", type=Path)
    parser.add_argument("--bf16", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--plan", nargs="+", required=True)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument(
        "--rows", type=Path, required=True, help="JSON lines, appended; finished problems are skipped"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    backend = backend_for(arguments)
    for plan in arguments.plan:
        family, level, total = plan.split(":")
        started = time.monotonic()
        known = {
            row["index"]
            for row in read(arguments.rows)
            if (row["family"], row["level"], row["backend"]) == (family, int(level), backend.name)
        }
        left = [index for index in range(int(total)) if index not in known]
        for start in range(0, len(left), CHUNK):
            rows = measure(backend, family, int(level), arguments.split, left[start : start + CHUNK])
            with arguments.rows.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        print(f"{plan}: {time.monotonic() - started:.0f} s", flush=True)
    print(table(summarise(read(arguments.rows))))


if __name__ == "__main__":
    main()
