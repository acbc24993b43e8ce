"""Fresh text on its way to whoever watches: coalesced per runner, lossy, never in the way of a generation."""

from __future__ import annotations

import asyncio
import logging

from heavy.core.ids import RunId, TrajectoryId
from heavy.core.records import Delta
from heavy.store.api import RunLog

logger = logging.getLogger(__name__)

PENDING_CHARS_MAX = 1 << 20
"""Text held back at most while the store is slow; beyond, fresh text is dropped (the record has it all)."""
PIECE_CHARS = 32
"""What a piece counts besides its text: many tiny ones take memory too."""


class Deltas:
    """Collects deltas of all trajectories of one runner and publishes them every `interval_s`."""

    def __init__(self, log: RunLog, interval_s: float) -> None:
        self._log = log
        self._interval_s = interval_s
        self._pending: dict[tuple[RunId, TrajectoryId, int], list[tuple[str, str]]] = {}
        self._chars = 0
        self._fresh = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to publish."""
        if self._task is None:
            self._task = asyncio.create_task(self._publish_forever())

    async def stop(self) -> None:
        """Stop publishing; what is pending is dropped. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def add(self, run: RunId, trajectory: TrajectoryId, step: int, reasoning: str, content: str) -> None:
        """Take fresh text; never waits."""
        size = PIECE_CHARS + len(reasoning) + len(content)
        if not (reasoning or content) or self._chars + size > PENDING_CHARS_MAX:
            return
        self._chars += size
        self._pending.setdefault((run, trajectory, step), []).append((reasoning, content))
        self._fresh.set()

    def forget(self, run: RunId, trajectory: TrajectoryId, step: int) -> None:
        """Drop what is pending of a step that begins anew: its record has all of it and comes first."""
        pieces = self._pending.pop((run, trajectory, step), [])
        self._chars -= sum(PIECE_CHARS + len(reasoning) + len(content) for reasoning, content in pieces)

    async def _publish_forever(self) -> None:
        while True:
            await self._fresh.wait()
            await asyncio.sleep(self._interval_s)
            await self._publish()

    async def _publish(self) -> None:
        pending, self._pending, self._chars = self._pending, {}, 0
        self._fresh.clear()
        by_run: dict[RunId, list[Delta]] = {}
        for (run, trajectory, step), pieces in pending.items():
            reasoning = "".join(piece[0] for piece in pieces)
            content = "".join(piece[1] for piece in pieces)
            by_run.setdefault(run, []).append(Delta(trajectory, step, reasoning, content))
        published = (self._log.publish(run, deltas) for run, deltas in by_run.items())
        for problem in await asyncio.gather(*published, return_exceptions=True):
            if isinstance(problem, Exception):  # one run's text must not cost another's, nor end the loop
                logger.debug("deltas were lost: %s", problem)
