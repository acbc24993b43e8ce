"""The replica service: administrators see which replicas and runners there are."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from heavy.rpc.auth import current_caller
from heavy.rpc.calls import Call, serving
from heavy.store.api import Directory
from heavy.telemetry.tracing import Tracing
from heavy.v1 import replica_pb2 as pb
from heavy.v1 import replica_pb2_grpc
from heavy.wire.convert_replica import listing_to_proto

SERVICE: Final[str] = pb.DESCRIPTOR.services_by_name["ReplicaService"].full_name


class ReplicaServicer(replica_pb2_grpc.ReplicaServiceServicer):
    """Implements heavy.v1.ReplicaService on the store's directory."""

    def __init__(self, directory: Directory, tracing: Tracing) -> None:
        self._directory = directory
        self._tracing = tracing

    async def ListReplicas(self, request: pb.ListReplicasRequest, context: Any) -> pb.ListReplicasResponse:
        """What is announced now."""
        async with self._serving(context, "ListReplicas") as call:
            call.require_admin()
            return listing_to_proto(await self._directory.replicas(), await self._directory.runners())

    def _serving(self, context: Any, method: str) -> AbstractAsyncContextManager[Call]:
        return serving(context, method, current_caller.get(), self._tracing, "ReplicaService")
