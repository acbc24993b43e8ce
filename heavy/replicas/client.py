"""One model server behind the `Replica` protocol: streaming, stopping, counting, load and health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import orjson

from heavy.core.errors import EngineRefused, EngineTimeout, HeavyError, MalformedStream
from heavy.core.messages import Message
from heavy.core.tools import ToolSpec
from heavy.replicas import translate
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest, ReplicaLoad, TextDelta
from heavy.replicas.assembly import Assembly
from heavy.replicas.http import Endpoint, HttpPool
from heavy.replicas.openai_json import (
    Chunk,
    estimated_prompt_tokens,
    read_load,
    read_token_count,
    request_body,
    tokenize_body,
)
from heavy.replicas.stream import (
    ChunkReader,
    Watch,
    check_answer,
    check_stream,
    has_ended,
    read_body,
)
from heavy.replicas.translate import Speaker

logger = logging.getLogger(__name__)

ABORTS_MAX: Final = 2
CONFIRMED_WITHIN_S: Final = 0.2
"""How soon an aborted stream must have ended; SGLang's did after 14 ms, a busy one does after a step."""
COUNT_S: Final = 5.0
"""How long counting a prompt's tokens may take before it is estimated."""


class HttpReplica:
    """Implements `heavy.replicas.api.Replica` over one OpenAI-compatible or SGLang server.

    With the `sglang` dialect a generation that does not end in order is stopped by `/abort_request`; with
    `openai` dropping the connection is all there is. `silence_s` bounds the wait for the first and for
    every further byte.
    """

    def __init__(self, endpoint: Endpoint, pool: HttpPool, *, silence_s: float) -> None:
        self.endpoint = endpoint
        self._pool = pool
        self._silence_s = silence_s
        self._tokenizes = endpoint.dialect == "sglang"

    @property
    def continues(self) -> bool:
        """Whether this server can go on from half an answer."""
        return self.endpoint.dialect == "sglang" and self.endpoint.request.continues

    # -- generation

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Stream one generation; see the protocol. Raises its errors, `ConfigError` for a missing key."""
        watch = Watch(self.endpoint.replica, request.deadline_ms, self._silence_s)
        assembly = Assembly()
        async with self._opened(request, watch) as (response, speaker):
            reader = ChunkReader(response, speaker, watch)
            while (chunks := await reader.read(finished=assembly.finish is not None)) is not None:
                delta = _added(assembly, chunks, speaker)
                if assembly.begun:
                    watch.spoke()
                if delta is not None:
                    yield delta
            finished = self._finished(assembly, request, watch)
        yield finished

    @asynccontextmanager
    async def _opened(
        self, request: GenerationRequest, watch: Watch
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Speaker]]:
        """The response that streams, closed at the end. Whatever foreign is raised inside is translated.

        Where a block does not end in order, the engine is told to stop before that.
        """
        speaker = self.endpoint.speaker()
        response: aiohttp.ClientResponse | None = None
        try:
            async with watch.patience():
                watch.may_run = True
                response = await self._post(request)
                watch.may_run = response.status == 200
                await check_answer(response, speaker)
                await check_stream(response, speaker)
            yield response, speaker
        except BaseException as error:
            if watch.may_run and not isinstance(error, aiohttp.ClientConnectorError):
                await self._stop(request.request_id, response)
            if isinstance(error, aiohttp.ClientError | OSError):
                raise translate.connection_lost(speaker, error) from error
            raise
        finally:
            if response is not None:
                response.release()  # closes the connection unless the answer was read to its end

    async def _post(self, request: GenerationRequest) -> aiohttp.ClientResponse:
        endpoint = self.endpoint
        headers = endpoint.headers(request_id=request.request_id, traceparent=request.traceparent)
        return await self._pool.session.post(
            endpoint.url("/chat/completions"),
            data=request_body(request, endpoint.model, endpoint.dialect, endpoint.request),
            headers=headers,
            allow_redirects=False,
        )

    def _finished(self, assembly: Assembly, request: GenerationRequest, watch: Watch) -> Finished:
        replica = self.endpoint.replica
        if assembly.filtered:
            raise EngineRefused(
                f"Replica {replica}: the provider's content filter ended the answer.", replica
            )
        if assembly.finish is None:
            raise MalformedStream(f"Replica {replica} ended its stream without a finish reason.", replica)
        return Finished(
            content=assembly.content,
            reasoning=assembly.reasoning,
            tool_calls=assembly.calls(),
            finish_reason=assembly.finish,
            usage=assembly.usage(request.messages, request.tools),
            replica=replica,
            model=assembly.model or self.endpoint.model,
            timing=watch.timing(),
            request_id=request.request_id,
        )

    async def _stop(self, request_id: str, response: aiohttp.ClientResponse | None) -> None:
        """Tell the engine to stop, if it can be told; bounded, and seen through when cancelled."""
        if self.endpoint.dialect == "sglang":
            await self._pool.see_through(self._abort(request_id, response))

    async def _abort(self, request_id: str, response: aiohttp.ClientResponse | None) -> None:
        """Abort, and once more where that does not end the stream: its end confirms that nothing runs."""
        for _ in range(ABORTS_MAX):
            await self._tell_to_stop(request_id)
            if response is None or await has_ended(response, CONFIRMED_WITHIN_S):
                return
        logger.warning(
            "replica %s did not confirm that it ended %s; its connection is dropped",
            self.endpoint.replica,
            request_id,
        )

    async def _tell_to_stop(self, request_id: str) -> None:
        try:
            response = await self._pool.session.post(
                self.endpoint.root_url("/abort_request"),
                data=orjson.dumps({"rid": request_id}),
                headers=self.endpoint.headers(),
                allow_redirects=False,
            )
            response.release()
        except (aiohttp.ClientError, OSError) as error:
            logger.info("replica %s was not told to stop %s: %s", self.endpoint.replica, request_id, error)

    # -- questions

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """Prompt tokens by `/v1/tokenize`; the estimate where the server has none or fails to answer."""
        if self._tokenizes:
            try:
                return await self._counted(messages, tools)
            except EngineRefused as error:
                self._tokenizes = False
                logger.warning("%s Prompt tokens are estimated from now on.", error)
            except HeavyError as error:
                logger.info("%s Prompt tokens are estimated this time.", error)
        return estimated_prompt_tokens(messages, tools)

    async def _counted(self, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]) -> int:
        asked = tokenize_body(messages, tools, self.endpoint.model)
        body = await self._ask(self.endpoint.root_url("/v1/tokenize"), COUNT_S, asked)
        try:
            return read_token_count(body)
        except ValueError as error:
            raise self._refused(f"its token count {error}") from error

    async def load(self, timeout_s: float) -> ReplicaLoad:
        """The engine's own load report (`sglang` dialect only). Raises EngineError."""
        body = await self._ask(self.endpoint.root_url("/v1/loads"), timeout_s)
        try:
            return read_load(body)
        except ValueError as error:
            raise self._refused(f"its load report {error}") from error

    async def check_health(self, timeout_s: float) -> None:
        """Returns when the server has generated something; other servers than SGLang's list their models.

        Raises EngineError.
        """
        sglang = self.endpoint.dialect == "sglang"
        url = self.endpoint.root_url("/health_generate") if sglang else self.endpoint.url("/models")
        await self._ask(url, timeout_s)

    async def _ask(self, url: str, timeout_s: float, body: bytes | None = None) -> bytes:
        """The body of a 200 answer: to a POST where there is a body to send, else to a GET."""
        speaker = self.endpoint.speaker()
        try:
            async with asyncio.timeout(timeout_s) as bound:
                response = await self._pool.session.request(
                    "GET" if body is None else "POST",
                    url,
                    data=body,
                    headers=self.endpoint.headers(),
                    allow_redirects=False,
                )
                async with response:
                    await check_answer(response, speaker)
                    return await read_body(response)
        except (aiohttp.ClientError, OSError) as error:
            if bound.expired():
                said = f"Replica {speaker.replica} did not answer {url} within {timeout_s:g} s."
                raise EngineTimeout(said, speaker.replica) from error
            raise translate.connection_lost(speaker, error) from error

    def _refused(self, what: str) -> EngineRefused:
        return EngineRefused(f"Replica {self.endpoint.replica}: {what}.", self.endpoint.replica)


def _added(assembly: Assembly, chunks: list[Chunk], speaker: Speaker) -> TextDelta | None:
    try:
        return assembly.add(chunks)
    except ValueError as error:
        raise MalformedStream(f"Replica {speaker.replica}: its stream {error}.", speaker.replica) from error
