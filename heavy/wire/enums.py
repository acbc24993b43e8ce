"""Domain enums and protobuf enums, paired by name: RunState.FAILED is RUN_STATE_FAILED."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from heavy.core.errors import HeavyError
from heavy.core.messages import FinishReason, Role
from heavy.core.policy import AggregationMode, ContextPolicy
from heavy.core.records import Event
from heavy.core.runs import AggregationMethod, OutcomeKind, RunState
from heavy.core.tools import CacheState, Effects
from heavy.v1 import policy_pb2, record_pb2, run_pb2, tool_pb2

Member = TypeVar("Member", bound=StrEnum)


class EnumPair(Generic[Member]):
    """One domain enum and its protobuf counterpart. Zero is "not specified" and has no domain member."""

    def __init__(self, domain: type[Member], proto: EnumTypeWrapper, prefix: str) -> None:
        self._to: dict[Member, int] = {member: proto.Value(prefix + member.name) for member in domain}
        self._from = {number: member for member, number in self._to.items()}
        self.domain = domain
        self.proto = proto

    def to_proto(self, member: Member | None) -> Any:
        """The protobuf number; 0 for None. (Stubs give every protobuf enum a type of its own: hence Any.)"""
        return 0 if member is None else self._to[member]

    def find(self, number: int) -> Member | None:
        """The domain member, or None when the number is 0 or not known here."""
        return self._from.get(number)

    def from_proto(self, number: int) -> Member:
        """The domain member of what a server sent. Raises `HeavyError` when it is not known here."""
        found = self.find(number)
        if found is None:
            raise HeavyError(
                f"The server sent {self.domain.__name__} {number}, which this client does not know: "
                "update the client to the server's version."
            )
        return found

    def choices(self) -> str:
        """Every valid protobuf name, for people."""
        return ", ".join(self.proto.Name(number) for number in sorted(self._from))


ROLE: Final = EnumPair(Role, policy_pb2.Role, "ROLE_")
AGGREGATION_MODE: Final = EnumPair(AggregationMode, policy_pb2.AggregationMode, "AGGREGATION_MODE_")
CONTEXT_POLICY: Final = EnumPair(ContextPolicy, policy_pb2.ContextPolicy, "CONTEXT_POLICY_")
RUN_STATE: Final = EnumPair(RunState, run_pb2.RunState, "RUN_STATE_")
OUTCOME_KIND: Final = EnumPair(OutcomeKind, run_pb2.OutcomeKind, "OUTCOME_KIND_")
AGGREGATION_METHOD: Final = EnumPair(AggregationMethod, run_pb2.AggregationMethod, "AGGREGATION_METHOD_")
FINISH_REASON: Final = EnumPair(FinishReason, record_pb2.FinishReason, "FINISH_REASON_")
EFFECTS: Final = EnumPair(Effects, tool_pb2.Effects, "EFFECTS_")
CACHE_STATE: Final = EnumPair(CacheState, record_pb2.CacheState, "CACHE_STATE_")
EVENT: Final = EnumPair(Event, record_pb2.Event, "EVENT_")

PAIRS: Final = (
    ROLE,
    AGGREGATION_MODE,
    CONTEXT_POLICY,
    RUN_STATE,
    OUTCOME_KIND,
    AGGREGATION_METHOD,
    FINISH_REASON,
    EFFECTS,
    CACHE_STATE,
    EVENT,
)
