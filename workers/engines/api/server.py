"""The routes of an engine server, over any `Engine`. `EngineServer` starts and stops it on a port."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from aiohttp import web

from heavy.telemetry.tracing import Tracing
from workers.engines.api import completion
from workers.engines.api.errors import ApiError, BadRequest, Draining, EngineFailed, NotFound
from workers.engines.api.generation import (
    ConnectionLoss,
    Engine,
    Event,
    Failed,
    Finished,
    Generation,
    Load,
    TextDelta,
    ToolCallDelta,
)
from workers.engines.api.life import sign_of_life
from workers.engines.api.metrics import EngineMetrics
from workers.engines.api.request import ChatRequest, parse_chat, parse_json, parse_tokenize
from workers.engines.api.traced import GenerationSpan

BODY_BYTES_MAX = 64 * 1024 * 1024
DRAIN_RETRY_AFTER_S = 5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Flight:
    """A generation that has been accepted and has not ended."""

    rid: str
    generation: Generation
    accepted: float
    span: GenerationSpan
    first_seen: bool = False


class EngineServer:
    """One engine behind HTTP. Lifecycle: start, (drain,) stop; stop is idempotent."""

    def __init__(self, engine: Engine, tracing: Tracing | None = None) -> None:
        self.engine = engine
        self._tracing = tracing or Tracing("", "engine")
        self.draining = False
        self._flights: dict[int, Flight] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._runner: web.AppRunner | None = None
        self._metrics: EngineMetrics | None = None
        self._leftovers: set[asyncio.Task[None]] = set()

    # -- lifecycle

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Start the engine, then listen. Returns the port; 0 picks a free one."""
        await self.engine.start()
        self._metrics = EngineMetrics(self.engine.info.engine, self.engine.info.name)
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._errors])
        app.add_routes(self._routes())
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, keepalive_timeout=75, shutdown_timeout=1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def drain(self, seconds: float) -> bool:
        """Accept nothing new, wait for what is in flight, at most so long. True when all of it ended."""
        self.draining = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
        return not self._flights

    async def stop(self) -> None:
        """Abort what runs, close the port, release the engine."""
        self.draining = True
        for flight in list(self._flights.values()):
            flight.generation.abort()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        await self.engine.stop()

    # -- routes

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self._chat),
            web.post("/abort_request", self._abort),
            web.get("/v1/loads", self._loads),
            web.get("/health", self._health),
            web.get("/health_generate", self._health_generate),
            web.get("/ready", self._health),
            web.get("/metrics", self._metrics_text),
            web.post("/v1/tokenize", self._tokenize),
            web.post("/tokenize", self._tokenize),
            web.get("/v1/models", self._models),
            web.get("/model_info", self._model_info),
            web.get("/server_info", self._server_info),
        ]

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The one place where refusals become responses."""
        try:
            return await handler(request)
        except ApiError as error:
            return self._refuse(error)
        except web.HTTPRequestEntityTooLarge as error:
            return self._refuse(
                BadRequest(f"{error.text}. Send less than {BODY_BYTES_MAX} bytes.", param="body")
            )

    def _refuse(self, error: ApiError) -> web.Response:
        assert self._metrics is not None
        self._metrics.refused(error.status)
        headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else None
        return web.json_response(error.body(), status=error.status, headers=headers)

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        self._accepting()
        rid = http.headers.get("x-override-rid") or uuid.uuid4().hex
        asked = parse_chat(parse_json(await http.read()), rid)
        self._served_here(asked.model)
        flight = await self._launch(asked, http.headers.get("traceparent", ""))
        envelope = completion.Envelope(asked.model or self.engine.info.name, asked.rid)
        try:
            if asked.stream:
                return await self._stream(http, flight, envelope, asked.include_usage)
            return await self._whole(http, flight, envelope)
        finally:
            flight.generation.abort()  # a reader that went away ends the generation; a no-op after its end
            self._land(flight)

    async def _stream(
        self, http: web.Request, flight: Flight, envelope: completion.Envelope, include_usage: bool
    ) -> web.StreamResponse:
        """Server-sent chunks. The status leaves with the first event: an early failure has its own."""
        events = self._observed(flight)
        first = await anext(events)
        if isinstance(first[0], Failed):
            raise first[0].error
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        )
        response.enable_chunked_encoding()
        await response.prepare(http)
        await response.write(envelope.chunk({"role": "assistant", "content": ""}))
        await response.write(self._encoded(first, envelope, include_usage))
        async for batch in events:
            await response.write(self._encoded(batch, envelope, include_usage))
            if isinstance(batch[-1], ConnectionLoss):
                first = batch
        if isinstance(first[-1], ConnectionLoss):
            _drop(http)
            return response
        await response.write_eof()
        return response

    @staticmethod
    def _encoded(batch: list[Event], envelope: completion.Envelope, include_usage: bool) -> bytes:
        """A batch of events as bytes of the stream."""
        out: list[bytes] = []
        for event in completion.merged(batch):
            if isinstance(event, Finished):
                out.append(envelope.chunk({}, event.reason))
                if include_usage:
                    out.append(envelope.usage_chunk(event.usage))
                out.append(completion.DONE)
            elif isinstance(event, Failed):
                out += [completion.sse_error(event.error), completion.DONE]
            elif isinstance(event, ConnectionLoss):
                out.append(event.last_bytes)
            else:
                out.append(envelope.chunk(completion.delta_json(event)))
        return b"".join(out)

    async def _whole(
        self, http: web.Request, flight: Flight, envelope: completion.Envelope
    ) -> web.StreamResponse:
        transcript = completion.Transcript()
        async for batch in self._observed(flight):
            for event in batch:
                if isinstance(event, TextDelta | ToolCallDelta):
                    transcript.add(event)
                elif isinstance(event, Finished):
                    return web.Response(
                        body=envelope.completion(transcript, event), content_type="application/json"
                    )
                elif isinstance(event, Failed):
                    raise event.error
                else:
                    _drop(http)
        raise EngineFailed("The connection was dropped on purpose.")

    async def _observed(self, flight: Flight) -> AsyncIterator[list[Event]]:
        """The generation's events until the terminal one, counted on the way."""
        assert self._metrics is not None
        while True:
            batch = list(await flight.generation.events())
            if not flight.first_seen:
                flight.first_seen = True
                flight.span.first()
                self._metrics.first_event(time.monotonic() - flight.accepted)
            if isinstance(batch[-1], Finished | Failed | ConnectionLoss):
                self._settle(flight, batch[-1])
                yield batch
                return
            yield batch

    async def _abort(self, http: web.Request) -> web.Response:
        """Ends every generation whose id starts with `rid`, as SGLang's scheduler does, or all of them."""
        body = parse_json(await http.read())
        rid, everything = body.get("rid", ""), body.get("abort_all", False)
        if not isinstance(rid, str) or not isinstance(everything, bool):
            raise BadRequest("rid must be a string and abort_all true or false.", param="rid")
        if not rid and not everything:
            raise BadRequest('Send {"rid": "<id or prefix>"} or {"abort_all": true}.', param="rid")
        ended = [flight for flight in self._flights.values() if everything or flight.rid.startswith(rid)]
        for flight in ended:
            flight.generation.abort()
        return web.json_response({"success": True, "aborted": len(ended)})

    async def _loads(self, http: web.Request) -> web.Response:
        return web.json_response(loads_json(self.engine.load(), self.engine.info.engine))

    async def _health(self, http: web.Request) -> web.Response:
        self._check_engine()
        self._accepting()
        return web.json_response({"status": "ok"})

    async def _health_generate(self, http: web.Request) -> web.Response:
        """As SGLang's: any step of the engine is enough, and an idle one generates a token for it."""
        self._check_engine()
        self._accepting()
        await sign_of_life(self.engine, busy=bool(self._flights))
        return web.json_response({"status": "ok"})

    async def _metrics_text(self, http: web.Request) -> web.Response:
        assert self._metrics is not None
        text = self._metrics.exposition(self.engine.load())
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _tokenize(self, http: web.Request) -> web.Response:
        asked = parse_tokenize(parse_json(await http.read()))
        tokens = await self.engine.tokenize(asked)
        payload = {"tokens": tokens, "count": len(tokens), "max_model_len": self.engine.info.context_tokens}
        return web.Response(body=orjson.dumps(payload), content_type="application/json")

    async def _models(self, http: web.Request) -> web.Response:
        info = self.engine.info
        card = {
            "id": info.name,
            "object": "model",
            "created": 0,
            "owned_by": info.engine,
            "root": info.name,
            "max_model_len": info.context_tokens,
        }
        return web.json_response({"object": "list", "data": [card]})

    async def _model_info(self, http: web.Request) -> web.Response:
        info = self.engine.info
        return web.json_response(
            {
                "model_path": info.path,
                "tokenizer_path": info.path,
                "is_generation": True,
                "engine": info.engine,
            }
        )

    async def _server_info(self, http: web.Request) -> web.Response:
        info, load = self.engine.info, self.engine.load()
        return web.json_response(
            {
                "engine": info.engine,
                "served_model_name": info.name,
                "context_length": info.context_tokens,
                "max_total_num_tokens": load.tokens_max,
                "max_running_requests": load.running_max,
                "max_queued_requests": load.waiting_max,
                **info.details,
            }
        )

    # -- parts

    def _check_engine(self) -> None:
        if (reason := self.engine.failure()) is not None:
            raise EngineFailed(f"The engine cannot go on: {reason}. Restart this server.")

    def _accepting(self) -> None:
        if self.draining:
            raise Draining(
                "This server is shutting down. Ask another replica.", retry_after_s=DRAIN_RETRY_AFTER_S
            )

    def _served_here(self, model: str) -> None:
        served = self.engine.info.name
        if model and model not in (served, "default"):
            raise NotFound(f"Model {model!r} is not served here; {served!r} is.", param="model")

    async def _launch(self, asked: ChatRequest, traceparent: str) -> Flight:
        assert self._metrics is not None
        generation = await self.engine.submit(asked)
        span = GenerationSpan(self._tracing, traceparent, asked.rid, self.engine.info)
        flight = Flight(asked.rid, generation, time.monotonic(), span)
        self._flights[id(flight)] = flight
        self._idle.clear()
        self._metrics.accepted()
        return flight

    def _settle(self, flight: Flight, last: Finished | Failed | ConnectionLoss) -> None:
        """Count the end of a flight, once."""
        assert self._metrics is not None
        if self._flights.pop(id(flight), None) is None:
            return
        flight.span.end(last, flight.generation.queued_s)
        if isinstance(last, Finished):
            self._metrics.finished(last, time.monotonic() - flight.accepted)
        else:
            self._metrics.failed()
        if not self._flights:
            self._idle.set()

    def _land(self, flight: Flight) -> None:
        """The handler is done; a generation whose reader went away is settled when its abort arrives."""
        if id(flight) in self._flights:
            task = asyncio.ensure_future(self._last_events(flight))
            self._leftovers.add(task)
            task.add_done_callback(self._leftovers.discard)

    async def _last_events(self, flight: Flight) -> None:
        async for _ in self._observed(flight):
            pass


