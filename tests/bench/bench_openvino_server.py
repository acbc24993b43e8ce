"""Tokens per second through the OpenVINO server's HTTP API against the bare pipeline, in one run, as a ratio.

Both sides generate the same number of tokens for the same prompts with the same scheduler settings and one
inference thread; the HTTP side streams every token to a client in this process. Pairs of runs alternate, and
the ratio is the median of the pairs' ratios, so that a machine that slows down slows both.

Prediction, written before the first measurement: on a model so small that a decoding step takes well under a
millisecond, the work around a token (one JSON report per step, detokenising, splitting, one SSE chunk, and
the client that reads it) costs about 60 microseconds, on a core of its own where there is one. So the ratio
should be about 0.8 at 1 stream, 0.6 at 8 and 0.4 at 32; on an 8B-class model, at 100 ms a step, above
0.99.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "untrained, 0.1M parameters": ROOT / "tests" / "fixtures" / "models" / "tiny-k2-int4",
    "Abacus, 2M parameters": ROOT / "workers" / "abacus" / "weights" / "int4",
}
STREAMS = (1, 8, 32)
TOKENS = 100
"""Tokens of each generation."""
SECONDS = 20.0
"""Time for all of it, model loading aside."""
KV_TOKENS = 65_536
PROMPT = "Count the sum of the numbers, step by step, and check it again. "
READY_S = 120.0

BARE = f"""
import json, sys, time
import numpy, openvino, openvino_genai as genai
path, tokens = sys.argv[1], int(sys.argv[2])
scheduler = genai.SchedulerConfig()
scheduler.num_kv_blocks = {KV_TOKENS} // 32
scheduler.max_num_seqs = 32
scheduler.max_num_batched_tokens = 2048
scheduler.enable_prefix_caching = True
pipeline = genai.ContinuousBatchingPipeline(path, scheduler, "CPU", {{"INFERENCE_NUM_THREADS": 1}})
print("ready", flush=True)
for line in sys.stdin:
    handles = []
    start = time.perf_counter()
    for number, (seed, ids) in enumerate(json.loads(line)):
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = tokens, True
        config.do_sample, config.rng_seed = True, seed
        tensor = openvino.Tensor(numpy.array([ids], dtype=numpy.int64))
        handles.append(pipeline.add_request(number, tensor, config))
    made = 0
    while pipeline.has_non_finished_requests():
        pipeline.step()
        for handle in handles:
            while handle.can_read():
                made += sum(len(output.generated_ids) for output in handle.read().values())
    print(made / (time.perf_counter() - start), flush=True)
"""


class Bare:
    """The pipeline alone, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, model: Path, tokens: int) -> Bare:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BARE, str(model), str(tokens)), stdin=pipe, stdout=pipe
        )
        bare = cls(process)
        await bare.line()
        return bare

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), READY_S)).decode().strip()

    async def tokens_per_s(self, prompts: list[tuple[int, list[int]]]) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(prompts).encode() + b"\n")
        return float(await self.line())


async def over_http(
    session: aiohttp.ClientSession, url: str, texts: list[tuple[int, str]], tokens: int
) -> float:
    """Tokens per second of so many streams, counted by their usage."""

    async def one(seed: int, text: str) -> int:
        body = {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "seed": seed,
            "temperature": 1.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        made = 0
        async with session.post(url + "/v1/chat/completions", json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {") and b'"usage":{' in line:
                    made = json.loads(line[6:])["usage"]["completion_tokens"]
        return made

    start = time.perf_counter()
    made = await asyncio.gather(*(one(seed, text) for seed, text in texts))
    return sum(made) / (time.perf_counter() - start)


async def measure(model: Path) -> list[dict[str, Any]]:
    """Every number of streams, pairs alternating until the time is up."""
    flags = ["--model-path", str(model), "--threads", "1", "--die-with-parent"]
    flags += ["--max-total-tokens", str(KV_TOKENS)]
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers.engines.openvino", *flags), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert server.stdout is not None
    ready = json.loads(await asyncio.wait_for(server.stdout.readline(), READY_S))
    url = f"http://{ready['host']}:{ready['port']}"
    bare = await Bare.start(model, TOKENS)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            rows = [await _pairs(session, url, bare, streams) for streams in STREAMS]
    finally:
        for process in (server, bare.process):
            process.terminate()
            await process.wait()
    return rows


async def _pairs(session: aiohttp.ClientSession, url: str, bare: Bare, streams: int) -> dict[str, Any]:
    """One row: medians of both sides and of their ratio. The first pair warms up and is not counted."""
    texts = [(seed, f"{seed} {PROMPT}") for seed in range(streams)]
    prompts = []
    for seed, text in texts:
        body = {"messages": [{"role": "user", "content": text}]}
        async with session.post(url + "/v1/tokenize", json=body) as response:
            prompts.append((seed, (await response.json())["tokens"]))
    pairs: list[tuple[float, float]] = []
    end = time.monotonic() + SECONDS / len(STREAMS)
    while len(pairs) < 2 or (time.monotonic() < end and len(pairs) < 12):
        pairs.append((await bare.tokens_per_s(prompts), await over_http(session, url, texts, TOKENS)))
    counted = pairs[1:]
    return {
        "streams": streams,
        "bare_tokens_per_s": round(statistics.median(one for one, _ in counted)),
        "http_tokens_per_s": round(statistics.median(two for _, two in counted)),
        "ratio": round(statistics.median(two / one for one, two in counted), 3),
        "pairs": len(counted),
    }


def main() -> None:
    """Print a table for each model; about half a minute on a quiet machine."""
    for name, model in MODELS.items():
        rows = asyncio.run(measure(model))
        print(f"{name}; {TOKENS} tokens a stream, one inference thread")
        print(f"{'streams':>8} {'bare tok/s':>11} {'HTTP tok/s':>11} {'ratio':>6} {'pairs':>6}")
        for row in rows:
            form = "{streams:>8} {bare_tokens_per_s:>11} {http_tokens_per_s:>11} {ratio:>6} {pairs:>6}"
            print(form.format(**row))
