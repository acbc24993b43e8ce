"""The protocol's figures through the real service: heavy runs and greedy ones on the same problems.

Asks with `heavy.batch`, so a sitting that ends anywhere is gone on with by the same command. Without
`--server` a whole Heavy is started for it, as `heavy up` does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from heavy.batch.directory import read_log, read_results
from heavy.batch.questions import Question
from heavy.batch.results import BatchResult, latest
from heavy.batch.runner import Batch, BatchPlan
from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.draft import PolicyDraft
from heavy.core.ids import AGGREGATOR
from heavy.core.records import GenerationRecord, ToolResultRecord
from heavy.core.runs import AggregationMethod
from workers.abacus import answers
from workers.abacus.evaluate import ARMS, Row, summarise, table, vote
from workers.abacus.tasks import Problem, Split, distinct
from workers.local import LocalCluster, LocalPlan
from workers.shipped import LOCAL_PROFILE, PROFILE_DIRECTORIES

HEAVY = PolicyDraft(width=ARMS, quorum=ARMS, early_stop=False, tools=("python",))
GREEDY = PolicyDraft(width=1, temperature=0.0, tools=("python",))
PATIENCE_S = 600.0


def questions(problems: Iterable[tuple[int, Problem]]) -> list[Question]:
    """Each problem twice: as a heavy run, and as one greedy trajectory. Seeds follow from the index."""
    made: list[Question] = []
    for index, problem in problems:
        known = {"index": index, "answer": problem.answer}
        for kind, policy in (("heavy", HEAVY), ("greedy", GREEDY)):
            asked = Question.of_text(f"{kind}/{index}", problem.question, **known)
            made.append(replace(asked, policy=replace(policy, seed=1 + index)))
    return made


def rows(root: Path, family: str, level: int) -> list[Row]:
    """One row per problem of which both runs have answered, with the figures that `evaluate` summarises."""
    found = latest(read_results(root))
    made: list[Row] = []
    for name, result in found.items():
        kind, _, index = name.partition("/")
        greedy = found.get(f"greedy/{index}")
        if kind != "heavy" or greedy is None or not (result.answered and greedy.answered):
            continue
        made.append(_row(root, family, level, result, greedy))
    return made


def _row(root: Path, family: str, level: int, heavy: BatchResult, greedy: BatchResult) -> Row:
    truth = int(heavy.metadata["answer"])
    arms = [answers.extract(o.answer) for o in heavy.outcomes if o.trajectory != AGGREGATOR]
    given = dict(zip((o.trajectory for o in heavy.outcomes if o.trajectory != AGGREGATOR), arms, strict=True))
    calls, malformed, errors = _calls(root, (heavy, greedy))
    answer = answers.extract(heavy.answer)
    return {
        "family": family, "level": level, "index": heavy.metadata["index"], "backend": "service",
        "single": sum(answers.is_right(arm, truth) for arm in arms) / ARMS,
        "greedy": answers.is_right(answers.extract(greedy.answer), truth),
        "vote": answers.is_right(vote(arms), truth),
        "heavy": answers.is_right(answer, truth),
        "any": any(answers.is_right(arm, truth) for arm in arms),
        "dispute": heavy.method is AggregationMethod.REFLECTIVE,
        "cites_hold": all(given.get(c.trajectory) == answer for c in heavy.citations),
        "calls": calls, "malformed": malformed, "errors": errors,
        "arms": arms, "answer": answer, "truth": truth,
    }  # fmt: skip


def _calls(root: Path, results: Sequence[BatchResult]) -> tuple[int, int, int]:
    """Turns that called a tool, how many of them had anything to mend, and results that were errors."""
    calls = malformed = errors = 0
    for record in itertools.chain.from_iterable(read_log(root, result) for result in results):
        match record.body:
            case GenerationRecord(message=message, repairs=repairs) if message.tool_calls or repairs:
                calls += 1
                malformed += bool(repairs) or not all(_usable(call.arguments) for call in message.tool_calls)
            case ToolResultRecord(is_error=is_error):
                errors += is_error
    return calls, malformed, errors


def _usable(arguments: str) -> bool:
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return False
    return isinstance(parsed, dict) and isinstance(parsed.get("code"), str)


async def ask(
    address: str, plans: Sequence[tuple[str, int, int]], split: Split, root: Path, at_once: int
) -> None:
    """Ask what is planned and not yet answered, one family after the other."""
    async with HeavyClient(address, patience_s=PATIENCE_S) as client:
        for family, level, count in plans:
            asked = questions(itertools.islice(distinct(family, level, split), count))
            plan = BatchPlan(concurrency_max=at_once, logs=True, retry_failed=True)
            batch = Batch(client, asked, root / f"{family}-{level}", plan)
            task = asyncio.create_task(batch.run())
            while not task.done():
                await asyncio.wait((task,), timeout=10)
                at = batch.progress
                bar = "#" * int(30 * at.done / at.total)
                print(
                    f"{family} {level} [{bar:.<30}] {at.done}/{at.total} runs, {at.failed} failed", flush=True
                )
            print((await task).reason.value, flush=True)


@contextlib.asynccontextmanager
async def served(address: str) -> AsyncIterator[str]:
    """The address given, or that of a Heavy of our own."""
    if address:
        yield address
        return
    changes = {"profile_dirs": ":".join(PROFILE_DIRECTORIES), "port": 0, "http_port": 0}
    settings = Settings.read().model_copy(update=changes)
    cluster = LocalCluster(LocalPlan((LOCAL_PROFILE,)), settings, lambda *said: print(*said, flush=True))
    await cluster.start()
    try:
        yield f"{cluster.settings.host}:{cluster.settings.port}"
    finally:
        await cluster.stop()


async def measure(arguments: argparse.Namespace, plans: Sequence[tuple[str, int, int]]) -> None:
    """Bring up what is not given, and ask."""
    async with served(arguments.server) as address:
        await ask(address, plans, arguments.split, arguments.directory, arguments.at_once)


def main() -> None:
    """Ask what `--plan` says (`family:level:problems` each), then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", nargs="+", required=True)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--directory", type=Path, required=True, help="one batch per family and level")
    parser.add_argument("--server", default="", help="HOST:PORT of a Heavy that serves Abacus")
    parser.add_argument("--at-once", type=int, default=4, help="runs in flight")
    parser.add_argument("--only-table", action="store_true", help="ask nothing")
    arguments = parser.parse_args()
    plans = [(f, int(level), int(count)) for f, level, count in (p.split(":") for p in arguments.plan)]
    if not arguments.only_table:
        asyncio.run(measure(arguments, plans))
    found = [row for f, level, _ in plans for row in rows(arguments.directory / f"{f}-{level}", f, level)]
    arguments.directory.mkdir(parents=True, exist_ok=True)
    (arguments.directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    summary = summarise(found)
    print(table(summary))
    for out in summary:
        if out["calls"]:
            share, low, high = out["well_formed"]
            name = f"{out['family']} {out['level']}: {out['calls']} tool calls"
            print(f"{name}, well formed {share:.4f} [{low:.4f}, {high:.4f}], {out['errors']} errors")


if __name__ == "__main__":
    main()
