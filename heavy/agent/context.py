"""Keeping a conversation inside the model's context: counting, and what gives way when it is full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from heavy.core.errors import ContextOverflow, EngineError
from heavy.core.messages import Message, Role
from heavy.core.policy import ContextPolicy
from heavy.core.tools import ToolSpec
from heavy.profiles.schema import Profile
from heavy.replicas.api import Replica

HIDDEN: Final = "[This tool output was hidden to make room. Call the tool again if you need it.]"

_TOKENS_PER_MESSAGE: Final = 16
"""Role markers, ids and separators of chat templates, generously."""
_TOKENS_PER_REQUEST: Final = 64


@dataclass(frozen=True, slots=True)
class Fit:
    """A conversation that fits. `prompt_tokens` is exact or an upper bound; `hidden`: outputs hidden now."""

    messages: tuple[Message, ...]
    prompt_tokens: int
    room_tokens: int
    hidden: int = 0


class ContextWindow:
    """The context of one trajectory.

    Counting is cheap until it matters: a byte-level tokenizer never makes more tokens than there are bytes,
    so bytes bound what is new, and what the engine has counted once is remembered. Only when that bound
    comes near the limit is the server's own tokenizer asked.
    """

    def __init__(
        self,
        profile: Profile,
        replica: Replica,
        tools: tuple[ToolSpec, ...],
        policy: ContextPolicy,
        headroom_share: float,
    ) -> None:
        self._profile = profile
        self._replica = replica
        self._tools = tools
        self._policy = policy
        self._headroom_tokens = int(profile.context_tokens * headroom_share)
        self._tools_bound = _TOKENS_PER_REQUEST + sum(_tool_bound(tool) for tool in tools)
        self._known_messages = 0
        self._known_tokens = 0
        self._refused = False

    def learn(self, messages: int, prompt_tokens: int) -> None:
        """The engine counted `prompt_tokens` for the first `messages` messages of the conversation."""
        if prompt_tokens > 0:
            self._known_messages, self._known_tokens = messages, prompt_tokens

    def refuse(self) -> None:
        """The engine found the last fit too long: the next one must hide something, or give up."""
        self._refused = True

    async def fit(self, messages: tuple[Message, ...], *, room_tokens: int, wish_tokens: int) -> Fit:
        """Make room for a completion: at least `room_tokens`, and a share of the context if that can be had.

        `wish_tokens` is what the completion would like; while the cheap bound leaves that much, nothing is
        counted exactly. Raises `ContextOverflow` when `room_tokens` cannot be had, whatever is hidden.
        """
        fit = await self._measure(messages, wish_tokens)
        full = self._refused or fit.room_tokens < max(room_tokens, self._headroom_tokens)
        if full and self._policy is ContextPolicy.HIDE_TOOL_OUTPUTS:
            fit = await self._hide(fit, room_tokens, wish_tokens)
        if fit.room_tokens < room_tokens or (self._refused and not fit.hidden):
            raise self._overflow(fit, room_tokens)
        self._refused = False
        return fit

    async def _hide(self, fit: Fit, room_tokens: int, wish_tokens: int) -> Fit:
        """Hide earlier outputs, and those of the latest turn only where the rest was not enough."""
        for keep_last in (True, False):
            enough = fit.room_tokens >= room_tokens and not (self._refused and not fit.hidden)
            if enough and not keep_last:
                break
            hidden = hide_tool_outputs(fit.messages, keep_last=keep_last)
            count = sum(new is not old for new, old in zip(hidden, fit.messages, strict=True))
            if count:
                self._known_messages = self._known_tokens = 0
                fit = replace(await self._measure(hidden, wish_tokens), hidden=fit.hidden + count)
        return fit

    async def _measure(self, messages: tuple[Message, ...], wish_tokens: int) -> Fit:
        context = self._profile.context_tokens
        tokens = self._bound(messages)
        if context - tokens < max(wish_tokens, self._headroom_tokens):
            tokens = await self._exact(messages, tokens)
        return Fit(messages, tokens, context - tokens)

    def _bound(self, messages: Sequence[Message]) -> int:
        new = messages[self._known_messages :]
        return (self._known_tokens or self._tools_bound) + sum(map(_message_bound, new))

    async def _exact(self, messages: tuple[Message, ...], bound: int) -> int:
        """The server's count; the bound where it gives none. It would refuse the generation as well."""
        try:
            tokens = await self._replica.count_tokens(self._profile.name, messages, self._tools)
        except EngineError:
            return bound
        self.learn(len(messages), tokens)
        return tokens

    def _overflow(self, fit: Fit, room_tokens: int) -> ContextOverflow:
        return ContextOverflow(
            f"The conversation has about {fit.prompt_tokens} tokens and needs {room_tokens} more for a"
            f" completion, but the context of {self._profile.name} is {self._profile.context_tokens} and"
            " nothing more may be hidden. Ask with less text, or serve the model with a longer context.",
            limit="context_tokens",
            used=fit.prompt_tokens + room_tokens,
            allowed=self._profile.context_tokens,
        )


def hide_tool_outputs(messages: tuple[Message, ...], *, keep_last: bool = False) -> tuple[Message, ...]:
    """Tool outputs replaced by a short marker, wherever that makes them shorter; all else is the same object.

    `keep_last` spares the results of the last assistant turn, which the model has not worked with yet.
    """
    last = max((i for i, m in enumerate(messages) if m.role is Role.ASSISTANT), default=len(messages))
    return tuple(
        replace(message, content=HIDDEN)
        if message.role is Role.TOOL
        and len(message.content) > len(HIDDEN)
        and not (keep_last and index > last)
        else message
        for index, message in enumerate(messages)
    )


def _message_bound(message: Message) -> int:
    parts = [message.content, message.reasoning, message.tool_call_id, message.name]
    for call in message.tool_calls:
        parts += [call.id, call.name, call.arguments]
    extra = _TOKENS_PER_MESSAGE * (1 + len(message.tool_calls))
    return extra + sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)


def _tool_bound(tool: ToolSpec) -> int:
    schema = json.dumps(dict(tool.parameters), default=str)
    return _TOKENS_PER_MESSAGE + len((tool.name + tool.description + schema).encode("utf-8", "surrogatepass"))
