"""Conversations and policies, to protobuf and back.

What a caller sends is not trusted: `messages_from_proto` and `draft_from_proto` add what cannot be read to
a list of violations and go on, so that the caller hears of everything at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from heavy.core.draft import PolicyDraft
from heavy.core.errors import FieldViolation, InvalidRequest
from heavy.core.ids import RunId
from heavy.core.messages import Message, Role, ToolCall
from heavy.core.policy import ArmsFrom, Budget, Members, Policy, Sampling
from heavy.v1 import policy_pb2 as pb
from heavy.wire import enums
from heavy.wire.times import duration_from_proto, duration_to_proto

Violations = list[FieldViolation]


def tool_call_to_proto(call: ToolCall) -> pb.ToolCall:
    """A call as the model wrote it."""
    return pb.ToolCall(id=call.id, name=call.name, arguments=call.arguments)


def tool_call_from_proto(call: pb.ToolCall) -> ToolCall:
    """A call as the model wrote it."""
    return ToolCall(id=call.id, name=call.name, arguments=call.arguments)


def message_to_proto(message: Message) -> pb.Message:
    """One turn."""
    return pb.Message(
        role=enums.ROLE.to_proto(message.role),
        content=message.content,
        reasoning=message.reasoning,
        tool_calls=map(tool_call_to_proto, message.tool_calls),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def message_from_proto(message: pb.Message) -> Message:
    """One turn that a server sent. Raises `HeavyError` for a role that is not known here."""
    return _message(message, enums.ROLE.from_proto(message.role))


def messages_to_proto(messages: Sequence[Message]) -> list[pb.Message]:
    """A conversation. Raises `InvalidRequest` naming every message whose text is not valid Unicode."""
    violations: Violations = []
    converted = []
    for index, message in enumerate(messages):
        try:
            converted.append(message_to_proto(message))
        except (ValueError, TypeError) as error:
            violations.append(FieldViolation(f"messages[{index}]", f"cannot be sent: {error}"))
    if violations:
        raise InvalidRequest(tuple(violations))
    return converted


def messages_from_proto(messages: Iterable[pb.Message], violations: Violations) -> tuple[Message, ...]:
    """A caller's conversation; unknown roles become violations (and count as the user's)."""
    converted = []
    for index, message in enumerate(messages):
        role = enums.ROLE.find(message.role)
        if role is None:
            problem = f"is {message.role}; it must be one of {enums.ROLE.choices()}"
            violations.append(FieldViolation(f"messages[{index}].role", problem))
        converted.append(_message(message, role or Role.USER))
    return tuple(converted)


def _message(message: pb.Message, role: Role) -> Message:
    return Message(
        role=role,
        content=message.content,
        reasoning=message.reasoning,
        tool_calls=tuple(map(tool_call_from_proto, message.tool_calls)),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def policy_to_proto(policy: Policy) -> pb.Policy:
    """A complete policy. The seed travels in `sampling.seed`; that of `policy.sampling` is never set."""
    message = pb.Policy(
        width=policy.width,
        members=pb.Members(arms=policy.members.arms, aggregator=policy.members.aggregator),
        quorum=policy.quorum,
        straggler_grace=duration_to_proto(policy.straggler_grace_s),
        deadline=duration_to_proto(policy.deadline_s),
        budget=_budget_to_proto(policy.budget),
        aggregation=enums.AGGREGATION_MODE.to_proto(policy.aggregation),
        vote_threshold=policy.vote_threshold,
        early_stop=policy.early_stop,
        tools=policy.tools,
        no_tools=not policy.tools,
        context_policy=enums.CONTEXT_POLICY.to_proto(policy.context_policy),
        context_keep_last=policy.context_keep_last,
        preset=policy.preset,
        sampling=pb.Sampling(seed=policy.seed),
    )
    if policy.sampling is not None:
        message.sampling.temperature = policy.sampling.temperature
        message.sampling.top_p = policy.sampling.top_p
    if policy.arms_from is not None:
        message.arms_from.CopyFrom(_arms_from_to_proto(policy.arms_from))
    return message


def policy_from_proto(message: pb.Policy) -> Policy:
    """A complete policy as a server sent it."""
    sampling = message.sampling
    overridden = sampling.HasField("temperature")
    return Policy(
        width=message.width,
        members=Members(arms=tuple(message.members.arms), aggregator=message.members.aggregator),
        quorum=message.quorum,
        straggler_grace_s=duration_from_proto(message.straggler_grace),
        deadline_s=duration_from_proto(message.deadline),
        budget=_budget_from_proto(message.budget),
        aggregation=enums.AGGREGATION_MODE.from_proto(message.aggregation),
        vote_threshold=message.vote_threshold,
        early_stop=message.early_stop,
        tools=tuple(message.tools),
        context_policy=(
            enums.CONTEXT_POLICY.from_proto(message.context_policy) if message.context_policy else None
        ),
        context_keep_last=_given(message, "context_keep_last"),
        sampling=Sampling(temperature=sampling.temperature, top_p=sampling.top_p) if overridden else None,
        seed=sampling.seed,
        arms_from=_arms_from_from_proto(message),
        preset=message.preset,
    )


def _arms_from_to_proto(taken: ArmsFrom) -> pb.ArmsFrom:
    return pb.ArmsFrom(run_id=taken.run, arms=taken.arms)


def _arms_from_from_proto(message: pb.Policy) -> ArmsFrom | None:
    taken = _given(message, "arms_from")
    return None if taken is None else ArmsFrom(RunId(taken.run_id), tuple(taken.arms))


def _budget_to_proto(budget: Budget) -> pb.Budget:
    return pb.Budget(
        tokens_max=budget.tokens_max,
        cost_usd_max=budget.cost_usd_max,
        tool_calls_max=budget.tool_calls_max,
        steps_per_trajectory_max=budget.steps_per_trajectory_max,
        reasoning_tokens_per_step_max=budget.reasoning_tokens_per_step_max,
        aggregation_share=budget.aggregation_share,
    )


def _budget_from_proto(budget: pb.Budget) -> Budget:
    return Budget(
        tokens_max=_given(budget, "tokens_max"),
        cost_usd_max=_given(budget, "cost_usd_max"),
        tool_calls_max=_given(budget, "tool_calls_max"),
        steps_per_trajectory_max=budget.steps_per_trajectory_max,
        reasoning_tokens_per_step_max=budget.reasoning_tokens_per_step_max,
        aggregation_share=budget.aggregation_share,
    )


def draft_to_proto(draft: PolicyDraft) -> pb.Policy:
    """A caller's draft; what is None stays unset. Raises `InvalidRequest` for what no field can hold."""
    message, violations = pb.Policy(), []
    for path, value, put in _assignments(draft, message):
        try:
            if value is not None:
                put(value)
        except (ValueError, TypeError) as error:
            violations.append(
                FieldViolation(f"policy.{path}", f"is {value!r:.80}, which cannot be sent: {error}")
            )
    if violations:
        raise InvalidRequest(tuple(violations))
    return message


