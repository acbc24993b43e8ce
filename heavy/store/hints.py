"""Hints to look again: one subscription per process, by which whoever waits for something is woken.

A hint says only that something may be new under a name. So nothing depends on one arriving: who waits looks
by itself now and then, and all of them do when a lost subscription has been made anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import RedisError

from heavy.core.clock import monotonic_s
from heavy.store.keys import CONTROL_CHANNEL
from heavy.store.link import Link

logger = logging.getLogger(__name__)

REREAD_S: Final = 5.0
"""Who was not hinted at anything looks by itself this often."""
RECONNECT_MIN_S: Final = 0.1
RECONNECT_MAX_S: Final = 2.0


class Hints:
    """Who waits for what. The subscription lives while someone does."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._subscription: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self, name: str) -> Iterator[asyncio.Event]:
        """Within it, the event is set whenever something may be new under `name`, and at first."""
        hint = asyncio.Event()
        hint.set()
        self._waiting.setdefault(name, set()).add(hint)
        if self._subscription is None:
            self._subscription = asyncio.create_task(self._keep_subscribed(), name="store-hints")
        try:
            yield hint
        finally:
            self._waiting[name].discard(hint)
            if not self._waiting[name]:
                del self._waiting[name]

    async def rest(self) -> None:
        """End the subscription if nobody waits."""
        if not self._waiting:
            await self.close()

    async def close(self) -> None:
        """End the subscription; safe to call twice."""
        task, self._subscription = self._subscription, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_subscribed(self) -> None:
        """Pass hints on while someone listens; a lost connection is made anew, and then all look again."""
        pause_s = RECONNECT_MIN_S
        while True:
            began_s = monotonic_s()
            try:
                await self._pass_on()
            except (RedisError, OSError) as error:
                logger.warning("the control subscription at %s broke: %r", self._link.server, error)
            lasted_s = monotonic_s() - began_s
            pause_s = RECONNECT_MIN_S if lasted_s > RECONNECT_MAX_S else min(RECONNECT_MAX_S, pause_s * 2)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _pass_on(self) -> None:
        """One connection's life. Ends only by an error: a silent server is one, after a ping."""
        silence_s = self._link.timeout_s
        client = self._link.client()
        pubsub = client.pubsub()
        try:
            async with asyncio.timeout(silence_s):
                await pubsub.subscribe(CONTROL_CHANNEL)
            while True:
                message = await pubsub.get_message(timeout=silence_s)
                if message is None:
                    await pubsub.ping()
                    message = await pubsub.get_message(timeout=silence_s)
                if message is None:
                    raise TimeoutError(f"no answer within {silence_s:g} s")
                self._wake(message)
        finally:
            await pubsub.aclose()
            await client.aclose(close_connection_pool=True)

    def _wake(self, message: dict[str, Any]) -> None:
        """Wake those whom a message names; all of them when a subscription has just begun."""
        if message["type"] == "subscribe":
            for hints in self._waiting.values():
                for hint in hints:
                    hint.set()
        elif message["type"] == "message":
            for hint in self._waiting.get(message["data"].decode(), ()):
                hint.set()


async def hinted(hint: asyncio.Event, timeout_s: float = REREAD_S) -> None:
    """Wait for a hint, at most so long, and take it."""
    try:
        async with asyncio.timeout(timeout_s):
            await hint.wait()
    except TimeoutError:
        pass
    hint.clear()
