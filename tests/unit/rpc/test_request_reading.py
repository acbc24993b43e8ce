"""Parts of requests that are checked before anything is asked of the coordinator."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.config import Settings
from heavy.coordinator.defaults import PolicyDefaults
from heavy.core.errors import InvalidRequest
from heavy.core.ids import is_run_id, new_run_id
from heavy.profiles.schema import Profile
from heavy.rpc import requests
from heavy.rpc.calls import Call
from heavy.v1 import heavy_pb2, policy_pb2

TINY = Profile(name="tiny", title="tiny", engine="simulated", model="tiny", context_tokens=4096)
POLICIES = PolicyDefaults({"tiny": TINY}, ("tiny",), Settings(), ())
CALL = Call("default", "")
ASK = heavy_pb2.AskRequest(messages=[policy_pb2.Message(role=policy_pb2.ROLE_USER, content="Hello")])


@given(st.text())
@settings(deadline=None)
def test_only_what_looks_like_a_run_id_passes(text: str) -> None:
    try:
        assert is_run_id(requests.run_id(text))
    except InvalidRequest as error:
        assert [item.field for item in error.violations] == ["run_id"]  # noqa: PT017


def test_a_run_id_passes() -> None:
    run = new_run_id()
    assert requests.run_id(run) == run


@pytest.mark.parametrize(("size", "expected"), [(0, 50), (1, 1), (500, 500)])
def test_page_sizes_have_a_default_and_a_limit(size: int, expected: int) -> None:
    assert requests.list_page_size(size) == expected
    with pytest.raises(InvalidRequest, match="page_size"):
        requests.list_page_size(501 + size)


@given(st.floats(min_value=1e-6, max_value=1e6))
@settings(deadline=None)
def test_the_call_s_deadline_leaves_a_margin_and_never_lengthens(deadline_s: float) -> None:
    wanted = requests.create_request(ASK, CALL, POLICIES, attached=True, deadline_s=deadline_s)
    assert 0 < wanted.policy.deadline_s <= min(600, deadline_s)
    assert wanted.policy.deadline_s >= min(600, deadline_s * 0.95) - 1e-9


def test_a_call_without_a_deadline_keeps_the_policys() -> None:
    wanted = requests.create_request(ASK, CALL, POLICIES, attached=False)
    assert wanted.policy.deadline_s == 600
    assert not wanted.attached


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_garbage_that_parses_is_accepted_or_named(data: bytes) -> None:
    request = heavy_pb2.AskRequest()
    try:
        request.ParseFromString(data)
    except Exception:
        return
    try:
        requests.create_request(request, CALL, POLICIES, attached=True)
    except InvalidRequest as error:
        assert error.violations  # noqa: PT017
