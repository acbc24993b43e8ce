"""Everything a server refuses, and how it says so."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.draft import PolicyDraft
from heavy.core.errors import (
    BudgetExhausted,
    ConfigError,
    HeavyError,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerUnavailable,
    StoreUnavailable,
    Unauthenticated,
)
from heavy.core.ids import new_run_id
from heavy.core.messages import Message, Role, ToolCall
from heavy.core.policy import AggregationMode
from heavy.core.runs import RunState
from heavy.rpc.server import RpcServer
from heavy.v1 import heavy_pb2, heavy_pb2_grpc, policy_pb2
from heavy.wire.channel import REQUEST_BYTES_MAX

NAN = float("nan")


@pytest.fixture
async def stub(server: RpcServer) -> Any:
    """The bare stub, as a client in another language would use it."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield heavy_pb2_grpc.HeavyServiceStub(channel)  # type: ignore[no-untyped-call]


def fields_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The fields of the BadRequest detail, with their descriptions."""
    status = rpc_status.from_call(error)  # type: ignore[no-untyped-call]
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    return {item.field: item.description for item in bad.field_violations}


def user(text: str = "Hello") -> policy_pb2.Message:
    return policy_pb2.Message(role=policy_pb2.ROLE_USER, content=text)


@pytest.mark.parametrize(
    ("policy", "field", "hint"),
    [
        (policy_pb2.Policy(width=9), "policy.width", "from 1 to 8"),
        (policy_pb2.Policy(width=3, quorum=4), "policy.quorum", "the width, which is 3"),
        (
            policy_pb2.Policy(members=policy_pb2.Members(arms=["nobody"])),
            "policy.members.arms[0]",
            "known: other, tiny",
        ),
        (
            policy_pb2.Policy(members=policy_pb2.Members(aggregator="other")),
            "policy.members.aggregator",
            "served: tiny",
        ),
        (policy_pb2.Policy(vote_threshold=0.5), "policy.vote_threshold", "above 0.5"),
        (
            policy_pb2.Policy(sampling=policy_pb2.Sampling(temperature=NAN)),
            "policy.sampling.temperature",
            "2.0",
        ),
        (policy_pb2.Policy(budget=policy_pb2.Budget(tokens_max=-1)), "policy.budget.tokens_max", "from 1"),
        (
            policy_pb2.Policy(budget=policy_pb2.Budget(cost_usd_max=NAN)),
            "policy.budget.cost_usd_max",
            "above 0",
        ),
        (policy_pb2.Policy(tools=["shell"]), "policy.tools[0]", "known: python, search"),
        (policy_pb2.Policy(tools=["python"], no_tools=True), "policy.no_tools", "set one"),
        (policy_pb2.Policy(aggregation=77), "policy.aggregation", "AGGREGATION_MODE_VOTE"),  # type: ignore[arg-type]
    ],
)
async def test_an_invalid_policy_names_its_field_and_what_would_be_valid(
    stub: Any, coordinator: Any, policy: policy_pb2.Policy, field: str, hint: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateRun(heavy_pb2.CreateRunRequest(messages=[user()], policy=policy))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert hint in fields_of(caught.value)[field]
    assert not coordinator.requests


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        ([user(" ")], "messages[0].content"),
        ([policy_pb2.Message(content="x")], "messages[0].role"),
        ([user(), policy_pb2.Message(role=policy_pb2.ROLE_ASSISTANT, content="x")], "messages[1].role"),
        (
            [policy_pb2.Message(role=policy_pb2.ROLE_TOOL, tool_call_id="call-1"), user()],
            "messages[0].tool_call_id",
        ),
    ],
)
async def test_an_invalid_conversation_names_its_message(
    stub: Any, messages: list[policy_pb2.Message], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Ask(heavy_pb2.AskRequest(messages=messages)).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in fields_of(caught.value)


async def test_every_invalid_field_is_reported_at_once(stub: Any) -> None:
    request = heavy_pb2.CreateRunRequest(
        messages=[policy_pb2.Message(content="x")],
        request_id="x" * 129,
        policy=policy_pb2.Policy(width=0, tools=["shell", "ghost"], vote_threshold=2),
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateRun(request)
    assert set(fields_of(caught.value)) == {
        "messages[0].role",
        "request_id",
        "policy.width",
        "policy.tools[0]",
        "policy.tools[1]",
        "policy.vote_threshold",
    }


async def test_very_many_violations_still_fit_into_the_trailers(client: HeavyClient) -> None:
    draft = PolicyDraft(tools=tuple(f"werkzeug-für-größere-zahlen-{n}" for n in range(2_000)))
    with pytest.raises(InvalidRequest) as caught:
        await client.create("Hello", draft)
    assert caught.value.violations[0].field == "policy.tools[0]"
    assert "more" in caught.value.violations[-1].problem


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("GetRun", heavy_pb2.GetRunRequest(run_id="../../etc"), "run_id"),
        ("CancelRun", heavy_pb2.CancelRunRequest(run_id=new_run_id(), reason="x" * 501), "reason"),
        ("ListRuns", heavy_pb2.ListRunsRequest(page_size=501), "page_size"),
        ("ListRuns", heavy_pb2.ListRunsRequest(states=[0]), "states[0]"),
        (
            "GetTrajectory",
            heavy_pb2.GetTrajectoryRequest(run_id=new_run_id(), trajectory_id="arm-8"),
            "trajectory_id",
        ),
        (
            "GetTrajectory",
            heavy_pb2.GetTrajectoryRequest(run_id=new_run_id(), trajectory_id="arm-0", after_record=-1),
            "after_record",
        ),
    ],
)
async def test_other_calls_name_their_invalid_fields_too(
    stub: Any, method: str, request_: Any, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in fields_of(caught.value)


async def test_the_client_names_what_no_field_can_hold(client: HeavyClient) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.create("Hello", PolicyDraft(deadline_s=NAN, width=1 << 40))
    assert {item.field for item in caught.value.violations} == {"policy.deadline", "policy.width"}
    with pytest.raises(InvalidRequest, match=r"messages\[0\]"):
        await client.create("half a pair: \ud800")


async def test_a_full_queue_says_when_to_come_back(stub: Any, client: HeavyClient, failing: Any) -> None:
    failing(Overloaded("64 runs are waiting", retry_after_s=7.5))
    with pytest.raises(Overloaded) as caught:
        await client.create("Hello")
    assert caught.value.retry_after_s == 7.5
    with pytest.raises(grpc.aio.AioRpcError) as raw:
        await stub.CreateRun(heavy_pb2.CreateRunRequest(messages=[user()]))
    assert raw.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    status = rpc_status.from_call(raw.value)  # type: ignore[no-untyped-call]
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 7.5


async def test_an_exhausted_budget_keeps_its_numbers(client: HeavyClient, failing: Any) -> None:
    failing(BudgetExhausted("over", "tokens_max", used=11, allowed=10))
    with pytest.raises(BudgetExhausted) as caught:
        await client.create("Hello")
    assert caught.value.details == {"limit": "tokens_max", "used": 11.0, "allowed": 10.0}


async def test_a_store_that_is_down_is_tried_again_for_a_while(server: RpcServer, coordinator: Any) -> None:
    coordinator.refusal = StoreUnavailable("no answer within 5 s")
    async with HeavyClient(server.address, patience_s=0.4) as client:
        with pytest.raises(StoreUnavailable):
            await client.create("Hello", request_id="one")
    assert len(coordinator.requests) >= 2
    assert {request.request_id for request in coordinator.requests} == {"one"}


async def test_a_defect_tells_the_caller_nothing(client: HeavyClient, failing: Any, caplog: Any) -> None:
    failing(RuntimeError("secret"))
    with pytest.raises(HeavyError) as caught:
        await client.create("Hello")
    assert "secret" not in str(caught.value)
    assert "secret" in caplog.text


async def test_an_oversized_request_is_refused_clearly(stub: Any, client: HeavyClient) -> None:
    with pytest.raises(InvalidRequest, match="send shorter or fewer"):
        await client.create("x" * (REQUEST_BYTES_MAX + 1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateRun(heavy_pb2.CreateRunRequest(messages=[user("x" * (REQUEST_BYTES_MAX + 1))]))
    assert "larger than max" in str(caught.value.details())
    with pytest.raises(InvalidRequest, match="a message may have"):
        await client.create("x" * (2 << 20))


async def test_calls_beyond_the_limit_are_told_to_come_back(coordinator: Any, settings: Settings) -> None:
    server = RpcServer(coordinator, settings.model_copy(update={"rpcs_max": 1}))
    await server.start()
    try:
        async with HeavyClient(server.address) as client, client.ask("Hello") as stream:
            await anext(stream)
            with pytest.raises(Overloaded):
                await client.get(new_run_id())
    finally:
        await server.stop()


async def call_with(server: RpcServer, *metadata: tuple[str, str]) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        service = heavy_pb2_grpc.HeavyServiceStub(channel)  # type: ignore[no-untyped-call]
        await service.ListRuns(heavy_pb2.ListRunsRequest(), metadata=metadata)


@pytest.mark.parametrize(
    ("metadata", "hint"),
    [
        ((), "asks for a bearer token"),
        ((("authorization", "Bearer wrong-token-0123456789"),), "not one of this server's"),
        ((("authorization", "Bearer ALICE-TOKEN-0123456789"),), "not one of this server's"),
        ((("authorization", "alice-token-0123456789"),), "not a bearer token"),
        ((("authorization", "Basic alice-token-0123456789"),), "not a bearer token"),
        ((("token", "alice-token-0123456789"),), "asks for a bearer token"),
        ((("authorization", "Bearer alice-token-0123456789"),) * 2, "once"),
    ],
)
async def test_a_missing_or_wrong_token_is_refused(guarded: RpcServer, metadata: Any, hint: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call_with(guarded, *metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert hint in str(caught.value.details())


async def test_the_scheme_may_be_written_in_any_case(guarded: RpcServer) -> None:
    await call_with(guarded, ("authorization", "bearer alice-token-0123456789"))


async def test_streams_are_refused_without_a_token_too(guarded: RpcServer, coordinator: Any) -> None:
    async with HeavyClient(guarded.address) as nobody:
        with pytest.raises(Unauthenticated):
            await anext(nobody.ask("Hello"))
        with pytest.raises(Unauthenticated):
            await anext(nobody.watch(new_run_id()))
    assert not coordinator.requests


async def test_a_tenant_sees_its_own_runs_only(guarded: RpcServer) -> None:
    async with (
        HeavyClient(guarded.address, "alice-token-0123456789") as alice,
        HeavyClient(guarded.address, "alice-second-0123456789") as alice_again,
        HeavyClient(guarded.address, "bob-token-0123456789") as bob,
    ):
        run = (await alice.create("Hello", request_id="same")).spec.run
        others = (await bob.create("Hello", request_id="same")).spec.run
        assert run != others
        assert (await alice_again.get(run)).spec.tenant == "alice"
        for attempt in (bob.get(run), bob.cancel(run), bob.trajectory(run, "arm-0"), anext(bob.watch(run))):
            with pytest.raises(NotFound):
                await attempt
        assert [item.spec.run async for item in bob.list()] == [others]


async def test_without_tokens_only_loopback_is_served(coordinator: Any, settings: Settings) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(ConfigError, match="HEAVY_TOKENS_FILE"):
            await RpcServer(coordinator, settings.model_copy(update={"host": host})).start()


async def test_a_taken_port_is_an_error_and_not_shared(
    server: RpcServer, coordinator: Any, settings: Settings
) -> None:
    second = RpcServer(coordinator, settings.model_copy(update={"port": server.port}))
    with pytest.raises(ConfigError, match="HEAVY_PORT"):
        await second.start()
    await second.stop()


async def test_the_policy_that_was_accepted_can_be_read_back(client: HeavyClient) -> None:
    draft = PolicyDraft(
        width=4,
        aggregation=AggregationMode.VOTE,
        tools=(),
        tokens_max=1_000,
        temperature=0.5,
        seed=5,
        straggler_grace_s=0.25,
    )
    conversation = (
        Message(Role.ASSISTANT, tool_calls=(ToolCall("c-1", "python", "{}"),)),
        Message(Role.TOOL, "4", tool_call_id="c-1", name="python"),
        Message(Role.USER, "And now?"),
    )
    run = await client.get((await client.create(conversation, draft)).spec.run)
    policy = run.spec.policy
    assert (policy.width, policy.aggregation, policy.tools) == (4, AggregationMode.VOTE, ())
    assert (policy.budget.tokens_max, policy.straggler_grace_s, policy.seed) == (1_000, 0.25, 5)
    assert policy.sampling is not None
    assert policy.sampling.temperature == 0.5
    assert run.spec.messages == conversation
    assert run.state is RunState.ACCEPTED


async def test_while_draining_new_runs_are_refused_and_open_streams_go_on(
    server: RpcServer, coordinator: Any
) -> None:
    async with HeavyClient(server.address, patience_s=0.2) as client, client.ask("Hello") as stream:
        await anext(stream)
        draining = asyncio.create_task(server.drain(10))
        await asyncio.sleep(0)
        assert not server.ready
        with pytest.raises(ServerUnavailable, match="going down"):
            await client.create("Hello")
        await client.get(coordinator.only.run.spec.run)
        await coordinator.finish(coordinator.only, "done")
        assert [event async for event in stream]
        await draining
