"""What administrators see of replicas and runners, to protobuf and back."""

from __future__ import annotations

from heavy.core.fleet import FleetListing, ProfileChange, ReplicaInfo, RunnerInfo, Served
from heavy.v1 import replica_pb2 as pb
from heavy.wire.times import timestamp_from_proto, timestamp_to_proto


def listing_to_proto(listing: FleetListing) -> pb.ListReplicasResponse:
    """Everything that is there."""
    return pb.ListReplicasResponse(
        replicas=map(_replica_to_proto, listing.replicas),
        runners=map(_runner_to_proto, listing.runners),
        profiles=map(served_to_proto, listing.profiles),
    )


def listing_from_proto(listing: pb.ListReplicasResponse) -> FleetListing:
    """Everything that is there."""
    return FleetListing(
        tuple(map(_replica_from_proto, listing.replicas)),
        tuple(map(_runner_from_proto, listing.runners)),
        tuple(map(served_from_proto, listing.profiles)),
    )


def served_to_proto(served: Served) -> pb.ServedProfile:
    """What is wanted of a profile."""
    return pb.ServedProfile(
        profile=served.profile,
        replicas=served.replicas,
        replicas_min=served.replicas_min,
        replicas_max=served.replicas_max,
        revision=served.revision,
        failures=served.failures,
        reason=served.reason,
        quarantined=served.quarantined,
    )


def served_from_proto(served: pb.ServedProfile) -> Served:
    """What is wanted of a profile."""
    return Served(
        profile=served.profile,
        replicas=served.replicas,
        replicas_min=served.replicas_min,
        replicas_max=served.replicas_max,
        revision=served.revision,
        failures=served.failures,
        reason=served.reason,
        quarantined=served.quarantined,
    )


def change_to_proto(change: ProfileChange) -> pb.UpdateProfileRequest:
    """What an administrator changes about a profile."""
    return pb.UpdateProfileRequest(
        profile=change.profile,
        definition=change.definition,
        replicas=change.replicas,
        replicas_max=change.replicas_max,
        restart=change.restart,
    )


def change_from_proto(asked: pb.UpdateProfileRequest) -> ProfileChange:
    """What an administrator changes about a profile."""
    return ProfileChange(
        profile=asked.profile,
        definition=asked.definition,
        replicas=asked.replicas if asked.HasField("replicas") else None,
        replicas_max=asked.replicas_max if asked.HasField("replicas_max") else None,
        restart=asked.restart,
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
        kv_tokens_reserved=info.kv_tokens_reserved,
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
        kv_tokens_reserved=info.kv_tokens_reserved,
    )


def _runner_to_proto(info: RunnerInfo) -> pb.Runner:
    return pb.Runner(
        runner_id=info.runner,
        in_flight=info.in_flight,
        in_flight_max=info.in_flight_max,
        pid=info.pid,
        sandbox=info.sandbox,
    )


def _runner_from_proto(info: pb.Runner) -> RunnerInfo:
    return RunnerInfo(info.runner_id, info.in_flight, info.in_flight_max, info.pid, sandbox=info.sandbox)
