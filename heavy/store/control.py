"""Cancel and cut, on Redis: `heavy.store.api.ControlChannel`.

A message is noted in the run and the run's id is published: the push is only a hint to read what is
noted. So nothing depends on a push arriving, and a message noted before, during or without a
subscription is delivered the same way, once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.exceptions import RedisError

from heavy.core.clock import monotonic_s
from heavy.core.codec import dump, load
from heavy.core.errors import StoreUnavailable
from heavy.core.ids import AGGREGATOR, RUN_LEVEL, RunId, arm_index
from heavy.store import scripts
from heavy.store.api import Control, ControlKind
from heavy.store.keys import CONTROL_CHANNEL, RunKeys
from heavy.store.link import Argument, Link
from heavy.store.refusals import not_found

logger = logging.getLogger(__name__)

REREAD_S: Final = 5.0
"""A listener that was not pushed anything looks by itself this often."""
PATIENCE_S: Final = 60.0
"""How long a listener puts up with a store that does not answer; every lease has run out by then."""
RECONNECT_MIN_S: Final = 0.1
RECONNECT_MAX_S: Final = 2.0
REASON_MAX: Final = 1000


class RedisControl:
    """Control messages of any run, and one subscription for all listeners of this process."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._listeners: dict[RunId, set[asyncio.Event]] = {}
        self._subscription: asyncio.Task[None] | None = None

    async def send(self, run: RunId, control: Control) -> None:
        """Note a control message and push it; without effect on a run that has ended. Raises `NotFound`."""
        keys, reason = RunKeys(run), control.reason[:REASON_MAX]
        _check(control)
        cancel_reason = (reason or "cancelled") if control.kind == ControlKind.CANCEL else ""
        arguments: list[Argument] = [
            f"{control.kind}:{control.trajectory}",
            dump(Control(control.kind, control.trajectory, reason)),
            cancel_reason,
            CONTROL_CHANNEL,
            run,
        ]
        answer, *_ = await self._link.script(
            f"note a {control.kind} of {run}",
            scripts.SEND_CONTROL,
            [keys.run, keys.control],
            arguments,
        )
        if answer == b"gone":
            raise not_found(run)

    @asynccontextmanager
    async def listen(self, run: RunId) -> AsyncIterator[AsyncIterator[Control]]:
        """Control messages of a run: those noted already, then those pushed, each once.

        The iterator raises `StoreUnavailable` when the store has not answered for `PATIENCE_S`.
        """
        hint = asyncio.Event()
        hint.set()
        self._listeners.setdefault(run, set()).add(hint)
        self._subscribe()
        try:
            yield self._controls(run, hint)
        finally:
            self._listeners[run].discard(hint)
            if not self._listeners[run]:
                del self._listeners[run]
            if not self._listeners:
                await self.close()

    async def close(self) -> None:
        """End the subscription; safe to call twice."""
        task, self._subscription = self._subscription, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _controls(self, run: RunId, hint: asyncio.Event) -> AsyncGenerator[Control]:
        seen: set[str] = set()
        answered_s = monotonic_s()
        while True:
            await _wait(hint, REREAD_S)
            hint.clear()
            try:
                noted = await self._noted(run)
                answered_s = monotonic_s()
            except StoreUnavailable:
                if monotonic_s() - answered_s > PATIENCE_S:
                    raise
                continue
            for name, control in noted.items():
                if name not in seen:
                    seen.add(name)
                    yield control

    async def _noted(self, run: RunId) -> dict[str, Control]:
        key = RunKeys(run).control

        async def read(client: Any) -> dict[bytes, bytes]:
            found: dict[bytes, bytes] = await client.hgetall(key)
            return found

        found = await self._link.call(f"read the control messages of {run}", read)
        return {name.decode(): load(Control, message) for name, message in found.items()}

    def _subscribe(self) -> None:
        if self._subscription is None:
            self._subscription = asyncio.create_task(self._keep_subscribed(), name="store-control")

    async def _keep_subscribed(self) -> None:
        """Pass hints on while someone listens; a lost connection is made anew, and then all look again."""
        pause_s = RECONNECT_MIN_S
        while True:
            began_s = monotonic_s()
            try:
                await self._pass_hints_on()
            except (RedisError, OSError) as error:
                logger.warning("the control subscription at %s broke: %r", self._link.server, error)
            lasted_s = monotonic_s() - began_s
            pause_s = RECONNECT_MIN_S if lasted_s > RECONNECT_MAX_S else min(RECONNECT_MAX_S, pause_s * 2)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _pass_hints_on(self) -> None:
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
        """Wake the listeners of the run a message names; all of them when a subscription has just begun."""
        if message["type"] == "subscribe":
            for hints in self._listeners.values():
                for hint in hints:
                    hint.set()
        elif message["type"] == "message":
            for hint in self._listeners.get(RunId(message["data"].decode()), ()):
                hint.set()


async def _wait(hint: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await hint.wait()
    except TimeoutError:
        pass


def _check(control: Control) -> None:
    """Kinds and trajectories are few, so what is noted for a run is bounded."""
    if control.kind not in (ControlKind.CANCEL, ControlKind.CUT):
        raise ValueError(f"{control.kind!r} is no control message")
    trajectory = control.trajectory
    if trajectory not in (RUN_LEVEL, AGGREGATOR) and arm_index(trajectory) is None:
        raise ValueError(f"{trajectory!r} is no trajectory")
