"""What an administrator asks of a server, over a connected client.

async with HeavyClient("127.0.0.1:50051", token) as heavy:
    stats = await CacheClient(heavy).stats()
"""

from __future__ import annotations

from dataclasses import dataclass

from heavy.client import HeavyClient
from heavy.core.caching import CacheItem, CachePurge, CacheQuery, CacheStats, Purged
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.v1 import cache_pb2 as pb
from heavy.v1 import replica_pb2
from heavy.v1.cache_pb2_grpc import CacheServiceStub
from heavy.v1.replica_pb2_grpc import ReplicaServiceStub
from heavy.wire import convert_cache as convert
from heavy.wire.convert_replica import listing_from_proto


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


@dataclass(frozen=True, slots=True)
class Listing:
    """Which replicas and runners there are, by name."""

    replicas: tuple[ReplicaInfo, ...]
    runners: tuple[RunnerInfo, ...]


class ReplicaClient:
    """The replicas of a server. Every method raises `Forbidden` for callers who are no administrators."""

    def __init__(self, client: HeavyClient) -> None:
        self._client = client

    async def list(self) -> Listing:
        """What is announced now; a process that has died is gone from it within seconds."""
        request = replica_pb2.ListReplicasRequest()
        return Listing(
            *listing_from_proto(await self._client.call(ReplicaServiceStub, "ListReplicas", request))
        )
