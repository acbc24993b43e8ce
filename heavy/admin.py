"""What an administrator asks of a server, over a connected client.

async with HeavyClient("127.0.0.1:50051", token) as heavy:
    stats = await CacheClient(heavy).stats()
"""

from __future__ import annotations

from typing import Any

from heavy.client import HeavyClient
from heavy.core.caching import CacheItem, CachePurge, CacheQuery, CacheStats, Purged
from heavy.core.fleet import FleetListing, ProfileChange, Served
from heavy.v1 import cache_pb2 as pb
from heavy.v1 import replica_pb2
from heavy.v1.cache_pb2_grpc import CacheServiceStub
from heavy.v1.replica_pb2_grpc import ReplicaServiceStub
from heavy.wire import convert_cache as convert
from heavy.wire import convert_replica


class CacheClient:
    """The tool cache of a server. Every method raises `Forbidden` for callers who are no administrators."""

    def __init__(self, client: HeavyClient) -> None:
        self._client = client

    async def stats(self) -> CacheStats:
        """How the cache does, since it was empty."""
        return convert.stats_from_proto(
            await self._client.call(CacheServiceStub, "GetCacheStats", pb.GetCacheStatsRequest())
        )

    async def get(self, query: CacheQuery) -> CacheItem:
        """One stored result. Raises `NotFound`, `InvalidRequest`."""
        request = convert.query_to_proto(query)
        return convert.item_from_proto(await self._client.call(CacheServiceStub, "GetCacheEntry", request))

    async def purge(self, purge: CachePurge) -> Purged:
        """Remove results. Raises `InvalidRequest`."""
        request = convert.purge_to_proto(purge)
        return convert.purged_from_proto(await self._client.call(CacheServiceStub, "PurgeCache", request))


class ReplicaClient:
    """The replicas of a server. Every method raises `Forbidden` for callers who are no administrators."""

    def __init__(self, client: HeavyClient) -> None:
        self._client = client

    async def list(self) -> FleetListing:
        """What is announced now, and what is wanted; a process that died is gone within seconds."""
        request = replica_pb2.ListReplicasRequest()
        return convert_replica.listing_from_proto(await self._call("ListReplicas", request))

    async def log(self, replica: str) -> tuple[str, ...]:
        """The last lines of a replica's engine, oldest first. Raises `NotFound`."""
        request = replica_pb2.GetReplicaLogRequest(replica_id=replica)
        return tuple((await self._call("GetReplicaLog", request)).lines)

    async def drain(self, replica: str) -> Served:
        """Let a replica finish and leave; its profile as it is wanted now. Raises `NotFound`."""
        request = replica_pb2.DrainReplicaRequest(replica_id=replica)
        return convert_replica.served_from_proto((await self._call("DrainReplica", request)).profile)

    async def update(self, change: ProfileChange) -> Served:
        """Change what is served of a profile. Raises `NotFound`, `InvalidRequest`."""
        request = convert_replica.change_to_proto(change)
        return convert_replica.served_from_proto((await self._call("UpdateProfile", request)).profile)

    async def _call(self, method: str, request: Any) -> Any:
        return await self._client.call(ReplicaServiceStub, method, request)
