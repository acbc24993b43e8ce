"""The controller's hands: a fleet's actors and groups on a Ray cluster, made, found and taken away.

Everything is named after its fleet and its replica and is detached, so that it outlives whoever made it and
is found again by whoever comes next. Every method may be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util import list_named_actors
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heavy.core.fleet import Member
from heavy.profiles.schema import Profile
from heavy.runner.ray_adapter import NAMESPACE
from workers.fleet import placement
from workers.replica import Replica

CALLS: Final = 16
"""Calls a replica actor takes at once."""
CALL_TIMEOUT_S: Final = 5.0
STOP_TIMEOUT_S: Final = 25.0

logger = logging.getLogger(__name__)


class Hands:
    """One fleet's things on one cluster."""

    def __init__(self, identity: str, environment: Mapping[str, str]) -> None:
        self._prefix = f"heavy-{identity}:"
        self._environment = dict(environment)

    def name_of(self, replica: str) -> str:
        """The name of a replica's actor and of its group."""
        return f"{self._prefix}{replica}"

    async def look(self) -> tuple[frozenset[str], dict[str, str]]:
        """The replicas that have an actor, and the state of each one's group. Raises `RayError`."""

        def look() -> tuple[frozenset[str], dict[str, str]]:
            rows: Any = list_named_actors(all_namespaces=True)
            names = (row["name"] for row in rows if row["namespace"] == NAMESPACE)
            actors = frozenset(name.removeprefix(self._prefix) for name in names if self._ours(name))
            groups = placement.groups(self._prefix)
            return actors, {name.removeprefix(self._prefix): state for name, state in groups.items()}

        return await asyncio.to_thread(look)

    async def launch(self, member: Member, profile: Profile) -> None:
        """Make the member's group and actor, or find them, and tell the actor to begin."""
        bundles = placement.bundles_of(profile)
        await asyncio.to_thread(self._make, member, profile, bundles)

    def begin(self, replica: str) -> None:
        """Tell an actor to begin, in case whoever made it could not any more."""
        with contextlib.suppress(ValueError):  # no such actor: the next picture shows it
            self._actor(replica).start.remote()

    def drain(self, replica: str) -> None:
        """Tell an actor to accept nothing new; that it has heard is seen in what it announces."""
        with contextlib.suppress(ValueError):
            self._actor(replica).drain.remote()

    async def take_away(self, replica: str) -> None:
        """End a replica in order if it is up, then its actor and its group whatever it said."""
        group = await asyncio.to_thread(placement.group_of, self.name_of(replica))
        try:
            actor = await asyncio.to_thread(self._actor, replica)
        except ValueError:
            actor = None
        if actor is not None:
            try:
                await asyncio.wait_for(actor.ping.remote(), CALL_TIMEOUT_S)
                await asyncio.wait_for(actor.stop.remote(), STOP_TIMEOUT_S)
            except (RayError, TimeoutError) as error:
                logger.info("%s did not stop in order: %s", replica, type(error).__name__)
            await asyncio.to_thread(ray.kill, actor)
        if group is not None:
            await asyncio.to_thread(placement.remove_group, self.name_of(replica))

    async def missing(self, profile: Profile) -> str:
        """What a pending replica of the profile waits for."""
        cluster = await asyncio.to_thread(placement.nodes)
        return placement.missing(placement.bundles_of(profile), cluster)

    def _make(self, member: Member, profile: Profile, bundles: list[placement.Bundle]) -> None:
        name = self.name_of(member.replica)
        options: dict[str, Any] = {
            "name": name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": 0,
            "max_concurrency": CALLS,
        }
        if bundles:
            group = placement.group_of(name) or placement.create_group(name, bundles)
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0
            )
            options["num_gpus"] = bundles[0].get("GPU", 0.0)
        actor: Any = ray.remote(Replica).options(**options)
        handle = actor.remote(
            member.replica, profile, self._environment, member.revision, name if bundles else ""
        )
        handle.start.remote()

    def _actor(self, replica: str) -> Any:
        """Raises ValueError when there is none."""
        return ray.get_actor(self.name_of(replica), NAMESPACE)

    def _ours(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(self._prefix)
