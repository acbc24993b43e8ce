"""What only a GPU shows: a cut-down K2 in INT4 and bf16, hosted by the replica actor, eight arms and a load.

    python -m tests.gpu --engine-python PATH        # the Python of an environment that has SGLang
    python -m tests.gpu --rehearse                  # every step on the CPU, on a tiny dense model

For each of INT4 and bf16: start `heavy up` with one replica on one GPU, check that it serves tool calls
through the kimi_k2 parsers and shares the prefix among eight arms, and measure tokens/s at 1, 8 and 32
streams through Heavy's own client against the same load straight to the server. Writes
docs/measurements/gpu-k2.md. Exits with 3 where there is no GPU.

A model whose weights are drawn at random never ends its thinking, and SGLang holds it to a grammar only after
that: so it is asked not to think, and its tool calls come from the grammar alone. It would not end a string
either: the quotation mark is made likelier than the rest. The load goes with the same fields on both ways.

Prediction, written before any measurement: through Heavy's client at least 0.97 of the direct rate at 1 and
8 streams and 0.93 at 32; INT4 faster than bf16 at 1 stream (less memory read a token), by 1.5 to 2.5, and
within 20% of it at 32.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core import clock
from heavy.core.draft import PolicyDraft
from heavy.core.ids import arm, new_run_id, request_id
from heavy.core.messages import Message, Role
from heavy.core.policy import AggregationMode, Sampling
from heavy.core.records import GenerationRecord, ToolIntentRecord
from heavy.profiles.loader import load_profiles
from heavy.replicas.api import Finished, GenerationRequest
from heavy.replicas.client import HttpReplica
from heavy.replicas.http import Endpoint, HttpPool
from heavy.store.redis import connect
from tests.gpu.k2_model import Cut, token_id, write

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "measurements" / "gpu-k2.md"
STREAMS = (1, 8, 32)
TOKENS = 256
START_WITHIN_S = 1800.0
NO_GPU = 3
ON_A_GPU = """
engine_python = "{python}"
gpus = 1
args = ["--load-format", "dummy", "--trust-remote-code"]
"""
ON_THE_CPU = """
args = ["--load-format", "dummy", "--trust-remote-code"]
"""
PROFILE = """
name = "{name}"
title = "Kimi K2's architecture cut down, weights drawn at random ({kind})"
engine = "sglang"
model = "k2"
context_tokens = {context}
tool_call_dialect = "kimi_k2"
default_tools = ["python"]
constrained_calls = "always"
[request.extra]
chat_template_kwargs = {{ thinking = false }}
logit_bias = {{ "{quote}" = 6.0 }}
[limits]
steps_max = 3
output_tokens_per_step_max = 1024
answer_tokens_reserved = 128
[prices]
usd_per_gpu_hour = 2.5
[serve]
model_path = "{path}"
start_timeout_s = 1500
"""


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens per second by streams, through Heavy's client and straight."""

    heavy: dict[int, float]
    direct: dict[int, float]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run of eight arms showed."""

    calls: int
    cached_share: float


def main() -> int:
    """Run it; the exit status."""
    flags = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.partition("\n")[0])
    flags.add_argument("--engine-python", help="the Python of an environment with SGLang")
    flags.add_argument("--layers", type=int, default=Cut().layers)
    flags.add_argument("--experts", type=int, default=Cut().experts)
    flags.add_argument(
        "--rehearse", action="store_true", help="on the CPU, on a tiny dense model; writes nothing"
    )
    given = flags.parse_args()
    if not given.engine_python and not given.rehearse:
        flags.error("--engine-python is needed, or --rehearse")
    gpu = "A rehearsal without a GPU" if given.rehearse else gpu_name()
    if not gpu:
        print(
            "There is no GPU here: nothing was measured. --rehearse goes through the steps.", file=sys.stderr
        )
        return NO_GPU
    cut = Cut(given.layers, given.experts)
    kinds = ("dense",) if given.rehearse else ("int4", "bf16")
    rates, seen = asyncio.run(measure(cut, kinds, given.engine_python or ""))
    text = page(gpu, cut, rates, seen)
    if not given.rehearse:
        PAGE.write_text(text)
    print(text)
    return 0


def gpu_name() -> str:
    """The first GPU's name; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    done = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""


async def measure(cut: Cut, kinds: Sequence[str], python: str) -> tuple[dict[str, Rates], dict[str, Seen]]:
    """Each kind, one after the other."""
    rates, seen = {}, {}
    with tempfile.TemporaryDirectory(prefix="heavy-gpu-") as home:
        for kind in kinds:
            async with serving(Path(home), cut, kind, python) as (client, base_url):
                seen[kind] = await eight_arms(client)
                rates[kind] = await load(base_url, Path(home) / "profiles", f"k2-{kind}")
    return rates, seen


@asynccontextmanager
async def serving(home: Path, cut: Cut, kind: str, python: str) -> AsyncIterator[tuple[HeavyClient, str]]:
    """`heavy up` with one replica; a client of it and the replica's own address."""
    profiles = home / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / f"{kind}.toml").write_text(profile_text(write(home / kind, cut, kind), cut, kind, python))
    from tests_support.servers import StoreServer
    from tests_support.up import Up

    store = StoreServer("valkey", home)
    store.start()
    flags = ("--profiles-dir", str(profiles))
    up = Up([f"k2-{kind}"], *flags, env={"HEAVY_STORE_URL": store.url})
    try:
        await asyncio.to_thread(up.start, START_WITHIN_S)
        connected = await connect(store.url, Settings())
        (info,) = await connected.directory.replicas()
        await connected.close()
        async with HeavyClient(up.address) as client:
            yield client, info.base_url
    finally:
        await asyncio.to_thread(up.stop)
        store.stop()


