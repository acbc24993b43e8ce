"""Whole runs written into a store as runners and coordinators would have: what the web page is tested on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import redis

from heavy.core import clock
from heavy.core.codec import dump
from heavy.core.files import FileRef
from heavy.core.ids import AGGREGATOR, RUN_LEVEL, RunId, TrajectoryId, arm
from heavy.core.ledger import NOTHING_SPENT, Ledger, Spend
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.records import (
    Entry,
    Event,
    GenerationRecord,
    GenerationTiming,
    LifecycleRecord,
    RecordBody,
    ToolIntentRecord,
    ToolResultRecord,
)
from heavy.core.runs import (
    AggregationMethod,
    Agreement,
    AnswerGroup,
    Citation,
    Outcome,
    OutcomeKind,
    RunFailure,
    RunResult,
    RunSpec,
    RunState,
)
from heavy.core.tools import CacheState, Effects
from heavy.store.api import Ending, Store
from heavy.store.keys import LIVE, RunKeys, index_member, tenant_key
from heavy.store.runs import ending_fields_of, fields_of

from tests_support.domain import policy, run_spec

TITLE: Final = "Simulated engine (no model; answers are made up)"
LEASE_S: Final = 3_600.0
THOUGHT: Final = (
    "Let me set this up carefully. The sum runs over all residues, so pairing each term with its inverse"
    " leaves only the two fixed points. Checking the small cases by hand first: n = 3 gives 2, n = 5 gives 4."
    " That agrees with the claim, so the general argument should go through. "
)


@dataclass
class Telling:
    """One trajectory as it is written down: time goes on with every step."""

    name: TrajectoryId
    at_ms: int
    chance: random.Random
    entries: list[Entry] = field(default_factory=list)
    spend: Spend = NOTHING_SPENT
    steps: int = 0

    def start(self) -> Telling:
        """It begins."""
        return self._add(-1, LifecycleRecord(Event.TRAJECTORY_STARTED, TITLE, profile="simulated"))

    def step(
        self, reasoning: str, content: str = "", *, code: str = "", output: str = "", **tool: object
    ) -> Telling:
        """A generation, and where `code` is given the call it makes."""
        timing = GenerationTiming(
            queue_s=self.chance.choice((0.0, 0.02, 0.4)),
            first_token_s=self.chance.uniform(0.05, 0.3),
            decode_s=self.chance.uniform(0.4, 2.5),
        )
        self.at_ms += round(1000 * (timing.queue_s + timing.first_token_s + timing.decode_s))
        calls = (ToolCall(f"functions.python:{self.steps}", "python", dump_code(code)),) if code else ()
        out = 20 + len(reasoning + content) // 4
        spent = Spend(
            tokens_prompt=900 + 120 * self.steps,
            tokens_cached=800 + 110 * self.steps,
            tokens_reasoning=len(reasoning) // 4,
            tokens_output=out,
            cost_usd=(900 + 120 * self.steps + 4 * out) / 1e6,
            wall_s=timing.queue_s + timing.first_token_s + timing.decode_s,
        )
        body = GenerationRecord(
            message=Message(Role.ASSISTANT, content, reasoning, calls),
            finish_reason=FinishReason.TOOL_CALLS if calls else FinishReason.STOP,
            spend=spent,
            replica="simulated-0",
            model="simulated",
            request_id="0",
            timing=timing,
        )
        self._add(self.steps, body)
        self.spend += spent
        if calls:
            self._call(calls[0], output, **tool)
        self.steps += 1
        return self

    def _call(
        self,
        call: ToolCall,
        output: str,
        cache: CacheState = CacheState.MISS,
        is_error: bool = False,
        files: tuple[FileRef, ...] = (),
    ) -> None:
        duration_s = 0.002 if cache is CacheState.HIT else self.chance.uniform(0.1, 0.9)
        self._add(self.steps, ToolIntentRecord(call, Effects.PURE))
        self.at_ms += round(1000 * duration_s)
        result = ToolResultRecord(call.id, call.name, output, is_error, cache, duration_s, files=files)
        self._add(self.steps, result)
        self.spend += Spend(tool_calls=1, wall_s=duration_s)

    def end(
        self, answer: str, kind: OutcomeKind = OutcomeKind.COMPLETED, reason: str = "", detail: str = ""
    ) -> Outcome:
        """It ends."""
        self.at_ms += 20
        outcome = Outcome(self.name, kind, reason, detail, answer, self.steps, self.spend, "simulated")
        self._add(-1, LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=outcome, profile="simulated"))
        return outcome

    def _add(self, step: int, body: RecordBody) -> Telling:
        self.entries.append(Entry(self.name, step, body, self.at_ms))
        return self


def dump_code(code: str) -> str:
    """The arguments of a python call."""
    return dump({"code": code}).decode()


def lane(index: int, created_ms: int, seed: int) -> Telling:
    """An arm that begins shortly after its run."""
    return Telling(arm(index), created_ms + 60 + 7 * index, random.Random(seed * 100 + index)).start()


def spec_at(text: str, created_ms: int, width: int = 8, **changes: object) -> RunSpec:
    """A run created at that time, whose id says so."""
    digits = f"{created_ms:012x}{random.Random(created_ms).getrandbits(48):012x}"
    return run_spec(
        text,
        run=RunId(f"run-{digits}"),
        created_ms=created_ms,
        deadline_ms=created_ms + 600_000,
        simulated=True,
        policy=policy(width),
        **changes,
    )


def in_order(tellings: Sequence[Telling]) -> list[Entry]:
    """All their entries by time, as a log has them."""
    return sorted((entry for one in tellings for entry in one.entries), key=lambda entry: entry.at_ms)


async def write(
    store: Store, spec: RunSpec, entries: Sequence[Entry], ending: Ending | None = None, moved: int = 0
) -> RunSpec:
    """Create the run, append its entries, and end it where an ending is given."""
    await store.log.create(spec, owner="histories", lease_s=LEASE_S)
    running = _state(RunState.RUNNING, spec.created_ms + moved + 30)
    await store.log.transition(spec.run, epoch=1, state=RunState.RUNNING, entry=running)
    for start in range(0, len(entries), 500):
        await store.log.append(spec.run, epoch=1, entries=entries[start : start + 500])
    if ending is not None:
        body = LifecycleRecord(
            Event.RUN_STATE,
            state=ending.state,
            result=ending.result,
            failure=ending.failure,
            ledger=ending.ledger,
        )
        last = Entry(RUN_LEVEL, -1, body, ending.ended_ms)
        await store.log.finish(spec.run, epoch=1, ending=ending, entry=last)
    return spec


def _state(state: RunState, at_ms: int) -> Entry:
    return Entry(RUN_LEVEL, -1, LifecycleRecord(Event.RUN_STATE, state=state), at_ms)


def ledger_of(outcomes: Sequence[Outcome]) -> Ledger:
    """What trajectories with these outcomes spent."""
    trajectories = {str(outcome.trajectory): outcome.spend for outcome in outcomes}
    return Ledger(sum(trajectories.values(), NOTHING_SPENT), trajectories)


CODE: Final = "import sympy\nn = sympy.symbols('n')\nprint(sympy.summation(n**2, (n, 1, 24)))"


def _worker(index: int, created_ms: int, answer: str, seed: int) -> tuple[Telling, Outcome]:
    told = lane(index, created_ms, seed)
    cache = (CacheState.MISS, CacheState.COALESCED, CacheState.HIT, CacheState.HIT)[index % 4]
    told.step(THOUGHT, "I will compute it.", code=CODE, output="4900\n", cache=cache)
    if index % 3 == 0:
        told.step(THOUGHT * 2, code="print(1/0)", output="ZeroDivisionError: division by zero", is_error=True)
    told.step(THOUGHT * 3, f"So it is a perfect square.\nAnswer: {answer}")
    return told, told.end(f"So it is a perfect square.\nAnswer: {answer}")


async def reflective(store: Store, created_ms: int) -> RunSpec:
    """A completed run of eight arms, one cut and one failed, that ends in reflection with dissent."""
    spec = spec_at("For which n is 1² + 2² + … + n² a perfect square? Give the largest.", created_ms)
    answers = ["24", "24", "70", "70", "70", "24"]
    told = [_worker(index, created_ms, answer, 1) for index, answer in enumerate(answers)]
    late = (
        lane(6, created_ms, 1).step(THOUGHT, code=CODE, output="4900\n").step(THOUGHT * 2, "Still checking…")
    )
    broken = lane(7, created_ms, 1).step(THOUGHT)
    outcomes = [outcome for _, outcome in told]
    outcomes.append(
        late.end("", OutcomeKind.CUT, "straggler_grace", "Quorum was reached and its grace is over.")
    )
    lost = "The replica simulated-1 went silent for 120 s."
    outcomes.append(broken.end("", OutcomeKind.FAILED, "engine_timeout", lost))
    tellings = [one for one, _ in told] + [late, broken]
    over_ms = max(one.at_ms for one in tellings) + 40
    reflection = Telling(AGGREGATOR, over_ms + 30, random.Random(9)).start()
    reflection.step(THOUGHT * 2, code="read_segment('B', 0, 800)", output="… 1² + … + 24² = 4900 = 70² …")
    said = "The candidates who say 70 took the root for n. 4900 = 70² is reached at n = 24."
    outcomes.append(reflection.step(THOUGHT, f"{said}\nAnswer: 24").end(f"{said}\nAnswer: 24"))
    note = Entry(RUN_LEVEL, -1, LifecycleRecord(Event.NOTE, detail="arms_ended: straggler_grace"), over_ms)
    state = _state(RunState.AGGREGATING, over_ms + 1)
    result = RunResult(
        answer=said,
        short_answer="24",
        method=AggregationMethod.REFLECTIVE,
        agreement=Agreement(
            (AnswerGroup("70", (arm(2), arm(3), arm(4))), AnswerGroup("24", (arm(0), arm(1), arm(5)))), 0.5
        ),
        citations=(
            Citation(arm(1), 0, "computes the sum at n = 24"),
            Citation(arm(5), 1, "checks that no larger n works"),
            Citation(arm(0)),
        ),
        dissent="Departs from the largest group (3 arms answered 70): they gave the root, not n.",
    )
    entries = in_order([*tellings, reflection])
    entries = sorted([*entries, note, state], key=lambda entry: entry.at_ms)
    ended_ms = reflection.at_ms + 35
    ending = Ending(RunState.COMPLETED, result, None, ledger_of(outcomes), ended_ms)
    return await write(store, spec, entries, ending)


async def voted(
    store: Store, created_ms: int, text: str = "What is 6 times 7?", answer: str = "42"
) -> RunSpec:
    """A completed run of four arms that agree."""
    spec = spec_at(text, created_ms, width=4)
    told = [_worker(index, created_ms, answer, 2) for index in range(4)]
    outcomes = [outcome for _, outcome in told]
    result = RunResult(
        answer=outcomes[0].answer,
        short_answer=answer,
        method=AggregationMethod.VOTE,
        agreement=Agreement((AnswerGroup(answer, tuple(map(arm, range(4)))),), 1.0),
        citations=tuple(Citation(arm(index)) for index in range(4)),
    )
    ended_ms = max(one.at_ms for one, _ in told) + 30
    ending = Ending(RunState.COMPLETED, result, None, ledger_of(outcomes), ended_ms)
    return await write(store, spec, in_order([one for one, _ in told]), ending)


async def ended_without_answer(store: Store, created_ms: int, state: RunState) -> RunSpec:
    """A run that failed, or was cancelled, with each arm's own reason."""
    spec = spec_at("Prove or refute that every even number above 2 is a sum of two primes.", created_ms, 4)
    tellings = [lane(index, created_ms, 3).step(THOUGHT) for index in range(4)]
    cancelled = state is RunState.CANCELLED
    kind, reason = (OutcomeKind.CUT, "cancelled") if cancelled else (OutcomeKind.FAILED, "engine_unavailable")
    detail = "" if cancelled else "No replica of profile simulated is ready."
    outcomes = tuple(one.end("", kind, reason, detail) for one in tellings)
    message = "Changed my mind." if cancelled else "No trajectory came to an answer that could be used."
    failure = RunFailure("cancelled" if cancelled else "no_usable_outcome", message, outcomes)
    ended_ms = max(one.at_ms for one in tellings) + 30
    ending = Ending(state, None, failure, ledger_of(outcomes), ended_ms)
    return await write(store, spec, in_order(tellings), ending)


