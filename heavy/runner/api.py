"""The seam between the coordinator and whatever executes trajectories."""

from __future__ import annotations

from typing import Protocol

from heavy.core.runs import Outcome, TrajectorySpec


class Runner(Protocol):
    """Executes trajectories somewhere else. Nothing streams through it: records go straight to the store."""

    async def run(self, spec: TrajectorySpec) -> Outcome:
        """Roll out one trajectory to its outcome.

        Model and tool failures come back as outcomes. Raises `RunnerLost` when the process is gone,
        `Overloaded` when no runner has room. Cancelling the awaiting task does not stop the trajectory:
        the control channel does.
        """
        ...
