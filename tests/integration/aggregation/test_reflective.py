"""The reflective pass over a real store: transcripts that no context could hold, opened by trace tools."""

from __future__ import annotations

import re
from dataclasses import replace

from heavy.agent.limits import AgentLimits
from heavy.agent.trajectory import Trajectory
from heavy.aggregation.aggregate import aggregate
from heavy.aggregation.equivalence import Equivalence
from heavy.aggregation.reflective import aggregator_spec, candidates_of, question_of
from heavy.core import clock
from heavy.core.ids import arm
from heavy.core.ledger import NOTHING_SPENT
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import AggregationMode
from heavy.core.records import Entry, GenerationRecord, GenerationTiming, ToolResultRecord
from heavy.core.runs import AggregationMethod, Citation, Outcome, OutcomeKind, RunSpec
from heavy.core.tools import CacheState
from heavy.profiles.schema import AggregationSection, Profile
from heavy.replicas.api import GenerationRequest
from heavy.replicas.openai_json import estimated_tokens
from heavy.runner.meter import ProfileMeter
from heavy.store.redis import RedisStore
from heavy.testing.journal import RecordingJournal
from heavy.testing.replicas import Scripted, ScriptedReplica
from heavy.tools.presentation import Presentation
from heavy.tools.toolset import Toolset
from heavy.tools.traces import trace_tools
from heavy.tools.transcripts import StoreTraceReader

from tests_support.domain import policy, run_spec

CONTEXT_TOKENS = 8_192
PARAGRAPH = "We weigh the evidence again and find nothing new here. " * 40
NEEDLE = "The measured value is 1729."
PROFILE = Profile(
    name="small",
    title="Small (test)",
    engine="simulated",
    model="small",
    context_tokens=CONTEXT_TOKENS,
    aggregation=AggregationSection(reasoning_tail_chars=600),
)


async def test_eight_transcripts_beyond_the_context_are_searched_and_read(store: RedisStore) -> None:
    run = run_spec(policy=policy(width=8, aggregation=AggregationMode.REFLECTIVE))
    epoch = (await store.log.create(run, owner="tester", lease_s=30.0)).run.epoch
    written = [await write_transcript(store, run, epoch, index) for index in range(8)]
    assert sum(estimated_tokens(text) for text in written) > 8 * CONTEXT_TOKENS

    outcomes = [Outcome(arm(i), OutcomeKind.COMPLETED, answer=f"Answer: {i}") for i in range(8)]
    candidates = await candidates_of(run, outcomes, store.log, PROFILE.aggregation)
    label = next(c.label for c in candidates if c.trajectory == arm(5))
    replica = ScriptedReplica(reader_of(label))

    async def reflect() -> tuple[Outcome, list[object]]:
        spec = aggregator_spec(run, candidates, PROFILE, epoch=epoch)
        reader = StoreTraceReader(store.log, run.run, spec.candidates)
        trajectory = Trajectory(
            spec,
            PROFILE,
            replica,
            Toolset(trace_tools(reader), Presentation(chars_max=4_000)),
            RecordingJournal(),
            ProfileMeter(PROFILE),
            AgentLimits(),
        )
        return await trajectory.run(), candidates  # type: ignore[return-value]

    found = await aggregate(run.policy, outcomes, Equivalence(), reflect)  # type: ignore[arg-type]
    assert found.result.method is AggregationMethod.REFLECTIVE
    assert found.result.short_answer == "1729"
    assert found.result.citations == (Citation(arm(5), 2),)
    read = [m.content for m in replica.requests[-1].messages if m.role is Role.TOOL]
    assert NEEDLE in read[0]
    assert NEEDLE in read[1]
    for request in replica.requests:
        assert sum(estimated_tokens(m.content) for m in request.messages) < CONTEXT_TOKENS


