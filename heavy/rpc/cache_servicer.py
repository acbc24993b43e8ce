"""The cache service: administrators look into the tool cache and take results out of it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final

from heavy.rpc.auth import current_caller
from heavy.rpc.calls import Call, serving
from heavy.telemetry.tracing import Tracing
from heavy.tools.cache_admin import CacheAdmin
from heavy.v1 import cache_pb2 as pb
from heavy.v1 import cache_pb2_grpc
from heavy.wire import convert_cache as convert

SERVICE: Final[str] = pb.DESCRIPTOR.services_by_name["CacheService"].full_name


class CacheServicer(cache_pb2_grpc.CacheServiceServicer):
    """Implements heavy.v1.CacheService."""

    def __init__(self, admin: CacheAdmin, tracing: Tracing) -> None:
        self._admin = admin
        self._tracing = tracing

    async def GetCacheStats(self, request: pb.GetCacheStatsRequest, context: Any) -> pb.GetCacheStatsResponse:
        """How the cache does."""
        async with self._serving(context, "GetCacheStats") as call:
            call.require_admin()
            return convert.stats_to_proto(await self._admin.stats())

    async def GetCacheEntry(self, request: pb.GetCacheEntryRequest, context: Any) -> pb.GetCacheEntryResponse:
        """One stored result."""
        async with self._serving(context, "GetCacheEntry") as call:
            call.require_admin()
            query = convert.query_from_proto(request)
            item = await self._admin.get(replace(query, tenant=query.tenant or call.tenant))
            return convert.item_to_proto(item)

    async def PurgeCache(self, request: pb.PurgeCacheRequest, context: Any) -> pb.PurgeCacheResponse:
        """Remove results."""
        async with self._serving(context, "PurgeCache") as call:
            call.require_admin()
            return convert.purged_to_proto(await self._admin.purge(convert.purge_from_proto(request)))

    def _serving(self, context: Any, method: str) -> AbstractAsyncContextManager[Call]:
        return serving(context, method, current_caller.get(), self._tracing, "CacheService")
