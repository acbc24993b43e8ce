"""Where replicas go: one placement group a replica, one bundle a node, and what is missing while it waits.

Groups are detached and named after their replica, so that they outlive a controller and the next one finds
them. A pending group is also how Ray's autoscaler (and KubeRay through it) learns that nodes are wanted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.util
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from heavy.profiles.schema import Profile

logger = logging.getLogger(__name__)

Bundle = dict[str, float]

_ray: Any = ray  # much of it is not typed


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster: what it has in all, and what is free of it."""

    address: str
    total: Mapping[str, float]
    free: Mapping[str, float] = field(default_factory=dict)


def bundles_of(profile: Profile) -> list[Bundle]:
    """What each node of one replica must have; empty when a replica reserves nothing."""
    serve = profile.serve
    bundle: Bundle = dict(serve.resources)
    if serve.gpus:
        bundle["GPU"] = float(serve.gpus // serve.nodes)
    if not bundle and serve.nodes > 1:
        bundle["CPU"] = 1.0  # something to be spread by
    return [bundle] * serve.nodes if bundle else []


def create_group(name: str, bundles: list[Bundle]) -> PlacementGroup:
    """The replica's group; pending until the cluster has room for every bundle on a node of its own."""
    group: PlacementGroup = placement_group(bundles, strategy="STRICT_SPREAD", name=name, lifetime="detached")
    return group


def group_of(name: str) -> PlacementGroup | None:
    """The group of that name, or None."""
    try:
        group: PlacementGroup = get_placement_group(name)
    except ValueError:
        return None
    return group


def remove_group(name: str) -> None:
    """Give a group's resources back, and end whatever still runs on them. Safe to call twice."""
    group = group_of(name)
    if group is not None:
        remove_placement_group(group)


def groups(prefix: str) -> dict[str, str]:
    """Ray's word for the state of every group whose name begins so: PENDING, CREATED or RESCHEDULING."""
    table: dict[str, dict[str, Any]] = placement_group_table()
    return {
        str(row["name"]): str(row["state"])
        for row in table.values()
        if str(row["name"]).startswith(prefix) and row["state"] != "REMOVED"
    }


def nodes() -> list[Node]:
    """The nodes that live, with what is free on each."""
    free: dict[str, dict[str, float]] = _ray._private.state.available_resources_per_node()
    return [
        Node(str(row["NodeManagerAddress"]), row["Resources"], free.get(row["NodeID"], {}))
        for row in _ray.nodes()
        if row["Alive"]
    ]


def serving_host() -> str:
    """Where an engine on this node listens: loopback without a cluster, or while all of it is one machine."""
    if not _ray.is_initialized():
        return "127.0.0.1"
    addresses = {str(row["NodeManagerAddress"]) for row in _ray.nodes() if row["Alive"]}
    return "127.0.0.1" if len(addresses) <= 1 else node_address()


def node_address() -> str:
    """The address of the node that this process is on."""
    return str(_ray.util.get_node_ip_address())


def missing(bundles: list[Bundle], cluster: list[Node]) -> str:
    """What a pending group waits for, in words an operator can act on; empty when there is room for it."""
    if not bundles:
        return ""
    need, count = bundles[0], len(bundles)
    wanted = f"{_amounts(need)} on each of {count} nodes" if count > 1 else f"{_amounts(need)} on one node"
    able = [node for node in cluster if _holds(node.total, need)]
    ready = [node for node in able if _holds(node.free, need)]
    if len(ready) >= count:
        return ""
    if len(able) >= count:
        return f"needs {wanted}; {len(ready)} of {len(able)} such nodes have that much free"
    best = max(
        cluster, key=lambda node: min(node.total.get(k, 0.0) / v for k, v in need.items()), default=None
    )
    has = _amounts({k: best.total.get(k, 0.0) for k in need}) if best else "nothing"
    return (
        f"needs {wanted}; the cluster has {len(able)} such node{'' if len(able) == 1 else 's'} "
        f"(the largest of {len(cluster)} has {has}): add nodes, or ask for less in the profile"
    )


def _holds(has: Mapping[str, float], need: Mapping[str, float]) -> bool:
    return all(has.get(name, 0.0) >= amount for name, amount in need.items())


def _amounts(bundle: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(bundle.items()))