async def test_the_order_of_candidates_is_shuffled_anonymous_and_the_same_again(store: RedisStore) -> None:
    run = run_spec(policy=policy(width=8))
    epoch = (await store.log.create(run, owner="tester", lease_s=30.0)).run.epoch
    outcomes = [Outcome(arm(i), OutcomeKind.COMPLETED, answer=f"Answer: {i}") for i in range(8)]
    shown = PROFILE.aggregation
    first = await candidates_of(run, outcomes, store.log, shown)
    again = await candidates_of(run, list(reversed(outcomes)), store.log, shown)
    other = await candidates_of(replace(run, policy=policy(seed=8)), outcomes, store.log, shown)
    assert first == again
    assert [c.label for c in first] == list("ABCDEFGH")
    assert [c.trajectory for c in first] != [arm(i) for i in range(8)]
    assert [c.trajectory for c in first] != [c.trajectory for c in other]
    prompt = aggregator_spec(run, first, PROFILE, epoch=epoch).messages[0].content
    assert "arm-" not in prompt


async def test_a_cut_arm_is_shown_with_what_it_had_and_one_without_an_answer_is_left_out(
    store: RedisStore,
) -> None:
    run = run_spec(policy=policy(width=2))
    epoch = (await store.log.create(run, owner="tester", lease_s=30.0)).run.epoch
    outcomes = [
        Outcome(arm(0), OutcomeKind.CUT, "straggler", answer="perhaps 7"),
        Outcome(arm(1), OutcomeKind.FAILED, "no_answer"),
    ]
    candidates = await candidates_of(run, outcomes, store.log, PROFILE.aggregation)
    assert [c.trajectory for c in candidates] == [arm(0)]
    assert "stopped early" in aggregator_spec(run, candidates, PROFILE, epoch=epoch).messages[0].content


def test_a_conversation_is_shown_turn_by_turn() -> None:
    turns = [Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Hello"), Message(Role.USER, "6*7?")]
    assert question_of(turns[-1:]) == "6*7?"
    assert question_of(turns).splitlines()[0] == "[user]"


async def write_transcript(store: RedisStore, run: RunSpec, epoch: int, index: int) -> str:
    """Four long steps of one arm, the needle in arm 5's third; the text that was written."""
    texts = []
    for step in range(4):
        thought = PARAGRAPH * 4 + (NEEDLE if (index, step) == (5, 2) else "") + PARAGRAPH * 4
        call = ToolCall(f"functions.python:{step}", "python", '{"code": "1"}')
        message = Message(Role.ASSISTANT, "", reasoning=thought, tool_calls=(call,))
        generation = GenerationRecord(
            message, FinishReason.TOOL_CALLS, NOTHING_SPENT, "r", "m", "q", GenerationTiming(0.0, 0.0, 0.0)
        )
        result = ToolResultRecord(call.id, "python", PARAGRAPH, False, CacheState.MISS, 0.0)
        entries = [Entry(arm(index), step, body, clock.now_ms()) for body in (generation, result)]
        await store.log.append(run.run, epoch=epoch, entries=entries)
        texts.append(thought + PARAGRAPH)
    return "".join(texts)


def reader_of(label: str):  # type: ignore[no-untyped-def]
    """An aggregator that searches one candidate, reads there, and answers from what it read."""

    def choose(request: GenerationRequest) -> Scripted:
        results = [m for m in request.messages if m.role is Role.TOOL]
        if not results:
            arguments = f'{{"candidate": "{label}", "query": "measured value"}}'
            return Scripted(tool_calls=(ToolCall("0", "search_trajectory", arguments),))
        if len(results) == 1:
            start = results[0].content.find("measured")
            assert start > 0
            offset = position_in(results[0].content)
            arguments = f'{{"candidate": "{label}", "start": {offset}, "length": 2000}}'
            return Scripted(tool_calls=(ToolCall("1", "read_segment", arguments),))
        assert request.messages[0].role is not Role.TOOL
        return Scripted(f"It was measured.\nAnswer: 1729\nCites: {label} (step 2)")

    return choose


def position_in(found: str) -> int:
    """The character position that a search result names."""
    match = re.search(r"(\d[\d,]*)\D{0,12}of", found)
    assert match, found
    return max(0, int(match[1].replace(",", "")) - 500)
