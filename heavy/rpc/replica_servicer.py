"""The replica service: administrators see which replicas and runners there are, and change them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from heavy.coordinator.fleet import FleetAdmin
from heavy.rpc.auth import current_caller
from heavy.rpc.calls import Call, serving
from heavy.telemetry.tracing import Tracing
from heavy.v1 import replica_pb2 as pb
from heavy.v1 import replica_pb2_grpc
from heavy.wire import convert_replica as convert

SERVICE: Final[str] = pb.DESCRIPTOR.services_by_name["ReplicaService"].full_name


class ReplicaServicer(replica_pb2_grpc.ReplicaServiceServicer):
    """Implements heavy.v1.ReplicaService."""

    def __init__(self, fleet: FleetAdmin, tracing: Tracing) -> None:
        self._fleet = fleet
        self._tracing = tracing

    async def ListReplicas(self, request: pb.ListReplicasRequest, context: Any) -> pb.ListReplicasResponse:
        """What is announced now, and what is wanted."""
        async with self._serving(context, "ListReplicas") as call:
            call.require_admin()
            return convert.listing_to_proto(await self._fleet.list())

    async def GetReplicaLog(self, request: pb.GetReplicaLogRequest, context: Any) -> pb.GetReplicaLogResponse:
        """The last lines of an engine."""
        async with self._serving(context, "GetReplicaLog") as call:
            call.require_admin()
            return pb.GetReplicaLogResponse(lines=await self._fleet.log(request.replica_id))

    async def DrainReplica(self, request: pb.DrainReplicaRequest, context: Any) -> pb.DrainReplicaResponse:
        """Let one leave."""
        async with self._serving(context, "DrainReplica") as call:
            call.require_admin()
            served = await self._fleet.drain(request.replica_id)
            return pb.DrainReplicaResponse(profile=convert.served_to_proto(served))

    async def UpdateProfile(self, request: pb.UpdateProfileRequest, context: Any) -> pb.UpdateProfileResponse:
        """Change what is served."""
        async with self._serving(context, "UpdateProfile") as call:
            call.require_admin()
            served = await self._fleet.update(convert.change_from_proto(request))
            return pb.UpdateProfileResponse(profile=convert.served_to_proto(served))

    def _serving(self, context: Any, method: str) -> AbstractAsyncContextManager[Call]:
        return serving(context, method, current_caller.get(), self._tracing, "ReplicaService")
