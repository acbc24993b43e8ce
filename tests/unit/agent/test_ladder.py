"""Calls that cannot be used: mended, told, asked for under a grammar, given up on; each within its bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.agent.ladder import Ladder
from heavy.agent.limits import LadderLimits
from heavy.core.errors import EngineRefused
from heavy.core.messages import FinishReason, Role, ToolCall
from heavy.core.repairs import Repair
from heavy.core.runs import OutcomeKind
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.replicas.api import GenerationRequest
from heavy.testing.replicas import Scripted

Asks = Callable[..., Scripted]
ANSWER = Scripted(content="42")
HALF = "<|tool_call_begin|>functions.count:0<|tool_call_argument_begin|>"


@dataclass
class Count:
    """A tool with one way to be called."""

    calls: list[Mapping[str, Any]] = field(default_factory=list)
    spec: ToolSpec = field(
        default_factory=lambda: ToolSpec(
            "count",
            "Counts.",
            {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
            "1",
            Effects.PURE,
            cacheable=False,
        )
    )

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        self.calls.append(arguments)
        return ToolOutput(f"counted {arguments['n']}")


@pytest.fixture
def count(bench: Any) -> Count:
    """The tool, among those of the bench."""
    tool = Count()
    bench.tools = (tool,)
    return tool


def calls(*arguments: str, name: str = "count") -> Scripted:
    return Scripted(tool_calls=tuple(ToolCall(f"c{i}", name, text) for i, text in enumerate(arguments)))


def choices(replica: Any) -> list[str]:
    return [request.tool_choice for request in replica.requests]


async def test_a_call_that_can_be_mended_costs_nothing_and_is_recorded(bench: Any, count: Count) -> None:
    replica = bench.plays(calls("{'n': '3',}"), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.answer, count.calls) == ("42", [{"n": 3}])
    assert {"json_repair", "coerced"} <= set(bench.journal.generations[0].repairs)
    assert choices(replica) == ["auto", "auto"]


@pytest.mark.parametrize(
    ("arguments", "name", "kind", "words"),
    [
        ('{"n": 1', "count", "invalid_json", "not valid JSON"),
        ('{"n": "x"}', "count", "schema_mismatch", "expected integer"),
        ('{"m": 1}', "count", "schema_mismatch", "expected the properties"),
        ('{"n": "1', "count", "invalid_json", "does not end"),
        ("{}", "cuont", "unknown_tool", "The tools are: probe, count"),
    ],
)
async def test_the_model_is_told_what_is_wrong_in_words_it_can_act_on(
    bench: Any, count: Count, arguments: str, name: str, kind: str, words: str
) -> None:
    replica = bench.plays(calls(arguments, name=name), ANSWER)

    await bench.trajectory().run()

    told = replica.requests[-1].messages[-1]
    assert told.role is Role.TOOL
    assert words in told.content
    assert kind in bench.journal.generations[0].repairs


async def test_after_being_told_twice_the_next_call_is_asked_for_under_a_grammar(
    bench: Any, count: Count
) -> None:
    replica = bench.plays(calls('{"m": 1}'), calls('{"m": 2}'), calls('{"n": 3}'), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.answer, outcome.reason) == (OutcomeKind.COMPLETED, "42", "")
    assert choices(replica) == ["auto", "auto", "required", "auto"]
    assert [request.strict_calls for request in replica.requests] == [False, False, True, False]
    assert count.calls == [{"n": 3}]
    assert "constrained" in bench.journal.generations[2].repairs
    assert any("schema_mismatch 2" in note and "constrained 1" in note for note in bench.journal.notes)


async def test_a_model_that_needed_the_grammar_once_is_told_only_once_the_next_time(
    bench: Any, count: Count
) -> None:
    bad, good = calls('{"m": 1}'), calls('{"n": 3}')
    replica = bench.plays(bad, bad, good, bad, calls('{"n": 4}'), ANSWER)

    await bench.trajectory().run()

    assert choices(replica) == ["auto", "auto", "required", "auto", "required", "auto"]


async def test_when_the_grammar_does_not_help_an_answer_is_forced(bench: Any, count: Count) -> None:
    replica = bench.plays(*[calls(f'{{"m": {n}}}') for n in range(3)], ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason, outcome.answer) == (OutcomeKind.COMPLETED, "broken_calls", "42")
    assert choices(replica) == ["auto", "auto", "required", "none"]
    assert "3 generations in a row" in outcome.detail


async def test_an_engine_that_refuses_the_grammar_is_asked_without_and_not_again(
    bench: Any, count: Count
) -> None:
    bad = calls('{"m": 1}')
    refusal = Scripted(error=EngineRefused("tool_choice is not supported", "r"))
    replica = bench.plays(bad, bad, refusal, calls('{"n": 1}'), bad, bad, calls('{"n": 2}'), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.reason, outcome.answer) == ("", "42")
    assert choices(replica) == ["auto", "auto", "required", "auto", "auto", "auto", "auto", "auto"]
    assert any("takes no grammar" in note for note in bench.journal.notes)


async def test_a_profile_may_rule_the_grammar_out_or_ask_for_it_always(bench: Any, count: Count) -> None:
    bad = calls('{"m": 1}')
    bench.profile = bench.profile.model_copy(update={"constrained_calls": "never"})
    replica = bench.plays(bad, bad, bad, ANSWER)
    outcome = await bench.trajectory().run()
    assert choices(replica) == ["auto", "auto", "auto", "none"]
    assert outcome.reason == "broken_calls"

    bench.profile = bench.profile.model_copy(update={"constrained_calls": "always"})
    replica = bench.plays(calls('{"n": 1}'), ANSWER)
    await bench.trajectory().run()
    assert [(r.tool_choice, r.strict_calls) for r in replica.requests] == [("auto", True), ("auto", True)]


async def test_half_a_call_beside_some_text_is_no_answer(bench: Any, count: Count) -> None:
    replica = bench.plays(Scripted(content=f"Let me count. {HALF}" + '{"n": 1'), calls('{"n": 1}'), ANSWER)

    outcome = await bench.trajectory().run()

    assert (outcome.answer, outcome.steps, count.calls) == ("42", 3, [{"n": 1}])
    said, told = replica.requests[1].messages[-2:]
    assert (said.role, said.content) == (Role.ASSISTANT, "Let me count.")
    assert told.role is Role.USER
    assert "could not be read" in told.content


async def test_a_call_cut_by_the_length_limit_is_still_a_matter_of_length(bench: Any, count: Count) -> None:
    cut = Scripted(
        content="So", tool_calls=(ToolCall("", "count", '{"n'),), finish_reason=FinishReason.LENGTH
    )
    bench.plays(cut, ANSWER)

    assert (await bench.trajectory().run()).reason == "length"


async def test_a_step_with_one_good_call_is_not_broken(bench: Any, count: Count) -> None:
    replica = bench.plays(calls('{"n": 1}', '{"m": 1}'), calls('{"n": 2}', '{"m": 2}'), ANSWER)

    await bench.trajectory().run()

    assert choices(replica) == ["auto", "auto", "auto"]
    assert count.calls == [{"n": 1}, {"n": 2}]


async def test_a_model_that_breaks_its_calls_for_ever_ends_within_the_bound_of_the_trajectory(
    bench: Any, count: Count
) -> None:
    bench.limit(ladder=LadderLimits(broken_per_trajectory_max=7))
    bench.sets(steps_max=1_000)
    number = iter(range(1_000))

    def choose(request: GenerationRequest) -> Scripted:
        if request.tool_choice == "none":
            return ANSWER
        key = "n" if request.tool_choice == "required" else "m"
        return calls(f'{{"{key}": {next(number)}}}')

    replica = bench.chooses(choose)

    outcome = await bench.trajectory().run()

    assert (outcome.kind, outcome.reason) == (OutcomeKind.COMPLETED, "broken_calls")
    assert choices(replica).count("auto") == 7


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_whatever_a_model_does_the_ladder_ends_within_its_bounds(
    steps: list[bool], told_max: int, constrained_max: int, can: bool
) -> None:
    limits = LadderLimits(
        told_max, constrained_max, constrained_per_trajectory_max=5, broken_per_trajectory_max=9
    )
    ladder = Ladder(limits, can)
    in_a_row = broken = constrained = 0
    for bad in steps:
        asked = ladder.constrains
        assert not asked or (can and in_a_row >= 1)
        constrained += asked
        in_a_row, broken = (in_a_row + 1, broken + 1) if bad else (0, broken)
        over = ladder.observe((Repair.CONSTRAINED,) if asked else (), broken=bad)
        assert bool(over) == (bad and (in_a_row >= told_max + constrained_max or broken >= 9))
        if over:
            break
    assert constrained <= 5
    assert broken <= 9