def _assignments(draft: PolicyDraft, message: pb.Policy) -> list[tuple[str, Any, Callable[[Any], Any]]]:
    """Each field of a draft: its path in the API, its value, and how it is put there."""

    def scalar(part: Any, name: str) -> Callable[[Any], Any]:
        return lambda value: setattr(part, name, value)

    budget, sampling = message.budget, message.sampling
    return [
        ("width", draft.width, scalar(message, "width")),
        ("members.arms", draft.arms or None, lambda names: message.members.arms.extend(names)),
        ("members.aggregator", draft.aggregator or None, scalar(message.members, "aggregator")),
        ("quorum", draft.quorum, scalar(message, "quorum")),
        (
            "straggler_grace",
            draft.straggler_grace_s,
            lambda seconds: message.straggler_grace.CopyFrom(duration_to_proto(seconds)),
        ),
        ("deadline", draft.deadline_s, lambda seconds: message.deadline.CopyFrom(duration_to_proto(seconds))),
        ("budget.tokens_max", draft.tokens_max, scalar(budget, "tokens_max")),
        ("budget.cost_usd_max", draft.cost_usd_max, scalar(budget, "cost_usd_max")),
        ("budget.tool_calls_max", draft.tool_calls_max, scalar(budget, "tool_calls_max")),
        (
            "budget.steps_per_trajectory_max",
            draft.steps_per_trajectory_max,
            scalar(budget, "steps_per_trajectory_max"),
        ),
        (
            "budget.reasoning_tokens_per_step_max",
            draft.reasoning_tokens_per_step_max,
            scalar(budget, "reasoning_tokens_per_step_max"),
        ),
        ("budget.aggregation_share", draft.aggregation_share, scalar(budget, "aggregation_share")),
        (
            "aggregation",
            draft.aggregation,
            lambda mode: setattr(message, "aggregation", enums.AGGREGATION_MODE.to_proto(mode)),
        ),
        ("vote_threshold", draft.vote_threshold, scalar(message, "vote_threshold")),
        ("early_stop", draft.early_stop, scalar(message, "early_stop")),
        ("tools", draft.tools, lambda names: message.tools.extend(names)),
        ("no_tools", True if draft.tools == () else None, scalar(message, "no_tools")),
        (
            "context_policy",
            draft.context_policy,
            lambda policy: setattr(message, "context_policy", enums.CONTEXT_POLICY.to_proto(policy)),
        ),
        ("context_keep_last", draft.context_keep_last, scalar(message, "context_keep_last")),
        ("preset", draft.preset or None, scalar(message, "preset")),
        ("sampling.temperature", draft.temperature, scalar(sampling, "temperature")),
        ("sampling.top_p", draft.top_p, scalar(sampling, "top_p")),
        ("sampling.seed", draft.seed, scalar(sampling, "seed")),
        (
            "arms_from",
            draft.arms_from,
            lambda taken: message.arms_from.CopyFrom(_arms_from_to_proto(taken)),
        ),
    ]


