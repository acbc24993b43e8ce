"""A closed model as arm and aggregator: a remote profile over an API that has a key and no extensions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heavy.app import serving
from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.draft import PolicyDraft
from heavy.core.fleet import RunnerInfo
from heavy.core.policy import AggregationMode
from heavy.core.runs import AggregationMethod, Run, RunState
from heavy.profiles.loader import load_profiles
from heavy.runner.build import open_runner
from workers.launch import free_port
from workers.replica import Replica

from tests_support.engines import server
from tests_support.plain_api import KEY, MODEL, PlainApi
from tests_support.waiting import until

QUESTION = "What is 6 times 7?"
POLICY = PolicyDraft(width=3, early_stop=False, aggregation=AggregationMode.REFLECTIVE, deadline_s=60)


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The simulated engine behind the API: two steps with a tool, then an answer."""
    flags = (
        "--profile",
        "k2-8xh200",
        "--ttft-ms",
        "5",
        "--itl-ms",
        "1",
        "--steps-min",
        "2",
        "--steps-max",
        "2",
    )
    with server("workers.engines.simulated", "--served-model-name", "engine", *flags) as base_url:
        yield base_url


@pytest.fixture
async def api(engine: str) -> AsyncIterator[PlainApi]:
    async with PlainApi(engine, "engine") as api:
        yield api


def profile_of(directory: Path, api: PlainApi, model: str = MODEL) -> None:
    (directory / "closed.toml").write_text(
        f"""
        name = "closed"
        title = "A closed model (simulated)"
        engine = "remote"
        model = "{model}"
        context_tokens = 32768
        default_tools = ["python"]
        [remote]
        base_url = "{api.base_url}"
        api_key_env = "PLAIN_API_KEY"
        [prices]
        usd_per_million_prompt_tokens = 100.0
        usd_per_million_output_tokens = 1000.0
        """
    )


@asynccontextmanager
async def heavy_over(store_url: str, profiles: Path) -> AsyncIterator[HeavyClient]:
    """A Heavy as it is served, but without Ray, with one replica of the profile."""
    settings = Settings(
        store_url=store_url, port=0, http_port=free_port(), profile_dirs=str(profiles), served="closed"
    )
    runner = await open_runner(settings)
    replica = Replica("closed-0", load_profiles([profiles]).get("closed"), settings.environment())
    try:
        await replica.start()
        await until(runner.store.directory.replicas, lambda infos: [i.state for i in infos] == ["ready"])
        await runner.store.directory.announce_runner(RunnerInfo("runner-0", 0, 64), ttl_s=600.0)
        async with serving(settings, lambda _: runner.host) as rpc, HeavyClient(rpc.address) as client:
            yield client
    finally:
        await replica.stop()
        await asyncio.shield(runner.close())


async def asked(store_url: str, profiles: Path, policy: PolicyDraft = POLICY) -> Run:
    async with heavy_over(store_url, profiles) as client:
        return await client.get((await client.answer(QUESTION, policy)).spec.run)


async def test_it_serves_every_arm_and_the_aggregator_and_its_tokens_are_paid_by_its_prices(
    api: PlainApi, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIN_API_KEY", KEY)
    profile_of(tmp_path, api)
    run = await asked(store_url, tmp_path)
    assert run.state is RunState.COMPLETED
    assert run.result is not None
    assert run.result.method is AggregationMethod.REFLECTIVE
    assert api.refused == []
    assert len(api.asked) >= 3 * 2 + 1
    assert any(message["role"] == "tool" for one in api.asked for message in one["messages"])
    assert run.ledger is not None
    assert run.ledger.total.cost_usd > 0


async def test_a_rate_limit_is_waited_out(
    api: PlainApi, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIN_API_KEY", KEY)
    profile_of(tmp_path, api)
    api.busy = 2
    run = await asked(store_url, tmp_path)
    assert run.state is RunState.COMPLETED
    assert api.refused == ["429 rate_limit_exceeded"] * 2


@pytest.mark.parametrize(
    ("key", "model", "says"),
    [
        ("sk-another", MODEL, "Check the API key; it is read from the environment: PLAIN_API_KEY."),
        (KEY, "plain-0", "The model `plain-0` does not exist"),
    ],
    ids=["a wrong key", "an unknown model"],
)
async def test_what_it_refuses_is_said_in_its_words_with_what_to_do(
    api: PlainApi,
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    model: str,
    says: str,
) -> None:
    monkeypatch.setenv("PLAIN_API_KEY", key)
    profile_of(tmp_path, api, model)
    run = await asked(store_url, tmp_path)
    assert run.state is RunState.FAILED
    assert run.failure is not None
    assert says in str(run.failure)
    assert key not in str(run.failure)
    assert len(api.refused) == 3, "what is refused once is not asked again"
