"""What administrators see of the tool cache, to protobuf and back."""

from __future__ import annotations

from heavy.core.caching import CacheItem, CachePurge, CacheQuery, CacheStats, Purged, ToolCacheStats
from heavy.v1 import cache_pb2 as pb
from heavy.wire.times import timestamp_from_proto, timestamp_to_proto


def stats_to_proto(stats: CacheStats) -> pb.GetCacheStatsResponse:
    """How the cache does."""
    return pb.GetCacheStatsResponse(
        tools=map(_tool_to_proto, stats.tools),
        bodies=stats.bodies,
        body_bytes=stats.body_bytes,
        leases=stats.leases,
        memory_bytes=stats.memory_bytes,
        memory_bytes_max=stats.memory_bytes_max,
        evicted=stats.evicted,
        complete=stats.complete,
    )


def stats_from_proto(stats: pb.GetCacheStatsResponse) -> CacheStats:
    """How the cache does."""
    return CacheStats(
        tools=tuple(map(_tool_from_proto, stats.tools)),
        bodies=stats.bodies,
        body_bytes=stats.body_bytes,
        leases=stats.leases,
        memory_bytes=stats.memory_bytes,
        memory_bytes_max=stats.memory_bytes_max,
        evicted=stats.evicted,
        complete=stats.complete,
    )


def _tool_to_proto(tool: ToolCacheStats) -> pb.ToolCacheStats:
    return pb.ToolCacheStats(
        tool=tool.tool,
        hits=tool.hits,
        coalesced=tool.coalesced,
        misses=tool.misses,
        bypassed=tool.bypassed,
        stale=tool.stale,
        refreshed=tool.refreshed,
        saved_s=tool.saved_s,
        entries=tool.entries,
        bytes=tool.bytes,
    )


def _tool_from_proto(tool: pb.ToolCacheStats) -> ToolCacheStats:
    return ToolCacheStats(
        tool=tool.tool,
        hits=tool.hits,
        coalesced=tool.coalesced,
        misses=tool.misses,
        bypassed=tool.bypassed,
        stale=tool.stale,
        refreshed=tool.refreshed,
        saved_s=tool.saved_s,
        entries=tool.entries,
        bytes=tool.bytes,
    )


def item_to_proto(item: CacheItem) -> pb.GetCacheEntryResponse:
    """One stored result."""
    return pb.GetCacheEntryResponse(
        key=item.key,
        tool=item.tool,
        content=item.content,
        is_error=item.is_error,
        stored_at=timestamp_to_proto(item.stored_ms),
        fresh_until=timestamp_to_proto(item.fresh_until_ms),
        expires_at=timestamp_to_proto(item.expires_ms),
        cost_s=item.cost_s,
        bytes=item.bytes,
    )


def item_from_proto(item: pb.GetCacheEntryResponse) -> CacheItem:
    """One stored result."""
    return CacheItem(
        key=item.key,
        tool=item.tool,
        content=item.content,
        is_error=item.is_error,
        stored_ms=timestamp_from_proto(item.stored_at),
        fresh_until_ms=timestamp_from_proto(item.fresh_until),
        expires_ms=timestamp_from_proto(item.expires_at),
        cost_s=item.cost_s,
        bytes=item.bytes,
    )


def query_to_proto(query: CacheQuery) -> pb.GetCacheEntryRequest:
    """Which result."""
    return pb.GetCacheEntryRequest(
        key=query.key, tool=query.tool, arguments=query.arguments, tenant=query.tenant, run_id=query.run
    )


def query_from_proto(query: pb.GetCacheEntryRequest) -> CacheQuery:
    """Which result."""
    return CacheQuery(query.key, query.tool, query.arguments, query.tenant, query.run_id)


def purge_to_proto(purge: CachePurge) -> pb.PurgeCacheRequest:
    """What to remove."""
    return pb.PurgeCacheRequest(key=purge.key, tool=purge.tool, tenant=purge.tenant, all=purge.all)


def purge_from_proto(purge: pb.PurgeCacheRequest) -> CachePurge:
    """What to remove."""
    return CachePurge(purge.key, purge.tool, purge.tenant, purge.all)


def purged_to_proto(purged: Purged) -> pb.PurgeCacheResponse:
    """How much was removed."""
    return pb.PurgeCacheResponse(entries=purged.entries, leases=purged.leases)


def purged_from_proto(purged: pb.PurgeCacheResponse) -> Purged:
    """How much was removed."""
    return Purged(purged.entries, purged.leases)