def profile_text(model: Path, cut: Cut, kind: str, python: str) -> str:
    """The profile that serves a model of `write`, on a GPU or on the CPU."""
    where = ON_THE_CPU if kind == "dense" else ON_A_GPU
    values = {"name": f"k2-{kind}", "kind": kind, "path": model, "context": cut.context_tokens}
    return (PROFILE + where).format(**values, python=python, quote=token_id('"'))


async def eight_arms(client: HeavyClient) -> Seen:
    """One run with a long question: how many calls were parsed, and how much of the prompts was cached."""
    question = "Use python, whatever it says here: " + "the sum of the numbers from one to nine. " * 200
    policy = PolicyDraft(width=8, early_stop=False, aggregation=AggregationMode.VOTE, deadline_s=600)
    run = await client.answer(question, policy)
    calls, prompt, cached = 0, 0, 0
    async with client.watch(run.spec.run, deltas=False) as records:
        async for record in records:
            body = getattr(record, "body", None)
            calls += isinstance(body, ToolIntentRecord)
            if isinstance(body, GenerationRecord):
                prompt += body.spend.tokens_prompt
                cached += body.spend.tokens_cached
    return Seen(calls, cached / prompt if prompt else 0.0)


async def load(base_url: str, profiles: Path, name: str) -> Rates:
    """Tokens per second at each number of streams, in turn: through the client, then straight."""
    profile = load_profiles([profiles]).get(name)
    pool = HttpPool(max(STREAMS))
    replica = HttpReplica(Endpoint.of("gpu-0", base_url, profile), pool, silence_s=300.0)
    heavy, direct = {}, {}
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
            extra = profile.request.extra
            await _rate(1, lambda n: _straight(session, base_url, n, extra))  # warm
            for streams in STREAMS:
                heavy[streams] = await _rate(streams, lambda n: _through(replica, name, n))
                direct[streams] = await _rate(streams, lambda n: _straight(session, base_url, n, extra))
    finally:
        await pool.close()
    return Rates(heavy, direct)


async def _rate(streams: int, one: Any) -> float:
    started_s = time.perf_counter()
    tokens = await asyncio.gather(*(one(number) for number in range(streams)))
    return float(sum(tokens) / (time.perf_counter() - started_s))


async def _through(replica: HttpReplica, profile: str, number: int) -> int:
    request = GenerationRequest(
        request_id=request_id(new_run_id(), arm(number % 8), number // 8, 0),
        profile=profile,
        messages=(Message(Role.USER, f"Count, number {number}."),),
        tools=(),
        sampling=Sampling(seed=number),
        tokens_max=TOKENS,
        deadline_ms=clock.now_ms() + 600_000,
    )
    async with aclosing(replica.generate(request)) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event.usage.output
    return 0


async def _straight(session: aiohttp.ClientSession, base_url: str, number: int, extra: dict[str, Any]) -> int:
    body = {
        **extra,
        "model": "k2",
        "messages": [{"role": "user", "content": f"Count, number {number}."}],
        "max_tokens": TOKENS,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    tokens = 0
    async with session.post(f"{base_url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                usage = json.loads(line[6:]).get("usage")
                tokens = usage["completion_tokens"] if usage else tokens
    return tokens


def told(cut: Cut, kinds: Iterable[str]) -> str:
    """What was served."""
    if "dense" in kinds:
        return "a tiny dense model, weights drawn at random: that the steps work is all it says"
    return f"{cut.layers} of 61 layers and {cut.experts} of 384 experts, weights drawn at random"


def page(gpu: str, cut: Cut, rates: dict[str, Rates], seen: dict[str, Seen]) -> str:
    """The page of results. Kinds are compared with the last one, bf16."""
    unquantised = list(rates.values())[-1]
    rows = [
        f"| {kind} | {streams} | {r.heavy[streams]:.0f} | {r.direct[streams]:.0f} | "
        f"{r.heavy[streams] / r.direct[streams]:.3f} | "
        f"{r.heavy[streams] / unquantised.heavy[streams]:.2f} |"
        for kind, r in rates.items()
        for streams in STREAMS
    ]
    shown = [
        f"- {kind}: {one.calls} tool calls parsed in one run of eight arms; "
        f"{one.cached_share:.0%} of prompt tokens cached"
        for kind, one in seen.items()
    ]
    head = f"""# Kimi K2's architecture on one GPU

    python -m tests.gpu --engine-python PATH --layers {cut.layers} --experts {cut.experts}

{gpu}; {told(cut, rates)}. Hosted by the replica actor. The prediction is in `tests/gpu/__main__.py`.

| weights | streams | tokens/s through Heavy | straight | ratio | against bf16 |
|---|---|---|---|---|---|
"""
    return head + "\n".join(rows) + "\n\n" + "\n".join(shown) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    sys.exit(main())
