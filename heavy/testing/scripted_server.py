"""A real HTTP server that answers what a test tells it to: any bytes in any pieces, stalls, drops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

import orjson
from aiohttp import web

CHAT = "/v1/chat/completions"
ABORT = "/abort_request"
WAIT_S = 10.0


class Act(Enum):
    """What a reply may do between its bytes."""

    STALL = "stall"
    """Send nothing more until the client is gone, or has the generation aborted."""
    GATE = "gate"
    """Wait until the test opens the server's gate."""
    DROP = "drop"
    """Cut the connection without the polite end of a response."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: its status and headers, then bytes and acts in order, each `bytes` a write of its own."""

    parts: Sequence[bytes | Act] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    mute: bool = False
    """Answer nothing at all, not even a status."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived, on the monotonic clock."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float

    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)


OK = Reply()


class ScriptedServer:
    """Answers each path by its replies in order, the last one again and again; 404 for other paths.

    An async context manager. `received` holds every request; `open` counts chat completions being answered.
    """

    def __init__(self, chat: Reply | Iterable[Reply] = OK, **paths: Reply | Iterable[Reply]) -> None:
        self._replies = {CHAT: _listed(chat), ABORT: [OK]}
        self._replies |= {f"/{name}": _listed(replies) for name, replies in paths.items()}
        self.received: list[Received] = []
        self.open = 0
        self.open_peak = 0
        self.gate = asyncio.Event()
        self._aborted: set[str] = set()
        self.base_url = ""
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    def on(self, path: str, *replies: Reply) -> None:
        """Answer a path like this from now on."""
        self._replies[path] = list(replies)

    def of(self, path: str) -> list[Received]:
        """The requests for one path so far."""
        return [one for one in self.received if one.path == path]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until requests that came or ended make the condition true; bounded."""
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(condition)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append(Received(request.path, dict(request.headers), body, time.monotonic()))
        chat = request.path == CHAT
        self.open += chat
        self.open_peak = max(self.open, self.open_peak)
        try:
            await self._tell()
            replies = self._replies.get(request.path)
            if not replies:
                return web.json_response({"detail": "Not Found"}, status=404)
            reply = replies[0] if len(replies) == 1 else replies.pop(0)
            response = await self._answer(request, reply, _rid(body))
            if request.path == ABORT and response.status == 200:
                self._aborted.add(_rid(body))
            return response
        finally:
            self.open -= chat
            await self._tell()

    async def _answer(self, request: web.Request, reply: Reply, rid: str) -> web.StreamResponse:
        if reply.mute:
            await asyncio.Event().wait()
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        await response.prepare(request)
        for part in reply.parts:
            if part is Act.STALL:
                async with self._changed:
                    await self._changed.wait_for(lambda: bool(rid) and rid in self._aborted)
                break
            if part is Act.GATE:
                await self.gate.wait()
            elif part is Act.DROP:
                if request.transport is not None:
                    request.transport.close()
                return response
            elif isinstance(part, bytes):
                await response.write(part)
        await response.write_eof()
        return response

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _rid(body: bytes) -> str:
    """The id of the generation that a request is about; empty where it is about none."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(asked.get("rid", "")) if isinstance(asked, dict) else ""


def _listed(replies: Reply | Iterable[Reply]) -> list[Reply]:
    return [replies] if isinstance(replies, Reply) else list(replies)


def event(payload: object) -> bytes:
    """One server-sent event holding JSON."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One chunk of a completion as an event."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return event({"object": "chat.completion.chunk", "model": "m", "choices": [choice], **more})


def usage(prompt: int, output: int, **more: Any) -> bytes:
    """The usage chunk as an event."""
    return event(
        {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output, **more}, "model": "m"}
    )


DONE = b"data: [DONE]\n\n"


def answer(text: str = "Answer: 4", *, reasoning: str = "") -> Reply:
    """A whole, well-formed stream."""
    thought = (chunk({"reasoning_content": reasoning}),) if reasoning else ()
    parts = (
        chunk({"role": "assistant", "content": ""}),
        *thought,
        chunk({"content": text}),
        chunk(finish="stop"),
    )
    return Reply((*parts, usage(7, 3), DONE))