def _drop(http: web.Request) -> None:
    """Cut the connection without the polite end of a response."""
    if http.transport is not None:
        http.transport.close()


def loads_json(load: Load, engine: str) -> dict[str, object]:
    """`/v1/loads` in SGLang's shape (one data-parallel rank), as far as our engines know the figures."""
    used = load.tokens / load.tokens_max if load.tokens_max else 0.0
    rank = {
        "dp_rank": 0,
        "num_running_reqs": load.running,
        "num_waiting_reqs": load.waiting,
        "num_waiting_uncached_tokens": load.waiting_tokens,
        "num_used_tokens": load.tokens,
        "num_total_tokens": load.tokens + load.waiting_tokens,
        "max_total_num_tokens": load.tokens_max,
        "token_usage": round(used, 4),
        "gen_throughput": round(load.tokens_per_s, 2),
        "cache_hit_rate": round(load.cache_hit_rate, 4),
        "utilization": round(load.running / load.running_max, 4) if load.running_max else 0.0,
        "max_running_requests": load.running_max,
        "max_waiting_requests": load.waiting_max,
    }
    return {
        "timestamp": datetime.now(UTC).isoformat(),
        "version": engine,
        "accelerator": None,
        "num_accelerators": 0,
        "loads": [rank],
    }


@asynccontextmanager
async def serving(engine: Engine, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve on a free port for the length of a block; yields the base URL. For tests and tools."""
    server = EngineServer(engine)
    port = await server.start(host)
    try:
        yield f"http://{host}:{port}"
    finally:
        await server.stop()
