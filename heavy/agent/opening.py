"""How a trajectory's conversation begins, and what may go into it."""

from __future__ import annotations

from dataclasses import replace

from heavy.agent.hygiene import normalise, outgoing
from heavy.core.ids import derive_seed
from heavy.core.messages import Message, Role
from heavy.core.policy import Sampling
from heavy.core.runs import TrajectorySpec
from heavy.profiles.schema import Profile
from heavy.prompts import render


def opening(spec: TrajectorySpec, profile: Profile) -> list[Message]:
    """The conversation as it begins: the caller's, made valid, under the profile's system prompt."""
    messages = [outgoing(m, profile) for m in normalise(_told(spec, profile), profile.tool_call_dialect)]
    if not profile.prompts.system:
        return messages
    prompt = render(profile, "system")
    if messages and messages[0].role is Role.SYSTEM:
        # One system message: many templates refuse a second one.
        prompt = f"{prompt}\n\n{messages.pop(0).content}"
    return [Message(Role.SYSTEM, prompt), *messages]


def _told(spec: TrajectorySpec, profile: Profile) -> tuple[Message, ...]:
    """The caller's conversation; its last turn names the files that came with it."""
    if not spec.files:
        return spec.messages
    *before, last = spec.messages
    note = render(profile, "files", files=spec.files).strip()
    return (*before, replace(last, content=f"{last.content}\n\n{note}"))


def says_something(message: Message) -> bool:
    """Whether a turn belongs into the conversation: servers refuse empty ones."""
    return bool(message.content.strip() or message.tool_calls)


def answer_tokens(profile: Profile) -> int:
    """What is kept free for a forced answer; small contexts scale it down."""
    return min(profile.limits.answer_tokens_reserved, profile.context_tokens // 4)


def seeded(spec: TrajectorySpec, number: int, attempt: int) -> Sampling:
    """A seed of its own for each attempt, so that a retry is a new sample; None stays the engine's choice."""
    if spec.sampling.seed is None:
        return spec.sampling
    return replace(spec.sampling, seed=derive_seed(spec.sampling.seed, spec.trajectory, number, attempt))
