"""The simulated engine in one process: seeds, scripts, mistakes, cache, timing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import pytest

from workers.engines.api.generation import Event, Finished, TextDelta, ToolCallDelta
from workers.engines.api.request import parse_chat
from workers.engines.api.server import serving
from workers.engines.simulated.engine import SimulatedEngine
from workers.engines.simulated.mistakes import Mistake, parse_rates
from workers.engines.simulated.prefills import Prefills
from workers.engines.simulated.profile import PROFILES, Timing
from workers.engines.simulated.script import parse_script
from workers.engines.simulated.wheel import Wheel

from tests_support.waiting import until

TOOL = {
    "type": "function",
    "function": {
        "name": "python",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": "What is 2+2?"}]}


def engine(**given: Any) -> SimulatedEngine:
    return SimulatedEngine(PROFILES["instant"], **given)


async def run(simulated: SimulatedEngine, body: dict[str, Any]) -> list[Event]:
    generation = await simulated.submit(parse_chat(body, "r"))
    events: list[Event] = []
    while not (events and isinstance(events[-1], Finished)):
        async with asyncio.timeout(5):
            events += await generation.events()
    return events


def text(events: list[Event]) -> str:
    return "".join(event.content for event in events if isinstance(event, TextDelta))


def calls(events: list[Event]) -> list[ToolCallDelta]:
    return [event for event in events if isinstance(event, ToolCallDelta)]


async def walk(simulated: SimulatedEngine, seed: int, steps_max: int = 40) -> tuple[int, str]:
    """A whole trajectory: tool calls answered until it answers. Steps and the answer."""
    messages = list(QUESTION["messages"])
    for step in range(steps_max):
        events = await run(simulated, {"messages": messages, "tools": [TOOL], "seed": seed})
        parts = calls(events)
        if not parts:
            return step, text(events)
        arguments = "".join(part.arguments for part in parts)
        call = {"id": parts[0].id, "function": {"name": parts[0].name, "arguments": arguments}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "content": "4", "tool_call_id": parts[0].id})
    raise AssertionError("it never answered")


async def test_everything_a_person_may_read_is_marked_as_simulated() -> None:
    events = await run(engine(), QUESTION)
    assert text(events).startswith("[simulated]")
    thought = "".join(event.reasoning for event in events if isinstance(event, TextDelta))
    assert thought.startswith("[simulated]")
    called = await run(engine(), {**QUESTION, "tools": [TOOL], "tool_choice": "required"})
    assert "[simulated]" in "".join(part.arguments for part in calls(called))


async def test_a_trajectory_calls_the_first_tool_some_times_and_then_answers() -> None:
    steps, answer = await walk(engine(seed=1), seed=5)
    assert 1 <= steps <= 3
    assert "Answer: " in answer
    assert (steps, answer) == await walk(engine(seed=1), seed=5)


async def test_answers_agree_at_about_the_configured_rate() -> None:
    profile = PROFILES["instant"].with_overrides({"agreement": 0.7, "steps_min": 0, "steps_max": 0})
    simulated = SimulatedEngine(profile)
    answers = Counter([(await walk(simulated, seed))[1].rsplit(" ", 1)[1] for seed in range(200)])
    assert 0.6 < answers.most_common(1)[0][1] / 200 < 0.8
    assert len(answers) == 4


async def test_a_conversation_that_holds_answers_gets_the_most_frequent_one() -> None:
    content = "A: Answer: 7\nB: Answer: 9\nC: Answer: 7"
    events = await run(engine(), {"messages": [{"role": "user", "content": content}]})
    assert text(events).endswith("Answer: 7")


async def test_a_script_says_what_each_step_does() -> None:
    script = parse_script(
        json.dumps(
            {
                "steps": [
                    {"tool": "python", "arguments": {"code": "print({step})"}, "repeat": 20},
                    {"answer": "Answer: 42"},
                ]
            }
        )
    )
    steps, answer = await walk(engine(script=script), seed=1)
    assert (steps, answer) == (20, "[simulated] Answer: 42")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [("{}", "steps"), ('{"steps": [{}]}', "either calls tools or answers"), ('{"steps": [{"x": 1}]}', "x")],
)
def test_a_wrong_script_says_what_is_wrong(script: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_script(script)


@pytest.mark.parametrize(
    "mistake",
    [Mistake.MALFORMED_TOOL_CALL, Mistake.WRONG_SCHEMA, Mistake.UNKNOWN_TOOL, Mistake.MARKERS_IN_REASONING],
)
async def test_the_models_mistakes_look_like_a_models(mistake: Mistake) -> None:
    asked = {**QUESTION, "tools": [TOOL]}
    constrained = await run(engine(mistakes={mistake: 1.0}), {**asked, "tool_choice": "required"})
    assert "code" in json.loads("".join(part.arguments for part in calls(constrained)))
    events = await run(engine(mistakes={mistake: 1.0}), asked)
    parts = calls(events)
    arguments = "".join(part.arguments for part in parts)
    match mistake:
        case Mistake.MALFORMED_TOOL_CALL:
            with pytest.raises(ValueError):
                json.loads(arguments)
        case Mistake.WRONG_SCHEMA:
            assert "code" not in json.loads(arguments)
        case Mistake.UNKNOWN_TOOL:
            assert parts[0].name not in ("", "python")
        case _:
            assert not parts
            thought = "".join(event.reasoning for event in events if isinstance(event, TextDelta))
            assert "<|tool_call_begin|>functions.python:0" in thought.replace(" ", "")


async def test_a_hang_says_nothing_more_until_it_is_aborted() -> None:
    simulated = engine(mistakes={Mistake.HANG: 1.0})
    generation = await simulated.submit(parse_chat(QUESTION, "r"))
    events = list(await generation.events())
    assert not isinstance(events[-1], Finished)
    assert simulated.load().running == 1
    generation.abort()
    last = (await generation.events())[-1]
    assert isinstance(last, Finished)
    assert last.reason == "abort"
    assert simulated.load().running == 0


@pytest.mark.parametrize("mistake", [Mistake.DISCONNECT, Mistake.TRUNCATED_SSE])
async def test_the_servers_mistakes_break_the_stream_in_the_middle(mistake: Mistake) -> None:
    async with serving(engine(mistakes={mistake: 1.0})) as url, aiohttp.ClientSession() as session:
        body = {**QUESTION, "stream": True}
        received, broke = b"", False
        async with session.post(url + "/v1/chat/completions", json=body) as response:
            try:
                async for data in response.content.iter_any():
                    received += data
            except aiohttp.ClientError:
                broke = True
        assert broke
        assert b"[DONE]" not in received
        assert received.endswith(b"\n\n") is (mistake is Mistake.DISCONNECT)


async def test_a_retry_after_an_error_draws_anew() -> None:
    async with serving(engine(mistakes={Mistake.ERROR_500: 0.5})) as url, aiohttp.ClientSession() as session:
        statuses = []
        for _ in range(12):
            async with session.post(url + "/v1/chat/completions", json=QUESTION) as response:
                statuses.append(response.status)
    assert set(statuses) == {200, 500}


def test_rates_of_mistakes_are_checked() -> None:
    assert parse_rates(["hang=0.25"]) == {Mistake.HANG: 0.25}
    for wrong in ("hang", "hang=2", "typo=0.1"):
        with pytest.raises(ValueError):
            parse_rates([wrong])
    with pytest.raises(ValueError, match="together exceed 1"):
        parse_rates(["hang=0.6", "disconnect=0.6"])


async def test_a_growing_conversation_pays_for_its_new_part_only() -> None:
    simulated = engine()
    first = (await run(simulated, QUESTION))[-1]
    longer = [
        *QUESTION["messages"],
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "and 3+3?"},
    ]
    second = (await run(simulated, {"messages": longer}))[-1]
    assert isinstance(first, Finished)
    assert isinstance(second, Finished)
    assert (first.usage.cached, second.usage.cached) == (0, first.usage.prompt)


async def test_time_passes_as_the_profile_says_divided_by_the_scale() -> None:
    profile = PROFILES["k2-8xh200"].with_overrides({"time_scale": 10.0, "jitter": 0.0})
    simulated = SimulatedEngine(profile)
    loop = asyncio.get_running_loop()
    start = loop.time()
    last = (await run(simulated, QUESTION))[-1]
    assert isinstance(last, Finished)
    expected_s = (0.2 + 0.009 * last.usage.completion) / 10
    assert expected_s * 0.9 < loop.time() - start < expected_s + 0.5


async def test_who_prefills_alone_leaves_the_next_one_what_they_share() -> None:
    assert await cached_by_the_second(prefill_alone=False) == 0
    assert await cached_by_the_second(prefill_alone=True) > 1_000


async def cached_by_the_second(*, prefill_alone: bool) -> int:
    """Of two prompts with one long opening that come together, after one that gives up in its turn."""
    profile = PROFILES["instant"].with_overrides(
        {"prefill_alone": prefill_alone, "prefill_tokens_per_s": 50_000.0}
    )
    simulated = SimulatedEngine(profile)
    bodies = [
        {"messages": [{"role": "user", "content": word * 5_000}, {"role": "user", "content": last}]}
        for word, last in (("other ", "a"), ("word ", "b"), ("word ", "c"))
    ]
    gives_up, _, second = [await simulated.submit(parse_chat(body, f"r{n}")) for n, body in enumerate(bodies)]
    gives_up.abort()
    events: list[Event] = []
    while not (events and isinstance(events[-1], Finished)):
        async with asyncio.timeout(5):
            events += await second.events()
    return events[-1].usage.cached


def test_decoding_stands_still_while_prompts_are_prefilled_in_turn() -> None:
    prefills, began = Prefills(), list[tuple[str, float]]()
    for owner, at in (("a", 10.0), ("b", 10.5), ("c", 10.6)):
        prefills.enter(owner, lambda now, owner=owner: began.append((owner, now)), at)  # type: ignore[misc]
    prefills.takes(12.0)
    assert (prefills.stood_still_s(11.0), prefills.goes_on(11.0)) == (1.0, 12.0)
    prefills.leave("b", 11.5)
    prefills.leave("a", 12.0)
    prefills.leave("a", 12.5)
    assert began == [("a", 10.0), ("c", 12.0)]
    prefills.leave("c", 13.0)
    assert (prefills.stood_still_s(20.0), prefills.goes_on(20.0)) == (3.0, 20.0)


def test_a_token_takes_longer_the_fuller_the_server_is() -> None:
    timing = Timing(itl_s=0.01, crowding=2.0)
    assert [round(timing.token_s(running, 9), 4) for running in (1, 5, 9)] == [0.01, 0.02, 0.03]
    assert timing.token_s(1, 1) == 0.01


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_full_server_is_well_while_anybody_speaks_and_not_once_it_hangs(
    hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engines.api.life.PATIENCE_S", 1.0)
    full = {"running_max": 1, "waiting_max": 1, "itl_s": 0.01, "reasoning_tokens": 90_000}
    profile = PROFILES["instant"].with_overrides(full)
    simulated = SimulatedEngine(profile, mistakes={Mistake.HANG: 1.0} if hangs else {})
    async with serving(simulated) as url, aiohttp.ClientSession() as http:

        async def health() -> int:
            async with http.get(f"{url}/health_generate") as response:
                return response.status

        assert await health() == 200
        async with http.post(f"{url}/v1/chat/completions", json={**QUESTION, "stream": True}) as stream:
            await stream.content.readany()
            assert await until(health, lambda status: status == (500 if hangs else 200))
            assert [await health() for _ in range(2)] == [500 if hangs else 200] * 2


async def test_a_server_that_only_prefills_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.engines.api.life.PATIENCE_S", 1.5)
    long = {"running_max": 1, "prefill_tokens_per_s": 40_000.0, "prefill_alone": True}
    simulated = SimulatedEngine(PROFILES["instant"].with_overrides(long))
    body = {"messages": [{"role": "user", "content": "word " * 160_000}], "stream": True}  # takes 5 s
    async with serving(simulated) as url, aiohttp.ClientSession() as http:
        asked = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body))

        async def running() -> int:
            return simulated.load().running

        await until(running, lambda count: count == 1)
        async with http.get(f"{url}/health_generate") as response:
            assert (response.status, asked.done()) == (200, False)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def test_the_wheel_calls_in_order_and_not_too_early() -> None:
    wheel, loop = Wheel(), asyncio.get_running_loop()
    called: list[tuple[int, float]] = []
    done = asyncio.Event()
    start = loop.time()
    for delay in (30, 10, 20):
        wheel.at(start + delay / 1_000, lambda delay=delay: called.append((delay, loop.time() - start)))
    wheel.at(start + 0.04, done.set)
    await asyncio.wait_for(done.wait(), 5)
    assert [delay for delay, _ in called] == [10, 20, 30]
    assert all(after >= delay / 1_000 - 1e-3 for delay, after in called)
