"""Every field of every domain type crosses the wire, both ways.

Objects are built from the types' own annotations, so that a new field is generated here by itself, and
fails here until it crosses.
"""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.core.draft import PolicyDraft
from heavy.core.errors import FieldViolation, HeavyError, InvalidRequest
from heavy.core.messages import Message, Role
from heavy.core.policy import ArmsFrom, Budget, Policy, Sampling
from heavy.core.records import Delta, Record
from heavy.core.runs import Citation, Outcome, Run, RunSpec
from heavy.core.tools import ToolSpec
from heavy.v1 import policy_pb2, record_pb2, run_pb2
from heavy.wire import convert_calling, convert_policy, convert_record, convert_run, enums

NOT_ON_THE_WIRE: dict[tuple[type, str], Any] = {
    (RunSpec, "fingerprint"): "",  # the store's own business
    (ToolSpec, "version"): convert_calling.VERSION,  # what callers declare has no other
    (ToolSpec, "stateful"): False,
    (ToolSpec, "untrusted"): False,
    (Run, "epoch"): 0,  # the lease's own business
    (Sampling, "seed"): None,  # in a policy, `Policy.seed` is the seed
}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INT32 = st.integers(0, 2**31 - 1)
INT64 = st.integers(0, 2**53)
FLOAT = st.floats(0, 1e9, allow_nan=False)
SECONDS = st.integers(0, 10**15).map(lambda nanos: nanos / 10**9)

NARROW: dict[tuple[type, str], st.SearchStrategy[Any]] = {
    (Policy, "width"): INT32,
    (Policy, "quorum"): INT32,
    (Policy, "straggler_grace_s"): SECONDS,
    (Policy, "deadline_s"): SECONDS,
    (Policy, "context_keep_last"): st.none() | INT32,
    (Budget, "steps_per_trajectory_max"): INT32,
    (PolicyDraft, "width"): st.none() | INT32,
    (PolicyDraft, "context_keep_last"): st.none() | INT32,
    (PolicyDraft, "quorum"): st.none() | INT32,
    (PolicyDraft, "straggler_grace_s"): st.none() | SECONDS,
    (PolicyDraft, "deadline_s"): st.none() | SECONDS,
    (PolicyDraft, "steps_per_trajectory_max"): st.none() | INT32,
    (ArmsFrom, "arms"): st.lists(INT32, max_size=3).map(tuple),
    (Record, "step"): st.integers(-1, 2**31 - 1),
    (Delta, "step"): INT32,
    (Outcome, "steps"): INT32,
    (Citation, "step"): st.none() | INT32,
    (ToolSpec, "parameters"): st.dictionaries(TEXT, TEXT | INT32, max_size=2),
    (ToolSpec, "timeout_s"): SECONDS,
}


