"""Keeping a conversation inside the model's context: counting it, and making room before it is full."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final

from heavy.agent.relief import Messages, Relief
from heavy.core.errors import ContextOverflow, EngineError
from heavy.core.messages import Message, Role
from heavy.core.policy import ContextPolicy
from heavy.core.tools import ToolSpec
from heavy.profiles.schema import Profile
from heavy.replicas.api import Replica

_TOKENS_PER_MESSAGE: Final = 16
"""Role markers, ids and separators of chat templates, generously."""
_TOKENS_PER_REQUEST: Final = 64
_LOW_WATER: Final = 2
"""Once room is made, this many times the headroom is made, so that it is not made again at every step."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A conversation that fits. `prompt_tokens` is exact or an upper bound.

    `hidden` tool outputs were hidden and `dropped` messages dropped now; `summarised`: a summary stands in
    for those.
    """

    messages: Messages
    prompt_tokens: int
    room_tokens: int
    hidden: int = 0
    dropped: int = 0
    summarised: bool = False

    @property
    def relieved(self) -> bool:
        """Whether anything had to give way."""
        return bool(self.hidden or self.dropped)

    def __str__(self) -> str:
        dropped = f"{self.dropped} messages {'summarised' if self.summarised else 'dropped'}"
        parts = [f"{self.hidden} tool outputs hidden"] * bool(self.hidden) + [dropped] * bool(self.dropped)
        return f"{', '.join(parts)}; the prompt has {self.prompt_tokens} tokens"


Summarise = Callable[[Fit], Awaitable[str]]
"""Has the model write down what it has so far; empty where that could not be had."""


class ContextWindow:
    """The context of one trajectory.

    Counting is cheap until it matters: a byte-level tokenizer never makes more tokens than there are bytes,
    so bytes bound what is new, and what the engine has counted once is remembered. Only when that bound
    comes near the limit is the server's own tokenizer asked, and only for what is new.
    """

    def __init__(
        self,
        profile: Profile,
        replica: Replica,
        tools: tuple[ToolSpec, ...],
        relief: Relief,
        headroom_share: float,
    ) -> None:
        self._profile = profile
        self._replica = replica
        self._tools = tools
        self._relief = relief
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
        """The engine found the last fit too long: the next one must give something up, or give up."""
        self._refused = True
        self._forget()

    async def fit(
        self,
        messages: Messages,
        *,
        room_tokens: int,
        wish_tokens: int,
        summarise: Summarise | None = None,
        last: bool = False,
    ) -> Fit:
        """Make room for a completion: at least `room_tokens`, and a share of the context if that can be had.

        `wish_tokens` is what the completion would like; while the cheap bound leaves that much, nothing is
        counted exactly. Without `summarise` turns are dropped unread; for the `last` generation more gives
        way. Raises `ContextOverflow` when `room_tokens` cannot be had, whatever gives way.
        """
        fit = await self.measure(messages, wish_tokens)
        if self._refused or fit.room_tokens < max(room_tokens, self._headroom_tokens):
            fit = await self._relieve(fit, room_tokens, wish_tokens, summarise, last)
        if fit.room_tokens < room_tokens or (self._refused and not fit.relieved):
            raise self._overflow(fit, room_tokens)
        self._refused = False
        return fit

    async def measure(self, messages: Messages, wish_tokens: int) -> Fit:
        """The conversation as it is, counted; exactly where less than `wish_tokens` seem to be left."""
        context = self._profile.context_tokens
        tokens = self._bound(messages)
        if context - tokens < max(wish_tokens, self._headroom_tokens):
            tokens = await self._exact(messages, tokens)
        return Fit(messages, tokens, context - tokens)

    async def measure_apart(self, messages: Messages) -> Fit:
        """Another conversation, counted by the server; what is known of the trajectory's own stays."""
        try:
            tokens = await self._replica.count_tokens(self._profile.name, messages, self._tools)
        except EngineError:
            tokens = self._tools_bound + sum(map(_message_bound, messages))
        return Fit(messages, tokens, self._profile.context_tokens - tokens)

    async def _relieve(
        self, fit: Fit, room_tokens: int, wish_tokens: int, summarise: Summarise | None, last: bool
    ) -> Fit:
        """Stage after stage, until there is room; see `relief`. A summary comes before what it stands for."""
        summarised = await self._summarised(fit, summarise)
        low_water = max(room_tokens, _LOW_WATER * self._headroom_tokens)
        for stage in self._relief.stages(last=last):
            wanted = low_water if stage.eager else room_tokens
            if fit.room_tokens >= wanted and not (self._refused and not fit.relieved):
                continue
            messages = stage.apply(fit.messages)
            if any(new is not old for new, old in zip_longest(messages, fit.messages)):
                fit = await self._changed(fit, messages, wish_tokens)
        return replace(fit, summarised=summarised)

    async def _summarised(self, fit: Fit, summarise: Summarise | None) -> bool:
        """Ask for a summary, where the policy wants one and what it would replace is worth it."""
        relief = self._relief
        if summarise is None or relief.policy is not ContextPolicy.SUMMARISE:
            return False
        gain_tokens = relief.droppable_share(fit.messages) * fit.prompt_tokens
        if gain_tokens < self._headroom_tokens:
            return False
        if summary := await summarise(fit):
            relief.summary = summary
        return bool(summary)

    async def _changed(self, fit: Fit, messages: Messages, wish_tokens: int) -> Fit:
        """The fit of a conversation that gave something up; what was counted of it before is void."""
        self._forget()
        measured = await self.measure(messages, wish_tokens)
        kept = set(map(id, messages))
        gone = [old for old in fit.messages if id(old) not in kept]
        hidden = sum(old.role is Role.TOOL for old in gone) if len(messages) == len(fit.messages) else 0
        return replace(measured, hidden=fit.hidden + hidden, dropped=fit.dropped + len(gone) - hidden)

    def _forget(self) -> None:
        self._known_messages = self._known_tokens = 0

    def _bound(self, messages: Sequence[Message]) -> int:
        new = messages[self._known_messages :]
        return (self._known_tokens or self._tools_bound) + sum(map(_message_bound, new))

    async def _exact(self, messages: Messages, bound: int) -> int:
        """The server's count; the bound where it gives none. It would refuse the generation as well."""
        try:
            tokens = min(bound, await self._count(messages))
        except EngineError:
            return bound
        self.learn(len(messages), tokens)
        return tokens

    async def _count(self, messages: Messages) -> int:
        """What the server makes of it: of all of it once, then of what is new, as the text of one message."""
        if not self._known_tokens:
            return await self._replica.count_tokens(self._profile.name, messages, self._tools)
        new = messages[self._known_messages :]
        if not new:
            return self._known_tokens
        text = Message(Role.USER, "\n".join(part for message in new for part in _parts(message)))
        counted = await self._replica.count_tokens(self._profile.name, (text,), ())
        return self._known_tokens + counted + sum(map(_overhead, new))

    def _overflow(self, fit: Fit, room_tokens: int) -> ContextOverflow:
        return ContextOverflow(
            f"The conversation has about {fit.prompt_tokens} tokens and needs {room_tokens} more for a"
            f" completion, but the context of {self._profile.name} is {self._profile.context_tokens} and"
            f" nothing more may give way (policy {self._relief.policy.value}). Ask with less text, or serve"
            " the model with a longer context.",
            limit="context_tokens",
            used=fit.prompt_tokens + room_tokens,
            allowed=self._profile.context_tokens,
        )


def _message_bound(message: Message) -> int:
    return _overhead(message) + sum(len(part.encode("utf-8", "surrogatepass")) for part in _parts(message))


def _overhead(message: Message) -> int:
    return _TOKENS_PER_MESSAGE * (1 + len(message.tool_calls))


def _parts(message: Message) -> list[str]:
    """Every text of a message that a template may render."""
    parts = [message.content, message.reasoning, message.tool_call_id, message.name]
    for call in message.tool_calls:
        parts += [call.id, call.name, call.arguments]
    return parts


def _tool_bound(tool: ToolSpec) -> int:
    schema = json.dumps(dict(tool.parameters), default=str)
    return _TOKENS_PER_MESSAGE + len((tool.name + tool.description + schema).encode("utf-8", "surrogatepass"))