async def under_way(store: Store, created_ms: int, text: str = "How many primes are below 10⁶?") -> RunSpec:
    """A run of eight arms that goes on."""
    spec = spec_at(text, created_ms)
    tellings = []
    for index in range(8):
        told = lane(index, created_ms, 4)
        for number in range(1 + index % 3):
            told.step(THOUGHT, code=f"print({number})", output=f"{number}\n", cache=CacheState.MISS)
        tellings.append(told)
    tellings[3].end("Answer: 78498")
    return await write(store, spec, in_order(tellings))


async def long_run(
    store: Store, created_ms: int, width: int = 8, steps: int = 300, chars: int = 2_000
) -> RunSpec:
    """A completed run of `width` arms with `steps` steps each, every step with a tool call and some text."""
    spec = spec_at("Search for the counterexample, and do not stop early.", created_ms, width)
    tellings, outcomes = [], []
    thought = THOUGHT * (chars // len(THOUGHT) + 1)
    states = (CacheState.HIT, CacheState.MISS, CacheState.COALESCED, CacheState.BYPASS)
    for index in range(width):
        told = lane(index, created_ms, 5)
        for number in range(steps - 1):
            told.step(
                f"Step {number + 1}. {thought}",
                code=f"check({number})",
                output=f"nothing at {number}\n",
                cache=states[(number + index) % 4],
            )
        outcomes.append(told.step(thought, "There is none.\nAnswer: none").end("Answer: none"))
        tellings.append(told)
    result = RunResult(
        "There is none.",
        "none",
        AggregationMethod.VOTE,
        Agreement((AnswerGroup("none", tuple(map(arm, range(width)))),), 1.0),
        (Citation(arm(0), steps - 1), Citation(arm(width - 1), steps // 2)),
    )
    ended_ms = max(one.at_ms for one in tellings) + 30
    ending = Ending(RunState.COMPLETED, result, None, ledger_of(outcomes), ended_ms)
    return await write(store, spec, in_order(tellings), ending)


def fill_with_past_runs(url: str, count: int, tenant: str = "default", now_ms: int | None = None) -> None:
    """`count` runs that ended over the last days, written straight into the store's keys, many at once."""
    until_ms = now_ms or clock.now_ms()
    with redis.Redis.from_url(url, socket_timeout=30) as client:
        pipeline = client.pipeline(transaction=False)
        for number, (spec, ending) in enumerate(_past(count, tenant, until_ms)):
            keys = RunKeys(spec.run)
            fields = [*fields_of(spec, "histories"), *ending_fields_of(ending), "records", "1"]
            pipeline.execute_command("HSET", keys.run, *fields)
            entry = _state(ending.state, ending.ended_ms)
            pipeline.xadd(keys.log, {"e": dump(entry)}, id="1-0")
            pipeline.zadd(tenant_key(tenant), {index_member(spec.created_ms, spec.run): 0})
            if number % 500 == 499:
                pipeline.execute()
        pipeline.execute()
        client.zrem(LIVE, "none")


def _past(count: int, tenant: str, until_ms: int) -> Iterator[tuple[RunSpec, Ending]]:
    chance = random.Random(11)
    template = spec_at("Past question", until_ms, width=8, tenant=tenant)
    for number in range(count):
        created_ms = until_ms - 60_000 - number * 50_000
        digits = f"{created_ms:012x}{number:012x}"
        question = (Message(Role.USER, f"Past question {number}: what is {number} + {number}?"),)
        spec = replace(
            template,
            run=RunId(f"run-{digits}"),
            messages=question,
            created_ms=created_ms,
            deadline_ms=created_ms + 600_000,
        )
        yield spec, _past_ending(number, created_ms, chance)


def _past_ending(number: int, created_ms: int, chance: random.Random) -> Ending:
    arm_usd = chance.lognormvariate(-5, 0.5)
    wall_s = chance.lognormvariate(3, 0.6)
    spends = {
        str(arm(index)): Spend(
            tokens_prompt=9_000,
            tokens_output=3_000,
            cost_usd=arm_usd * chance.uniform(0.7, 1.4),
            wall_s=wall_s * 0.8,
        )
        for index in range(8)
    }
    ledger = Ledger(sum(spends.values(), NOTHING_SPENT), spends)
    ended_ms = created_ms + round(wall_s * 1000)
    if number % 17 == 3:
        return Ending(RunState.FAILED, None, RunFailure("engine_timeout", "It was silent."), ledger, ended_ms)
    leading = chance.randint(5, 8)
    answer = str(number * 2)
    groups = (AnswerGroup(answer, tuple(map(arm, range(leading)))),)
    if leading < 8:
        groups = (*groups, AnswerGroup("0", tuple(map(arm, range(leading, 8)))))
    method = AggregationMethod.VOTE if leading > 5 else AggregationMethod.REFLECTIVE
    result = RunResult(f"Answer: {answer}", answer, method, Agreement(groups, leading / 8))
    return Ending(RunState.COMPLETED, result, None, ledger, ended_ms)
