"""Whether an engine still makes steps: any step tells, and an idle engine makes one for it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from workers.engines.api.errors import EngineFailed, QueueFull
from workers.engines.api.generation import HEALTH_RID, TERMINAL, Engine
from workers.engines.api.request import parse_chat

PATIENCE_S: Final = 20.0
OWN_WORD_AFTER_S: Final = 1.0
"""How long a busy engine is listened to before it is asked for a word of its own."""


async def sign_of_life(engine: Engine, *, busy: bool) -> None:
    """Wait for one, as SGLang's `/health_generate` does; `busy`: somebody is being served.

    Raises `EngineFailed` when there is none.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            if not busy or not await _step(engine, OWN_WORD_AFTER_S):
                await _first_of(_step(engine, PATIENCE_S), _own_word(engine))
    except TimeoutError as error:
        raise EngineFailed(f"No step within {PATIENCE_S:g} s. Restart this server.") from error


async def _step(engine: Engine, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await engine.pulse.next()
            return True
    return False


async def _own_word(engine: Engine) -> None:
    """Generate one token, past the queue's end like any other request; for ever where that is full."""
    body = {"messages": [{"role": "user", "content": "ok"}], "max_tokens": 1, "temperature": 0}
    try:
        generation = await engine.submit(parse_chat(body, f"{HEALTH_RID}{uuid.uuid4().hex}"))
    except QueueFull:
        await asyncio.Event().wait()
        return
    try:
        while not isinstance((await generation.events())[-1], TERMINAL):
            pass
    finally:
        generation.abort()


async def _first_of(*ways: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of several things; its error is raised."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
