"""What administrators see of replicas and runners, to protobuf and back."""

from __future__ import annotations

from collections.abc import Iterable

from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.v1 import replica_pb2 as pb
from heavy.wire.times import timestamp_from_proto, timestamp_to_proto


def listing_to_proto(
    replicas: Iterable[ReplicaInfo], runners: Iterable[RunnerInfo]
) -> pb.ListReplicasResponse:
    """Everything that is there."""
    return pb.ListReplicasResponse(
        replicas=map(_replica_to_proto, replicas), runners=map(_runner_to_proto, runners)
    )


def listing_from_proto(
    listing: pb.ListReplicasResponse,
) -> tuple[tuple[ReplicaInfo, ...], tuple[RunnerInfo, ...]]:
    """Everything that is there."""
    return (
        tuple(map(_replica_from_proto, listing.replicas)),
        tuple(map(_runner_from_proto, listing.runners)),
    )


def _replica_to_proto(info: ReplicaInfo) -> pb.Replica:
    return pb.Replica(
        replica_id=info.replica,
        profile=info.profile,
        engine=info.engine,
        model=info.model,
        state=info.state,
        detail=info.detail,
        base_url=info.base_url,
        running=info.running,
        waiting=info.waiting,
        in_flight_max=info.in_flight_max,
        kv_tokens_used=info.kv_tokens_used,
        kv_tokens_max=info.kv_tokens_max,
        pid=info.pid,
        nodes=info.nodes,
        revision=info.revision,
        since=timestamp_to_proto(info.since_ms) if info.since_ms else None,
    )


def _replica_from_proto(info: pb.Replica) -> ReplicaInfo:
    return ReplicaInfo(
        replica=info.replica_id,
        profile=info.profile,
        base_url=info.base_url,
        engine=info.engine,
        model=info.model,
        state=info.state,
        running=info.running,
        waiting=info.waiting,
        kv_tokens_used=info.kv_tokens_used,
        kv_tokens_max=info.kv_tokens_max,
        in_flight_max=info.in_flight_max,
        detail=info.detail,
        pid=info.pid,
        nodes=tuple(info.nodes),
        revision=info.revision,
        since_ms=timestamp_from_proto(info.since) if info.HasField("since") else 0,
    )


def _runner_to_proto(info: RunnerInfo) -> pb.Runner:
    return pb.Runner(
        runner_id=info.runner, in_flight=info.in_flight, in_flight_max=info.in_flight_max, pid=info.pid
    )


def _runner_from_proto(info: pb.Runner) -> RunnerInfo:
    return RunnerInfo(info.runner_id, info.in_flight, info.in_flight_max, info.pid)
