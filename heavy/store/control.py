"""Cancel and cut, on Redis: `heavy.store.api.ControlChannel`.

A message is noted in the run and the run's id is published: the push is only a hint to read what is
noted. So nothing depends on a push arriving, and a message noted before, during or without a
subscription is delivered the same way, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from heavy.core.clock import monotonic_s
from heavy.core.codec import dump, load
from heavy.core.errors import StoreUnavailable
from heavy.core.ids import AGGREGATOR, RUN_LEVEL, RunId, arm_index
from heavy.store import scripts
from heavy.store.api import Control, ControlKind
from heavy.store.hints import Hints, hinted
from heavy.store.keys import CONTROL_CHANNEL, RunKeys
from heavy.store.link import Argument, Link
from heavy.store.refusals import not_found

PATIENCE_S: Final = 60.0
"""How long a listener puts up with a store that does not answer; every lease has run out by then."""
REASON_MAX: Final = 1000


class RedisControl:
    """Control messages of any run."""

    def __init__(self, link: Link, hints: Hints) -> None:
        self._link = link
        self._hints = hints

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
        try:
            with self._hints.listening(run) as hint:
                yield self._controls(run, hint)
        finally:
            await self._hints.rest()

    async def _controls(self, run: RunId, hint: asyncio.Event) -> AsyncGenerator[Control]:
        seen: set[str] = set()
        answered_s = monotonic_s()
        while True:
            await hinted(hint)
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


def _check(control: Control) -> None:
    """Kinds and trajectories are few, so what is noted for a run is bounded."""
    if control.kind not in (ControlKind.CANCEL, ControlKind.CUT):
        raise ValueError(f"{control.kind!r} is no control message")
    trajectory = control.trajectory
    if trajectory not in (RUN_LEVEL, AGGREGATOR) and arm_index(trajectory) is None:
        raise ValueError(f"{trajectory!r} is no trajectory")