@functools.cache
def of(kind: Any) -> st.SearchStrategy[Any]:
    """A strategy for values of a type as it is annotated."""
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT,
        int: INT64,
        float: FLOAT,
        bool: st.booleans(),
        types.NoneType: st.none(),
    }
    if kind in plain:
        return plain[kind]
    if isinstance(kind, typing.NewType):
        return of(kind.__supertype__)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return of(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(of, arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[1:] == (...,):
        return st.lists(of(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(of(arguments[0]), of(arguments[1]), max_size=2)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return st.sampled_from(list(kind))
    assert is_dataclass(kind), f"no strategy for {kind}"
    return built(kind)


def built(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    parts = {}
    for field in fields(kind):
        key = (kind, field.name)
        if key in NOT_ON_THE_WIRE:
            parts[field.name] = st.just(NOT_ON_THE_WIRE[key])
        else:
            parts[field.name] = NARROW[key] if key in NARROW else of(hints[field.name])
    return st.builds(kind, **parts)


def travelled(message: Any) -> Any:
    """The message as the other side reads it."""
    return type(message).FromString(message.SerializeToString())


@given(of(Run))
@settings(max_examples=30, deadline=None)
def test_runs_cross_whole(run: Run) -> None:
    assert convert_run.run_from_proto(travelled(convert_run.run_to_proto(run))) == run


@given(of(Record))
@settings(max_examples=60, deadline=None)
def test_records_of_every_kind_cross_whole(record: Record) -> None:
    assert convert_record.record_from_proto(travelled(convert_record.record_to_proto(record))) == record


@given(of(Policy))
@settings(max_examples=30, deadline=None)
def test_policies_cross_whole(policy: Policy) -> None:
    assert convert_policy.policy_from_proto(travelled(convert_policy.policy_to_proto(policy))) == policy


@given(of(PolicyDraft))
@settings(max_examples=30, deadline=None)
def test_drafts_cross_whole_and_what_is_not_set_stays_so(draft: PolicyDraft) -> None:
    violations: list[FieldViolation] = []
    message = travelled(convert_policy.draft_to_proto(draft))
    assert convert_policy.draft_from_proto(message, violations) == draft
    assert not violations


@given(of(tuple[Message, ...]))
@settings(deadline=None)
def test_conversations_cross_whole(messages: tuple[Message, ...]) -> None:
    violations: list[FieldViolation] = []
    sent = map(travelled, convert_policy.messages_to_proto(messages))
    assert convert_policy.messages_from_proto(sent, violations) == messages
    assert not violations


@given(of(tuple[Delta, ...]))
@settings(deadline=None)
def test_deltas_cross_whole(deltas: tuple[Delta, ...]) -> None:
    assert convert_record.deltas_from_proto(travelled(convert_record.deltas_to_proto(deltas))) == deltas


@given(of(Policy))
@settings(max_examples=30, deadline=None)
def test_a_policy_that_was_accepted_can_be_asked_for_again(policy: Policy) -> None:
    """What a server shows as accepted is itself a valid draft on the wire."""
    violations: list[FieldViolation] = []
    convert_policy.draft_from_proto(convert_policy.policy_to_proto(policy), violations)
    assert not violations


def test_what_does_not_cross_is_named_and_exists() -> None:
    for kind, name in NOT_ON_THE_WIRE:
        assert name in {field.name for field in fields(kind)}


@given(of(Run))
@settings(max_examples=5, deadline=None)
def test_the_servers_own_business_stays_with_it(run: Run) -> None:
    secret = replace(run, epoch=7, spec=replace(run.spec, fingerprint="feed"))
    assert convert_run.run_to_proto(secret) == convert_run.run_to_proto(run)


@pytest.mark.parametrize("pair", enums.PAIRS, ids=lambda pair: pair.domain.__name__)
def test_enums_pair_one_to_one_and_zero_means_nothing(pair: enums.EnumPair[Any]) -> None:
    numbers = [pair.to_proto(member) for member in pair.domain]
    assert sorted([0, *numbers]) == sorted(pair.proto.values())
    assert [pair.from_proto(number) for number in numbers] == list(pair.domain)
    assert pair.find(0) is None
    with pytest.raises(HeavyError, match="update the client"):
        pair.from_proto(99)


def test_a_kind_of_record_from_a_newer_server_says_so() -> None:
    with pytest.raises(HeavyError, match="update the client"):
        convert_record.record_from_proto(record_pb2.Record(number=1))


def test_what_a_caller_sends_is_read_as_far_as_it_can_be() -> None:
    violations: list[FieldViolation] = []
    messages = convert_policy.messages_from_proto(
        [policy_pb2.Message(content="a"), policy_pb2.Message(role=99, content="b")],  # type: ignore[arg-type]
        violations,
    )
    assert messages == (Message(Role.USER, "a"), Message(Role.USER, "b"))
    assert [item.field for item in violations] == ["messages[0].role", "messages[1].role"]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_what_no_duration_can_hold_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match=r"policy\.deadline"):
        convert_policy.draft_to_proto(PolicyDraft(deadline_s=seconds))


def test_a_negative_duration_arrives_as_it_was_given() -> None:
    message = travelled(convert_policy.draft_to_proto(PolicyDraft(deadline_s=-1.5)))
    assert convert_policy.draft_from_proto(message, []).deadline_s == -1.5


def test_absent_parts_of_a_run_stay_absent() -> None:
    run = convert_run.run_from_proto(
        run_pb2.Run(
            state=run_pb2.RUN_STATE_ACCEPTED,
            policy=policy_pb2.Policy(
                aggregation=policy_pb2.AGGREGATION_MODE_AUTO,
                context_policy=policy_pb2.CONTEXT_POLICY_FAIL,
            ),
        )
    )
    assert (run.result, run.failure, run.ledger, run.ended_ms) == (None, None, None, None)