def draft_from_proto(message: pb.Policy, violations: Violations) -> PolicyDraft:
    """A caller's draft; what cannot be read becomes a violation."""
    if message.no_tools and message.tools:
        violations.append(
            FieldViolation("policy.no_tools", "is set while policy.tools names some; set one of them")
        )
    for name, pair in (("aggregation", enums.AGGREGATION_MODE), ("context_policy", enums.CONTEXT_POLICY)):
        number = getattr(message, name)
        if number and pair.find(number) is None:
            violations.append(
                FieldViolation(f"policy.{name}", f"is {number}; it must be one of {pair.choices()}")
            )
    budget, sampling = message.budget, message.sampling
    return PolicyDraft(
        width=_given(message, "width"),
        arms=tuple(message.members.arms),
        aggregator=message.members.aggregator,
        quorum=_given(message, "quorum"),
        straggler_grace_s=_seconds(message, "straggler_grace"),
        deadline_s=_seconds(message, "deadline"),
        tokens_max=_given(budget, "tokens_max"),
        cost_usd_max=_given(budget, "cost_usd_max"),
        tool_calls_max=_given(budget, "tool_calls_max"),
        steps_per_trajectory_max=_given(budget, "steps_per_trajectory_max"),
        reasoning_tokens_per_step_max=_given(budget, "reasoning_tokens_per_step_max"),
        aggregation_share=_given(budget, "aggregation_share"),
        aggregation=enums.AGGREGATION_MODE.find(message.aggregation),
        vote_threshold=_given(message, "vote_threshold"),
        early_stop=_given(message, "early_stop"),
        tools=tuple(message.tools) if message.tools or message.no_tools else None,
        context_policy=enums.CONTEXT_POLICY.find(message.context_policy),
        context_keep_last=_given(message, "context_keep_last"),
        temperature=_given(sampling, "temperature"),
        top_p=_given(sampling, "top_p"),
        seed=_given(sampling, "seed"),
        arms_from=_arms_from_from_proto(message),
        preset=message.preset,
    )


def _given(message: Any, name: str) -> Any:
    """An optional field's value, or None when it was not set."""
    return getattr(message, name) if message.HasField(name) else None


def _seconds(message: Any, name: str) -> float | None:
    duration = _given(message, name)
    return None if duration is None else duration_from_proto(duration)
