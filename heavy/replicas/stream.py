"""The stream of one generation: its bounds in time and size, and its chunks as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from heavy.core import clock
from heavy.core.errors import EngineTimeout, HeavyError, MalformedStream
from heavy.core.records import GenerationTiming
from heavy.replicas import translate
from heavy.replicas.openai_json import DONE, Chunk, WireError, read_chunk
from heavy.replicas.sse import SseEvent, SseParser
from heavy.replicas.translate import Speaker

STREAM_BYTES_MAX: Final = 512 * 1024 * 1024
BODY_BYTES_MAX: Final = 16 * 1024 * 1024
AFTER_FINISH_S: Final = 5.0
"""How long usage and the end of the stream may take once the finish reason is there."""


class Watch:
    """The times of one generation. Silence and the deadline are looked at before every wait."""

    def __init__(self, replica: str, deadline_ms: int, silence_s: float) -> None:
        self._replica = replica
        self._deadline_ms = deadline_ms
        self._silence_s = silence_s
        self._asked_s = clock.monotonic_s()
        self._first_s = 0.0
        self._last_s = 0.0
        self.may_run = False
        """Whether the engine may hold this generation: asked, and not refused."""

    def spoke(self) -> None:
        """The model said something just now."""
        self._last_s = clock.monotonic_s()
        self._first_s = self._first_s or self._last_s

    def timing(self) -> GenerationTiming:
        """The times so far; nothing was waited for before the request."""
        return GenerationTiming(
            queue_s=0.0,
            first_token_s=max(0.0, self._first_s - self._asked_s),
            decode_s=self._last_s - self._first_s,
        )

    @asynccontextmanager
    async def patience(self, silence_s: float | None = None) -> AsyncIterator[None]:
        """Bounds one wait for the server. Raises `EngineTimeout`."""
        silence_s = self._silence_s if silence_s is None else silence_s
        left_s = clock.remaining_s(self._deadline_ms)
        bound = asyncio.timeout(min(silence_s, left_s))
        try:
            async with bound:
                yield
        except TimeoutError as error:
            if not bound.expired():
                raise
            what = (
                f"was silent for {silence_s:g} s" if silence_s < left_s else "had not ended by the deadline"
            )
            raise EngineTimeout(f"Replica {self._replica} {what}.", self._replica) from error


class ChunkReader:
    """Reads a response as chunks of a completion."""

    def __init__(self, response: aiohttp.ClientResponse, speaker: Speaker, watch: Watch) -> None:
        self._response = response
        self._speaker = speaker
        self._watch = watch
        self._events = SseParser(speaker.replica)
        self._bytes = 0
        self._done = False
        self._failure: HeavyError | None = None

    async def read(self, *, finished: bool) -> list[Chunk] | None:
        """The next chunks, or None at the end. Once `finished`, whatever goes wrong is only the end.

        Raises `MalformedStream`, `EngineTimeout` and what an error object in the stream stands for.
        """
        if self._failure is not None:
            raise self._failure
        if self._done:
            return None
        try:
            async with self._watch.patience(AFTER_FINISH_S if finished else None):
                piece = await self._response.content.readany()
        except (aiohttp.ClientError, OSError, EngineTimeout):
            if finished:
                return None
            raise
        return self._chunks(piece) if piece else None

    def _chunks(self, piece: bytes) -> list[Chunk]:
        """What a piece of the stream completes. A failure waits until the chunks before it are read."""
        chunks: list[Chunk] = []
        try:
            self._bytes += len(piece)
            if self._bytes > STREAM_BYTES_MAX:
                raise self._malformed(f"is longer than {STREAM_BYTES_MAX} bytes")
            for event in self._events.feed(piece):
                if event.data == DONE:
                    self._done = True
                    break
                chunks.append(self._chunk(event))
        except HeavyError as error:
            if not chunks:
                raise
            self._failure = error
        return chunks

    def _chunk(self, event: SseEvent) -> Chunk:
        try:
            chunk = read_chunk(event.data)
        except ValueError as error:
            if event.name == "error":
                chunk = WireError(event.data.decode("utf-8", "replace"))
            else:
                raise self._malformed(f"holds an event that {error}") from error
        if isinstance(chunk, WireError):
            raise translate.stream_error(self._speaker, chunk)
        return chunk

    def _malformed(self, what: str) -> MalformedStream:
        return MalformedStream(f"Replica {self._speaker.replica}: its stream {what}.", self._speaker.replica)


async def check_answer(response: aiohttp.ClientResponse, speaker: Speaker) -> None:
    """Raise what a response other than 200 stands for."""
    if response.status != 200:
        body = await read_body(response)
        raise translate.refusal(speaker, response.status, body, response.headers.get("Retry-After"))


async def check_stream(response: aiohttp.ClientResponse, speaker: Speaker) -> None:
    """Raise `MalformedStream`, or the error in it, when a 200 answer is a document and no stream."""
    if response.content_type in ("application/json", "text/html"):
        body = await read_body(response)
        try:
            chunk = read_chunk(body)
        except ValueError:
            chunk = None
        if isinstance(chunk, WireError):
            raise translate.stream_error(speaker, chunk)
        raise MalformedStream(
            f"Replica {speaker.replica} answered {response.content_type} and not an event stream: "
            f"is base_url the address of an OpenAI-compatible API, with its version path?",
            speaker.replica,
        )


async def has_ended(response: aiohttp.ClientResponse, within_s: float) -> bool:
    """Whether a stream comes to its end, in order or not, within so long. What it still says is dropped."""
    try:
        async with asyncio.timeout(within_s):
            while await response.content.readany():
                pass
    except TimeoutError:
        return False
    except (aiohttp.ClientError, OSError):
        pass
    return True


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """A whole body, cut at `BODY_BYTES_MAX`."""
    pieces: list[bytes] = []
    left = BODY_BYTES_MAX
    while left > 0 and (piece := await response.content.read(min(left, 1 << 16))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
