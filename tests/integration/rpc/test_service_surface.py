"""Health, reflection, paging, cancel, tracing, start and stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.ids import RunId, arm
from heavy.core.records import Event, LifecycleRecord
from heavy.core.runs import RunState
from heavy.rpc.server import SERVICE, RpcServer
from heavy.wire.channel import PAGE_BYTES_MAX

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def channel(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.address) as opened:
        yield opened


async def health_of(channel: grpc.aio.Channel, service: str) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_says_serving_and_then_not(server: RpcServer, channel: grpc.aio.Channel) -> None:
    for service in ("", SERVICE):
        assert await health_of(channel, service) == health_pb2.HealthCheckResponse.SERVING
    await server.drain(1)
    assert await health_of(channel, SERVICE) == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_answers_without_a_token_but_cannot_be_watched(guarded: RpcServer) -> None:
    async with grpc.aio.insecure_channel(guarded.address) as channel:
        assert await health_of(channel, SERVICE) == health_pb2.HealthCheckResponse.SERVING
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Watch(health_pb2.HealthCheckRequest()).read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_reflection_describes_the_service(channel: grpc.aio.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    services, files = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert SERVICE in {service.name for service in services.list_services_response.service}
    described = FileDescriptorProto.FromString(files.file_descriptor_response.file_descriptor_proto[0])
    assert {method.name for method in described.service[0].method} >= {"Ask", "CreateRun", "WatchRun"}


async def test_runs_are_listed_newest_first_over_pages(client: HeavyClient, coordinator: Any) -> None:
    made = [(await client.create(f"Question {number}")).spec.run for number in range(7)]
    assert [run.spec.run async for run in client.list(page_size=3)] == made[::-1]
    await coordinator.finish(coordinator.runs[made[2]], "done")
    assert [run.spec.run async for run in client.list(states={RunState.COMPLETED})] == [made[2]]


async def test_a_page_of_long_conversations_is_cut_to_what_clients_can_read(client: HeavyClient) -> None:
    made = [(await client.create(f"{number}" + "x" * 1_000_000)).spec.run for number in range(5)]
    assert PAGE_BYTES_MAX < 5 * 1_000_000
    assert [run.spec.run async for run in client.list()] == made[::-1]


async def test_a_long_trajectory_comes_whole_over_several_pages(
    client: HeavyClient, coordinator: Any
) -> None:
    run = (await client.create("Hello")).spec.run
    for number in range(30):
        await coordinator.note(coordinator.only, f"{number}" + "x" * 200_000)
    await coordinator.emit(coordinator.only, LifecycleRecord(Event.NOTE, detail="another's"), arm(1))
    transcript = await client.trajectory(run, "arm-0")
    assert [record.number for record in transcript.records] == list(range(2, 32))
    assert transcript.outcome is None


async def test_a_cancel_reaches_the_coordinator_with_its_reason(
    client: HeavyClient, coordinator: Any
) -> None:
    run = (await client.create("Hello")).spec.run
    assert (await client.cancel(run, "changed my mind")).cancel_reason == "changed my mind"
    await client.cancel(run)
    assert coordinator.cancelled == [(run, "changed my mind"), (run, "cancelled by its caller")]


async def test_the_callers_trace_goes_on_in_the_run(client: HeavyClient, coordinator: Any) -> None:
    run = await client.create("Hello", traceparent=TRACE)
    assert TRACE.split("-")[1] in coordinator.requests[0].traceparent
    assert run.spec.traceparent == coordinator.requests[0].traceparent


@pytest.mark.parametrize(
    "broken", ["", "nonsense", "00-00000000000000000000000000000000-0000000000000000-01"]
)
async def test_a_broken_trace_context_is_left_out(client: HeavyClient, coordinator: Any, broken: str) -> None:
    await client.create("Hello", traceparent=broken)
    assert coordinator.requests[0].traceparent == ""


async def test_start_drain_and_stop_may_be_repeated(coordinator: Any, settings: Settings) -> None:
    server = RpcServer(coordinator, settings)
    await server.stop()
    assert (server.ready, server.port) == (False, 0)
    await server.start()
    await server.start()
    assert server.ready
    await server.drain(1)
    await server.drain(1)
    assert not server.ready
    await server.stop()
    await server.stop()
    await server.drain(1)


async def test_ipv6_loopback_is_served(coordinator: Any, settings: Settings) -> None:
    server = RpcServer(coordinator, settings.model_copy(update={"host": "::1"}))
    await server.start()
    try:
        async with HeavyClient(server.address) as client:
            assert (await client.create("Hello")).spec.run in coordinator.runs
    finally:
        await server.stop()


async def test_a_client_outside_its_context_says_so() -> None:
    client = HeavyClient("127.0.0.1:1")
    with pytest.raises(RuntimeError, match="async with"):
        await client.get(RunId("run-000000000000000000000000"))
    await client.close()
