"""Our classes as Ray actors: names, options, and how to reach them. Cheap on CPUs, never retried by Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from heavy.core.errors import HeavyError
from heavy.runner.ray_adapter import NAMESPACE
from workers.runner import Runner

CONTROL_CALLS = 16
"""Calls an actor takes besides its trajectories: start, stop, status."""
STOP_TIMEOUT_S = 25.0
RUNNER_RESOURCE = "heavy_runner"
"""Nodes that are there for runners have it, one of it for each runner they take."""


def runner_actor(name: str, environment: Mapping[str, str], in_flight_max: int) -> Any:
    """A runner in a process of its own, on a node for runners where the cluster has any, else on any."""
    cluster: Any = ray
    marked = RUNNER_RESOURCE in cluster.cluster_resources()
    options = ray.remote(Runner).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        resources={RUNNER_RESOURCE: 1.0} if marked else None,
        scheduling_strategy="SPREAD",
        max_restarts=0,
        max_concurrency=in_flight_max + CONTROL_CALLS,
    )
    return options.remote(name, dict(environment))


async def call(handle: Any, method: str, timeout_s: float) -> Any:
    """Call an actor, bounded. Raises its own `HeavyError`, or one that says the actor is gone or silent."""
    try:
        async with asyncio.timeout(timeout_s):
            return await getattr(handle, method).remote()
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, HeavyError):
            raise cause from error
        raise HeavyError(f"An actor could not {method}: {error}") from error
    except TimeoutError as error:
        raise HeavyError(f"An actor did not {method} within {timeout_s:g} s.") from error


async def alive(handle: Any, timeout_s: float) -> bool:
    """Whether an actor's process is there. Raises TimeoutError when it is there but does not answer."""
    try:
        async with asyncio.timeout(timeout_s):
            await handle.ping.remote()
    except RayActorError:
        return False
    return True


async def stop_actor(handle: Any) -> None:
    """Stop an actor in order, then end its process whatever it said."""
    try:
        await call(handle, "stop", STOP_TIMEOUT_S)
    except HeavyError:
        pass
    finally:
        ray.kill(handle)
