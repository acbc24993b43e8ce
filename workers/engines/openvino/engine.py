"""The HTTP side of the OpenVINO engine: admission, prompts, and the traffic with the core process."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from workers.engines.api.admission import Admission
from workers.engines.api.errors import ContextOverflow, EngineFailed
from workers.engines.api.generation import Load, ModelInfo, Pulse
from workers.engines.api.request import ChatRequest, TokenizeRequest
from workers.engines.formats.splitter import Splitter
from workers.engines.openvino import grammar
from workers.engines.openvino.generation import OpenVinoGeneration
from workers.engines.openvino.link import ServerLink
from workers.engines.openvino.model import ModelDirectory
from workers.engines.openvino.prefix import BLOCK_TOKENS, PrefixBlocks
from workers.engines.openvino.prompt import Prompt, PromptMaker

KV_BYTES_DEFAULT = 2 * 1024**3
KV_CONTEXTS_DEFAULT = 16
RESERVED_COMPLETION_TOKENS = 1_024
CORE_START_S = 600.0
CORE_STOP_S = 10.0
THROUGHPUT_WINDOW_S = 5.0
T = TypeVar("T")
SEED_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class OpenVinoSettings:
    """How a model directory is served. None means: derived from the model."""

    path: Path
    name: str = ""
    device: str = "CPU"
    context_tokens: int | None = None
    kv_tokens: int | None = None
    running_max: int = 32
    waiting_max: int = 256
    batch_tokens_max: int = 2_048
    threads: int | None = None
    reasoning_parser: str = "auto"
    tool_call_parser: str = "auto"
    strict_tools: bool = False
    properties: dict[str, Any] = field(default_factory=dict)


class OpenVinoEngine:
    """Serves one model directory. Raises ValueError where the directory cannot be served."""

    def __init__(self, settings: OpenVinoSettings) -> None:
        self.settings = settings
        self.directory = ModelDirectory.read(settings.path)
        self.context_tokens = settings.context_tokens or self.directory.context_tokens
        self.kv_blocks = -(-(settings.kv_tokens or self._kv_tokens_default()) // BLOCK_TOKENS)
        self.admission = Admission(settings.running_max, settings.waiting_max, self.kv_blocks * BLOCK_TOKENS)
        self.prefix = PrefixBlocks(self.kv_blocks)
        self.pulse = Pulse()
        self._numbers = itertools.count(1)
        self._generations: dict[int, OpenVinoGeneration] = {}
        self._received: deque[tuple[float, int]] = deque()
        self._core: asyncio.subprocess.Process | None = None
        self._link: ServerLink | None = None
        self._reader: asyncio.Task[None] | None = None
        self._broken: str | None = None
        self._maker: PromptMaker | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prompts")

    # -- Engine

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        settings, maker = self.settings, self._maker
        details: dict[str, object] = {"device": settings.device, "strict_tools": settings.strict_tools}
        if maker is not None:
            output = maker.format
            details["reasoning_parser"] = output.reasoning.name if output.reasoning else "none"
            details["tool_call_parser"] = output.calls.name if output.calls else "none"
            details["detokenizer"] = "table" if maker.detokenizer.by_table else "window"
        name = settings.name or settings.path.resolve().name
        return ModelInfo("openvino", name, str(settings.path), self.context_tokens, details)

    async def start(self) -> None:
        """Start the core and load the tokenizer beside it. Raises ValueError or RuntimeError."""
        here, there = socket.socketpair()
        with there:
            self._core = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "workers.engines.openvino.core"),
                *("--fd", str(there.fileno()), "--settings", orjson.dumps(self._core_settings()).decode()),
                pass_fds=(there.fileno(),),
                stdout=sys.stderr.fileno() if _has_fd(sys.stderr) else None,
            )
        here.setblocking(False)
        self._link = ServerLink(*await asyncio.open_connection(sock=here))
        settings = self.settings
        self._maker = await self._aside(
            PromptMaker, self.directory, settings.reasoning_parser, settings.tool_call_parser
        )
        async with asyncio.timeout(CORE_START_S):
            if not await self._link.receive():
                raise RuntimeError("the core process could not load the model; its own message is above")
        self._reader = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Abort what runs and end the core."""
        link, self._link = self._link, None
        if link is not None:
            link.send({"stop": True})
            link.close()
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._lose("the server is stopping")
        core, self._core = self._core, None
        if core is not None:
            try:
                await asyncio.wait_for(core.wait(), CORE_STOP_S)
            except TimeoutError:
                core.kill()
                await core.wait()

    async def submit(self, request: ChatRequest) -> OpenVinoGeneration:
        """Queue a generation. Raises BadRequest, ContextOverflow, QueueFull, EngineFailed."""
        maker = self._ready()
        prompt = await self._aside(maker.prompt, request)
        tokens_max = self._completion_limit(len(prompt.ids), request.tokens_max)
        first_index = sum(len(message.get("tool_calls") or ()) for message in request.messages)
        splitter = Splitter(
            maker.format,
            in_reasoning=prompt.in_reasoning,
            calls_offered=bool(request.tools),
            first_index=first_index,
        )
        config = self._config(request, tokens_max, prompt, first_index)
        number = next(self._numbers)
        generation = OpenVinoGeneration(
            number, request, prompt, config, maker.detokenizer.stream(), splitter, self._cancel
        )
        self._ready()
        self._generations[number] = generation
        try:
            reserved = len(prompt.ids) + min(tokens_max, RESERVED_COMPLETION_TOKENS)
            generation.ticket = self.admission.enter(reserved, lambda: self._begin(generation))
        except BaseException:
            del self._generations[number]
            raise
        return generation

    async def tokenize(self, request: TokenizeRequest) -> list[int]:
        """See `Engine.tokenize`."""
        return await self._aside(self._ready().tokens, request)

    def load(self) -> Load:
        """The load at this moment."""
        settings, prefix = self.settings, self.prefix
        since = time.monotonic() - THROUGHPUT_WINDOW_S
        running = [
            one for one in self._generations.values() if one.ticket is None or one.ticket.state == "running"
        ]
        return Load(
            running=self.admission.running,
            waiting=self.admission.waiting,
            running_max=settings.running_max,
            waiting_max=settings.waiting_max,
            tokens=sum(generation.kv_tokens for generation in running),
            tokens_max=self.kv_blocks * BLOCK_TOKENS,
            waiting_tokens=self.admission.waiting_tokens,
            tokens_per_s=sum(count for when, count in self._received if when >= since) / THROUGHPUT_WINDOW_S,
            cache_hit_rate=prefix.hit / prefix.asked if prefix.asked else 0.0,
        )

    def failure(self) -> str | None:
        """Why the core cannot go on."""
        return self._broken

    # -- the core

    def _begin(self, generation: OpenVinoGeneration) -> None:
        """There is room: hand it to the core."""
        if self._link is not None:
            generation.cached = self.prefix.match(generation.prompt.ids)
            self._link.send(
                {"add": generation.number, "ids": generation.prompt.ids, "config": generation.config}
            )

    def _cancel(self, generation: OpenVinoGeneration) -> None:
        """Its reader needs no more. A waiting one leaves at once, a running one when the core says so."""
        ticket = generation.ticket
        if ticket is not None and ticket.state == "waiting":
            self._release(generation)
        elif self._link is not None:
            self._link.send({"cancel": generation.number})

    async def _read(self) -> None:
        """Everything the core reports, until it is gone."""
        assert self._link is not None
        while messages := await self._link.receive():
            self.pulse.beat()
            for message in messages:
                if "lost" in message:
                    self.prefix.clear()
                    self._lose(message["lost"], running_only=True)
                for number, ids, why, text in message.get("news", ()):
                    self._news(number, ids, why, text)
        self._broken = "the core process ended"
        self._lose(self._broken)

    def _news(self, number: int, ids: list[int], why: str, text: str) -> None:
        generation = self._generations.get(number)
        if generation is None:
            return
        if ids:
            self._count(len(ids))
            if not generation.ids:
                self.prefix.insert(generation.prompt.ids)
            generation.take(ids)
        if why:
            self.prefix.insert(generation.prompt.ids + generation.ids[:-1])
            generation.end(why, text)
            self._release(generation)

    def _count(self, tokens: int) -> None:
        now = time.monotonic()
        self._received.append((now, tokens))
        while self._received[0][0] < now - THROUGHPUT_WINDOW_S:
            self._received.popleft()

    def _lose(self, reason: str, running_only: bool = False) -> None:
        """End every generation that the core has lost."""
        for generation in tuple(self._generations.values()):
            waiting = generation.ticket is not None and generation.ticket.state == "waiting"
            if not (running_only and waiting):
                generation.end("lost", reason)
                self._release(generation)

    def _release(self, generation: OpenVinoGeneration) -> None:
        if self._generations.pop(generation.number, None) is not None and generation.ticket is not None:
            self.admission.leave(generation.ticket)

    # -- requests

    def _ready(self) -> PromptMaker:
        if self._broken is not None or self._maker is None or self._link is None:
            raise EngineFailed(
                f"The engine does not run: {self._broken or 'not started'}. Restart this server."
            )
        return self._maker

    def _completion_limit(self, prompt_tokens: int, asked: int | None) -> int:
        left = self.context_tokens - prompt_tokens
        if left < 1 or (asked or 1) > left:
            raise ContextOverflow(
                f"The prompt has {prompt_tokens} tokens and max_tokens is {asked}; the context holds "
                f"{self.context_tokens}. Shorten the messages or lower max_tokens.",
                param="messages" if left < 1 else "max_tokens",
            )
        return asked or left

    def _config(
        self, request: ChatRequest, tokens_max: int, prompt: Prompt, first_index: int
    ) -> dict[str, Any]:
        """A generation's settings in openvino_genai's names."""
        maker = self._ready()
        ends = () if request.ignore_eos else (*self.directory.stop_token_ids, maker.eos_token_id)
        stops = sorted({*ends} - {-1})
        asked = {name: getattr(request.sampling, name) for name in request.sampling.__slots__}
        sampling = {
            **self.directory.sampling,
            **{name: one for name, one in asked.items() if one is not None},
        }
        seed = sampling.pop("seed", None)
        config: dict[str, Any] = {"max_new_tokens": tokens_max, "stop_token_ids": stops}
        config["ignore_eos"] = request.ignore_eos
        if stops:
            config["eos_token_id"] = maker.eos_token_id if maker.eos_token_id in stops else stops[0]
        if sampling.get("temperature", 1.0) == 0:
            sampling = {}
        else:
            config["do_sample"] = True
            config["rng_seed"] = secrets.randbits(32) if seed is None else seed & SEED_MASK
        if "top_k" in sampling:
            sampling["top_k"] = int(sampling["top_k"])
        constraint = self._constraint(request, prompt, first_index)
        return config | sampling | ({"constraint": constraint} if constraint else {})

    def _constraint(self, request: ChatRequest, prompt: Prompt, first_index: int) -> dict[str, Any] | None:
        """What the output must look like, if anything: a forced call, a schema, or strict calls."""
        output = self._ready().format
        closing = output.reasoning.end if output.reasoning and prompt.in_reasoning else ""
        if request.must_call and output.calls is not None:
            return grammar.one_call(output.calls, request.tools, request.forced_tool, first_index, closing)
        if request.json_schema is not None:
            return grammar.one_json(orjson.loads(request.json_schema), closing)
        strict = self.settings.strict_tools or request.strict_calls
        if strict and request.tools and output.calls is not None:
            return grammar.well_formed_calls(output.calls, request.tools)
        return None

    async def _aside(self, call: Callable[..., T], *given: object) -> T:
        """Run a call on the thread that makes prompts, in order of arrival."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, call, *given)

    # -- sizes

    def _kv_tokens_default(self) -> int:
        """As many contexts as the default budget of memory holds, at least one."""
        wanted = KV_CONTEXTS_DEFAULT * self.context_tokens
        if self.directory.kv_bytes_per_token:
            wanted = min(wanted, KV_BYTES_DEFAULT // self.directory.kv_bytes_per_token)
        return max(wanted, self.context_tokens)

    def _core_settings(self) -> dict[str, Any]:
        settings = self.settings
        properties = dict(settings.properties)
        if settings.threads is not None:
            properties["INFERENCE_NUM_THREADS"] = settings.threads
        return {
            "path": str(settings.path.resolve()),
            "device": settings.device,
            "kv_blocks": self.kv_blocks,
            "running_max": settings.running_max,
            "batch_tokens_max": settings.batch_tokens_max,
            "properties": properties,
        }


def _has_fd(stream: Any) -> bool:
    """Whether a stream is a real file: test runners replace standard error."""
    try:
        return isinstance(stream.fileno(), int)
    except (AttributeError, OSError, ValueError):
        return False
