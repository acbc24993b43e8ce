"""What only the OpenVINO engine promises: late joins, cancels, a cache that saves time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from workers.engines.api.errors import EngineFailed
from workers.engines.api.generation import Event, Failed, Finished, TextDelta, ToolCallDelta
from workers.engines.api.request import parse_chat
from workers.engines.openvino.engine import OpenVinoEngine, OpenVinoSettings
from workers.engines.openvino.generation import OpenVinoGeneration
from workers.engines.openvino.prompt import GuardedTokenizer

MODELS = Path(__file__).parents[2] / "fixtures" / "models"
LONG: dict[str, Any] = {"max_tokens": 1_500, "ignore_eos": True, "seed": 1}
WAIT_S = 30.0


def body(text: str = "count the numbers", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@contextlib.asynccontextmanager
async def running(model: str = "tiny-k2-int4", **how: Any) -> AsyncIterator[OpenVinoEngine]:
    engine = OpenVinoEngine(OpenVinoSettings(MODELS / model, threads=1, **how))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def submit(engine: OpenVinoEngine, **given: Any) -> OpenVinoGeneration:
    return await engine.submit(parse_chat(body(**given), "r"))


async def rest(generation: OpenVinoGeneration) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(WAIT_S):
        while not (events and isinstance(events[-1], Finished | Failed)):
            events += await generation.events()
    return events


async def idle(engine: OpenVinoEngine) -> None:
    async with asyncio.timeout(WAIT_S):
        while engine.load().running:
            await asyncio.sleep(0.005)


async def test_a_late_one_joins_and_ends_while_the_first_goes_on() -> None:
    async with running() as engine:
        first = await submit(engine, **LONG)
        await first.events()
        late = await rest(await submit(engine, max_tokens=5, seed=2, ignore_eos=True))
        assert isinstance(late[-1], Finished)
        assert late[-1].usage.completion == 5
        assert not first.ended
        first.abort()
        await idle(engine)


async def test_a_cancel_ends_one_within_a_step_and_leaves_its_siblings_alone() -> None:
    async with running() as engine:
        alone = (await rest(await submit(engine, max_tokens=300, seed=9, ignore_eos=True)))[-1]
        sibling = await submit(engine, max_tokens=300, seed=9, ignore_eos=True)
        doomed = await submit(engine, **LONG)
        await doomed.events()
        said = len(doomed.ids)
        doomed.abort()
        await idle_of(engine, doomed)
        assert len(doomed.ids) == said  # nothing is taken after the abort
        ended = (await rest(sibling))[-1]
        assert isinstance(ended, Finished)
        assert isinstance(alone, Finished)
        assert ended.usage.completion == alone.usage.completion == 300


async def idle_of(engine: OpenVinoEngine, generation: OpenVinoGeneration) -> None:
    async with asyncio.timeout(1.0):
        while generation.ticket is not None and generation.ticket.state != "gone":
            await asyncio.sleep(0.001)


async def test_a_cached_prompt_is_prefilled_faster_and_the_usage_says_so() -> None:
    async with running() as engine:
        await rest(await submit(engine, text="warm up", max_tokens=2))
        text = "the sum of two numbers is the answer and again " * 35
        times, cached = [], []
        for _ in range(2):
            start = time.perf_counter()
            last = (await rest(await submit(engine, text=text, max_tokens=1, ignore_eos=True)))[-1]
            times.append(time.perf_counter() - start)
            assert isinstance(last, Finished)
            cached.append(last.usage.cached)
        assert cached[0] <= 32
        assert last.usage.prompt - 33 <= cached[1] < last.usage.prompt
        assert times[1] < times[0]


async def test_strict_tools_make_every_call_well_formed() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"enum": [{"a": 1}]}}}
    async with running(strict_tools=True) as engine:
        asked = body(tools=[tool], tool_choice="required", max_tokens=200, seed=1)
        events = await rest(await engine.submit(parse_chat(asked, "r")))
        parts = [event for event in events if isinstance(event, ToolCallDelta)]
        assert parts[0].name == "f"
        free = body(tools=[tool], max_tokens=100, seed=1)
        last = (await rest(await engine.submit(parse_chat(free, "r"))))[-1]
        assert isinstance(last, Finished)


async def test_a_grammar_that_breaks_the_pipeline_costs_what_runs_and_nothing_more() -> None:
    async with running() as engine:
        generation = await submit(engine, max_tokens=50, seed=1)
        assert isinstance((await rest(generation))[-1], Finished)
        broken = await engine.submit(parse_chat(body(max_tokens=50), "r"))
        broken.abort()
        asked = parse_chat(body(max_tokens=50), "r")
        engine._constraint = lambda *_: {"schema": '{"type": "wrongtype"}'}  # type: ignore[method-assign,assignment]
        failed = (await rest(await engine.submit(asked)))[-1]
        assert isinstance(failed, Failed)
        assert "was restarted" in failed.error.message
        del engine._constraint  # type: ignore[method-assign]
        assert isinstance((await rest(await submit(engine, max_tokens=5, seed=1)))[-1], Finished)
        assert engine.failure() is None


async def test_a_core_that_dies_fails_what_runs_and_the_health() -> None:
    async with running() as engine:
        generation = await submit(engine, **LONG)
        await generation.events()
        assert engine._core is not None
        os.kill(engine._core.pid, signal.SIGKILL)
        last = (await rest(generation))[-1]
        assert isinstance(last, Failed)
        assert engine.failure() == "the core process ended"
        with pytest.raises(EngineFailed, match="Restart this server"):
            await submit(engine, max_tokens=1)


async def test_a_cache_that_is_too_small_makes_them_wait_not_fail() -> None:
    async with running(kv_tokens=1_024) as engine:
        many = [await submit(engine, max_tokens=300, seed=seed, ignore_eos=True) for seed in range(6)]
        assert engine.load().waiting > 0
        ends = [(await rest(one))[-1] for one in many]
        assert all(isinstance(end, Finished) and end.usage.completion == 300 for end in ends)


async def test_the_last_message_can_be_continued() -> None:
    async with running() as engine:
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "the sum of"}]
        plain = parse_chat({"messages": messages, "continue_final_message": True, "max_tokens": 4}, "r")
        prompt = await asyncio.to_thread(engine._ready().prompt, plain)
        begun = await asyncio.to_thread(engine._ready().prompt, parse_chat({"messages": messages[:1]}, "r"))
        assert prompt.ids[: len(begun.ids)] == begun.ids
        assert len(prompt.ids) > len(begun.ids)
        events = await rest(await engine.submit(plain))
        assert any(isinstance(event, TextDelta) for event in events)


def test_prompts_from_many_threads_do_not_wait_for_each_other_for_ever() -> None:
    tokenizer = GuardedTokenizer(str(MODELS / "tiny-k2-int4"))
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(tokenizer.encode, f"{number} the sum of numbers", False) for number in range(800)]
        assert all(future.result(timeout=WAIT_S) for future in done)
