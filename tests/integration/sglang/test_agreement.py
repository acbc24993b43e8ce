"""Both engines serve Abacus, SGLang in bf16 and OpenVINO in INT4: how far they agree at temperature 0."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.integration.engines.conftest import server as started
from workers.abacus import answers
from workers.abacus.chat import PYTHON_TOOL
from workers.abacus.prompting import aggregate_prompt
from workers.abacus.tasks import LEVELS, TRAINED, make_problem
from workers.abacus.tasks.stumble import candidates

from .server import ABACUS, NAME, Running

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(900)]

PER_FAMILY = 8
AT_ONCE = 6
SAME_ANSWER_MIN = 0.8
"""INT4 rounds every weight and the engines add in different orders, so a near tie may fall either way. What
is wrong in an engine (a template, a stop, a position) changes nearly every answer, not one in five."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an engine made of a prompt: its thinking, and its answer or the code it calls."""

    thinking: str
    answer: str | None


def prompts() -> list[dict[str, Any]]:
    """The fixed set: questions of every trained family, and aggregations over imagined candidates."""
    made: list[dict[str, Any]] = []
    for family in TRAINED:
        for index in range(PER_FAMILY):
            level = LEVELS[family][index % len(LEVELS[family])]
            problem = make_problem(family, level, "dev", index)
            made.append({"messages": [user(problem.question)], "tools": [PYTHON_TOOL]})
            if index < PER_FAMILY // 4:
                offered = candidates(problem, random.Random(index), 4, 0.3)
                made.append({"messages": [user(aggregate_prompt(problem.question, offered))]})
    return made


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def asked(url: str, model: str, sets: list[dict[str, Any]]) -> list[Said]:
    """What a server says to each, in order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(given: dict[str, Any]) -> Said:
        body = {**given, "model": model, "temperature": 0, "max_tokens": 512}
        async with gate, session.post(url + "/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            message = (await response.json())["choices"][0]["message"]
        calls = message.get("tool_calls")
        answer = calls[0]["function"]["arguments"] if calls else answers.extract(message["content"] or "")
        return Said((message.get("reasoning_content") or "").strip(), answer)

    async with aiohttp.ClientSession() as session:
        return list(await asyncio.gather(*(one(given) for given in sets)))


async def test_both_engines_answer_alike_at_temperature_zero(
    server: Running, record_property: Callable[[str, object], None]
) -> None:
    sets = prompts()
    full = await asked(server.base_url, NAME, sets)
    flags = ("--model-path", str(ABACUS.parent / "int4"), "--threads", "1")
    with started("workers.engines.openvino", *flags) as url:
        small = await asked(url, "int4", sets)
    answered = [one.answer is not None for one in (*full, *small)]
    same = sum(a.answer == b.answer for a, b in zip(full, small, strict=True))
    words = sum(a == b for a, b in zip(full, small, strict=True))
    record_property(
        "figure",
        f"SGLang bf16 and OpenVINO INT4, temperature 0, {len(sets)} prompts: the same answer "
        f"{same / len(sets):.3f}, the same thinking word for word {words / len(sets):.3f}",
    )
    assert sum(answered) >= 0.95 * len(answered)
    assert same >= SAME_ANSWER_MIN * len(sets)
