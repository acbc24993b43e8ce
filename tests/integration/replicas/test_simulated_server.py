"""The client and the router against the simulated engine's process: the API that real engines speak."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import aiohttp
import orjson
import pytest

from heavy.core import clock
from heavy.core.errors import ContextOverflow, EngineUnavailable
from heavy.core.ids import arm, new_run_id, request_id
from heavy.core.messages import FinishReason, Message, Role
from heavy.core.policy import Sampling
from heavy.core.tools import Effects, ToolSpec
from heavy.profiles.loader import load_profiles
from heavy.replicas.api import Finished, GenerationRequest
from heavy.replicas.client import HttpReplica
from heavy.replicas.health import Health, HealthCheck, HealthLimits
from heavy.replicas.http import Endpoint, HttpPool

PYTHON = ToolSpec(
    "python",
    "Runs code.",
    {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    "1",
    Effects.PURE,
    True,
)


@asynccontextmanager
async def simulated(*flags: str) -> AsyncIterator[str]:
    """A simulated server in a process of its own; yields its base URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers.engines.simulated", "--port", "0", "--die-with-parent"),
        *("--drain-s", "0.1", *flags),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            ready = orjson.loads(await process.stdout.readline())
        yield f"http://127.0.0.1:{ready['port']}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    pool = HttpPool(streams_max=16)
    yield pool
    await pool.close()


def client(base_url: str, pool: HttpPool) -> HttpReplica:
    endpoint = Endpoint.of("sim-0", base_url, load_profiles().get("simulated"))
    return HttpReplica(endpoint, pool, silence_s=20.0)


def request(tools: tuple[ToolSpec, ...] = (), **changes: object) -> GenerationRequest:
    values = {
        "request_id": request_id(new_run_id(), arm(0), 0, 0),
        "profile": "simulated",
        "messages": (Message(Role.USER, "What is 2+2?"),),
        "tools": tools,
        "sampling": Sampling(seed=1),
        "tokens_max": 512,
        "deadline_ms": clock.now_ms() + 60_000,
    }
    return GenerationRequest(**{**values, **changes})  # type: ignore[arg-type]


async def finished(replica: HttpReplica, asked: GenerationRequest) -> Finished:
    last = None
    async for event in replica.generate(asked):
        last = event
    assert isinstance(last, Finished)
    return last


async def test_generations_tools_counts_loads_and_health_work_on_one_server(pool: HttpPool) -> None:
    async with simulated("--profile", "instant") as url:
        replica = client(url, pool)
        called = await finished(replica, request((PYTHON,)))
        assert called.finish_reason is FinishReason.TOOL_CALLS
        assert [call.name for call in called.tool_calls] == ["python"]
        assert "code" in orjson.loads(called.tool_calls[0].arguments)
        assert 0 < called.usage.reasoning < called.usage.output
        again = await finished(replica, request((PYTHON,)))
        assert again.usage.cached > 0
        assert again.tool_calls == called.tool_calls
        asked = request((PYTHON,))
        assert await replica.count_tokens("simulated", asked.messages, asked.tools) == called.usage.prompt
        assert (await replica.load(5.0)).kv_tokens_max > 0
        async with aclosing(HealthCheck(replica, HealthLimits(interval_s=0.01)).reports()) as reports:
            assert (await anext(reports)).health is Health.WELL


async def test_an_overlong_prompt_is_a_context_overflow(pool: HttpPool) -> None:
    async with simulated("--profile", "instant", "--context-length", "300") as url:
        with pytest.raises(ContextOverflow) as caught:
            await finished(client(url, pool), request(messages=(Message(Role.USER, "word " * 2_000),)))
        assert caught.value.details["allowed"] == 300


async def test_leaving_a_generation_ends_it_in_the_engine(pool: HttpPool) -> None:
    async with simulated("--reasoning-tokens", "100000", "--ttft-ms", "1", "--itl-ms", "5") as url:
        replica = client(url, pool)
        async with aclosing(replica.generate(request(tokens_max=90_000))) as events:
            await anext(events)
            assert (await replica.load(5.0)).running == 1
        async with asyncio.timeout(5):
            while (await replica.load(5.0)).running:
                await asyncio.sleep(0.01)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
            metrics = await response.text()
        assert "aborted_requests_total{" in metrics


@pytest.mark.parametrize("mistake", ["disconnect", "truncated_sse", "error_500"])
async def test_every_mistake_of_the_server_is_an_unavailable_engine(pool: HttpPool, mistake: str) -> None:
    async with simulated("--profile", "instant", "--mistake", f"{mistake}=1") as url:
        with pytest.raises(EngineUnavailable):
            await finished(client(url, pool), request())
