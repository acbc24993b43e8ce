"""The few calls that checks of engine servers make over HTTP, and an answer collected."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

WAIT_S = 20.0
POLL_S = 0.02
QUESTION = [
    {"role": "user", "content": "What is the sum of the numbers from one to nine, step by step? " * 3}
]


@dataclass(slots=True)
class Said:
    """One answer, collected."""

    content: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, str, list[tuple[str, str, str]]]:
        """What was said, without what it cost."""
        calls = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in self.calls]
        return self.content, self.reasoning, calls


class Client:
    """The few calls that the checks make."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def get(self, path: str) -> Any:
        async with self.session.get(self.url + path) as response:
            assert response.status == 200, (path, response.status, await response.text())
            return await response.json()

    async def post(self, path: str, body: Any) -> tuple[int, Any, Any]:
        """Status, JSON and headers."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            text = await response.text()
            try:
                return response.status, json.loads(text or "{}"), response.headers
            except ValueError:
                return response.status, {"text": text}, response.headers

    async def say(self, **body: Any) -> Said:
        """A completion that is not streamed."""
        status, answer, _ = await self.post("/v1/chat/completions", {"messages": QUESTION, **body})
        assert status == 200, (status, answer)
        choice = answer["choices"][0]
        message = choice["message"]
        return Said(
            message["content"] or "",
            message.get("reasoning_content") or "",
            message.get("tool_calls") or [],
            choice["finish_reason"],
            answer["usage"],
        )

    async def chunks(self, **body: Any) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a stream, until [DONE]."""
        body = {"messages": QUESTION, "stream": True, "stream_options": {"include_usage": True}, **body}
        async with self.session.post(self.url + "/v1/chat/completions", json=body) as response:
            assert response.status == 200, (response.status, await response.text())
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    return
                yield json.loads(line[6:].decode("utf-8"))

    async def stream(self, **body: Any) -> Said:
        """A streamed completion, collected."""
        said = Said()
        async for chunk in self.chunks(**body):
            said.usage = chunk.get("usage") or said.usage
            for choice in chunk.get("choices") or ():
                said.finish = choice["finish_reason"] or said.finish
                delta = choice["delta"]
                said.content += delta.get("content") or ""
                said.reasoning += delta.get("reasoning_content") or ""
                for part in delta.get("tool_calls") or ():
                    _collect(said.calls, part)
        return said

    async def load(self) -> dict[str, Any]:
        """The first rank of /v1/loads."""
        return (await self.get("/v1/loads"))["loads"][0]

    async def metric(self, name: str) -> float:
        """A metric's value, summed over its labels; 0 where it does not exist yet."""
        async with self.session.get(self.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        found = [line for line in lines if re.match(re.escape(name) + r"[{ ]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def _collect(calls: list[dict[str, Any]], part: dict[str, Any]) -> None:
    index = part["index"]
    while len(calls) <= index:
        calls.append({"id": "", "function": {"name": "", "arguments": ""}})
    calls[index]["id"] += part.get("id") or ""
    for name in ("name", "arguments"):
        calls[index]["function"][name] += part.get("function", {}).get(name) or ""


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """A client for the length of a check."""
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(url, session)


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition, at most WAIT_S."""
    end = time.monotonic() + WAIT_S
    while not await holds():
        assert time.monotonic() < end, f"not within {WAIT_S} s: {what}"
        await asyncio.sleep(POLL_S)


async def idle(http: Client) -> bool:
    load = await http.load()
    return load["num_running_reqs"] == 0 and load["num_waiting_reqs"] == 0
