"""A remote API as a vendor runs it: an engine behind a key that takes OpenAI's fields and no others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web

KEY: Final = "sk-plain-0123456789"
MODEL: Final = "plain-1"
FIELDS: Final = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "seed"),
        *("stop", "tools", "tool_choice"),
    }
)
MESSAGE_FIELDS: Final = frozenset(
    {"role", "content", "name", "tool_call_id", "tool_calls", "reasoning_content"}
)


@dataclass
class PlainApi:
    """In front of `engine_url`. `busy` requests are answered 429 first; `asked` has what was let through."""

    engine_url: str
    engine_model: str
    busy: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    base_url: str = ""

    async def __aenter__(self) -> PlainApi:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._http = aiohttp.ClientSession()
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._http.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/v1/chat/completions":
            return self._refusal(404, f"no such endpoint: {request.path}", "unknown_url")
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return self._refusal(401, "Incorrect API key provided", "invalid_api_key")
        body = await request.json()
        strange = set(body) - FIELDS | {
            name for one in body["messages"] for name in set(one) - MESSAGE_FIELDS
        }
        if strange:
            return self._refusal(
                400, f"Unrecognized request argument: {sorted(strange)}", "invalid_request_error"
            )
        if body["model"] != MODEL:
            return self._refusal(404, f"The model `{body['model']}` does not exist", "model_not_found")
        if self.busy:
            self.busy -= 1
            return self._refusal(429, "Rate limit reached", "rate_limit_exceeded", {"Retry-After": "0.2"})
        self.asked.append(body)
        return await self._forward(request, {**body, "model": self.engine_model})

    async def _forward(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        async with self._http.post(f"{self.engine_url}/v1/chat/completions", json=body) as answer:
            reply = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await reply.prepare(request)
            async for data in answer.content.iter_any():
                await reply.write(data)
            await reply.write_eof()
            return reply

    def _refusal(
        self, status: int, message: str, code: str, headers: dict[str, str] | None = None
    ) -> web.Response:
        self.refused.append(f"{status} {code}")
        error = {"message": message, "type": "invalid_request_error", "code": code}
        return web.json_response({"error": error}, status=status, headers=headers)
