"""A replica that somebody else runs: the same face as an engine process, with nothing to start or stop."""

from __future__ import annotations

import asyncio

from heavy.core.errors import ConfigError, EngineUnavailable
from heavy.profiles.schema import Profile


class RemoteEndpoint:
    """An OpenAI-compatible endpoint. Its users see whether it answers; no paid calls probe it."""

    def __init__(self, name: str, profile: Profile) -> None:
        if profile.remote is None:
            raise ConfigError(
                f"Profile {profile.name}: engine 'remote' needs a [remote] section with base_url."
            )
        self.name = name
        self.base_url = profile.remote.base_url
        self.pid = 0
        self.log: tuple[str, ...] = ()
        self.log_problem = ""
        self.nodes: tuple[str, ...] = ()
        self.lost_a_rank = False

    async def start(self, timeout_s: float) -> None:
        """Nothing to bring up."""

    async def ask_about_logs(self) -> None:
        """It has none that we keep."""

    async def exited(self) -> int:
        """Never: it is not ours to end."""
        await asyncio.Event().wait()
        return 0

    async def stop(self, grace_s: float = 0.0) -> None:
        """Nothing to end."""

    def failure(self, what: str) -> EngineUnavailable:
        """An error in the words of an engine process."""
        return EngineUnavailable(f"The endpoint {self.base_url} of {self.name} {what}.", self.name)
