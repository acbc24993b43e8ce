"""The runner actor: one process that executes trajectories and shows itself in the store's directory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping

from heavy.config import Settings
from heavy.core.codec import dump, load
from heavy.core.errors import HeavyError
from heavy.core.fleet import RunnerInfo
from heavy.core.runs import TrajectorySpec
from heavy.runner.build import RunnerParts, open_runner
from heavy.telemetry.redaction import redact_logs
from heavy.tools.redaction import redactor_of

ANNOUNCE_EVERY_S = 0.5
ANNOUNCE_TTL_S = 3.0

logger = logging.getLogger(__name__)


class Runner:
    """Built in the actor's process, from settings alone. The class of the Ray actor, without Ray."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._settings = Settings.of(environment)
        self._parts: RunnerParts | None = None
        self._announcer: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Connect, probe the sandbox, announce itself; the process id. Raises the errors of its parts."""
        if self._parts is None:
            self._start_logging()
            self._parts = await open_runner(self._settings)
            self._announcer = asyncio.create_task(self._announce_forever(self._parts))
        return os.getpid()

    def _start_logging(self) -> None:
        """To stderr, which Ray keeps per process: the sandbox's level here, and which tools are missing."""
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("heavy").setLevel(self._settings.log_level)
        redact_logs(redactor_of(self._settings))

    async def run(self, spec: bytes) -> tuple[bytes, HeavyError | None]:
        """One trajectory: its outcome as JSON, or the error that kept it from being one."""
        if self._parts is None:
            return b"", HeavyError(f"The runner {self._name} was not started.")
        try:
            return dump(await self._parts.host.run(load(TrajectorySpec, spec))), None
        except HeavyError as error:
            return b"", error

    async def ping(self) -> None:
        """Answers while the process is alive."""

    async def stop(self) -> None:
        """Cut what is under way and close everything. Safe to call twice."""
        parts, self._parts = self._parts, None
        if parts is None:
            return
        if self._announcer is not None:
            self._announcer.cancel()
            await asyncio.gather(self._announcer, return_exceptions=True)
        with contextlib.suppress(HeavyError):
            await parts.store.directory.withdraw(self._name)
        await parts.close()

    async def _announce_forever(self, parts: RunnerParts) -> None:
        while True:
            info = RunnerInfo(
                runner=self._name,
                in_flight=parts.host.in_flight,
                in_flight_max=self._settings.runner_in_flight_max,
                pid=os.getpid(),
                queue_wait_s=parts.router.queue_wait_s,
                sandbox=parts.tools.sandbox,
            )
            try:
                await parts.store.directory.announce_runner(info, ttl_s=ANNOUNCE_TTL_S)
            except HeavyError as error:
                logger.warning("%s could not be announced: %s", self._name, error)
            await asyncio.sleep(ANNOUNCE_EVERY_S)
