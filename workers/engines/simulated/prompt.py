"""Prompts without a tokenizer: four characters a token, counted message by message; and a prefix cache."""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from workers.engines.api.request import ChatRequest

CHARACTERS_PER_TOKEN = 4
MESSAGE_OVERHEAD_TOKENS = 4
VOCABULARY = 163_840


@dataclass(frozen=True, slots=True)
class Segment:
    """One message (or the tool declarations). `digest` names the conversation up to its end."""

    text: str
    digest: bytes
    tokens: int


@dataclass(frozen=True, slots=True)
class SimulatedPrompt:
    """A conversation as segments."""

    segments: tuple[Segment, ...]
    tokens: int


def render(request: ChatRequest) -> SimulatedPrompt:
    """The prompt of a chat request; equal prefixes of two conversations give equal segments."""
    texts = [orjson.dumps(request.tools).decode()] if request.tools else []
    texts += [orjson.dumps(message, option=orjson.OPT_SORT_KEYS).decode() for message in request.messages]
    chain = hashlib.blake2b(digest_size=16)
    segments = []
    for text in texts:
        chain.update(text.encode() + b"\0")
        segments.append(
            Segment(text, chain.digest(), MESSAGE_OVERHEAD_TOKENS + -(-len(text) // CHARACTERS_PER_TOKEN))
        )
    return SimulatedPrompt(tuple(segments), sum(segment.tokens for segment in segments))


def token_ids(text: str) -> list[int]:
    """Ids of a text: one for every four characters."""
    pieces = (text[at : at + CHARACTERS_PER_TOKEN] for at in range(0, len(text), CHARACTERS_PER_TOKEN))
    return [zlib.crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY for piece in pieces]


def prompt_ids(prompt: SimulatedPrompt) -> list[int]:
    """Ids of a whole prompt, as many as `prompt.tokens`."""
    return [
        token
        for segment in prompt.segments
        for token in [*range(MESSAGE_OVERHEAD_TOKENS), *token_ids(segment.text)]
    ]


class PrefixCache:
    """A radix cache whose edges are whole messages: least recently used ends go first when it is full."""

    def __init__(self, tokens_max: int) -> None:
        self.tokens_max = tokens_max
        self.tokens = 0
        self.asked = 0
        self.hit = 0
        self._segments: OrderedDict[bytes, int] = OrderedDict()

    def match(self, prompt: SimulatedPrompt) -> int:
        """Tokens of the longest cached prefix; always leaves at least one token to compute."""
        cached = 0
        for segment in prompt.segments:
            if segment.digest not in self._segments:
                break
            cached += segment.tokens
        cached = min(cached, max(prompt.tokens - 1, 0))
        self.asked += prompt.tokens
        self.hit += cached
        return cached

    def insert(self, segments: Sequence[Segment]) -> None:
        """Remember a prompt. Ends are older than beginnings, so they are forgotten first."""
        for segment in reversed(segments):
            if self._segments.pop(segment.digest, None) is None:
                self.tokens += segment.tokens
            self._segments[segment.digest] = segment.tokens
        while self.tokens > self.tokens_max and self._segments:
            _, tokens = self._segments.popitem(last=False)
            self.tokens -= tokens
