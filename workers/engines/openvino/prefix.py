"""Which blocks of a prompt the pipeline's prefix cache holds, by bookkeeping of our own.

OpenVINO GenAI reuses KV blocks but does not report it. It keys whole blocks by all tokens up to their end and
overwrites the least recently used; this mirrors that, so `cached_tokens` is a calculation, not a reading. It
counts whole blocks only, where the pipeline sometimes reuses a part of one more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

BLOCK_TOKENS = 32  # of the CPU plugin's paged attention


class PrefixBlocks:
    """The blocks that have been computed and not yet overwritten."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self.asked = 0
        self.hit = 0

    def match(self, tokens: Sequence[int]) -> int:
        """Tokens at the beginning that need no prefill; at least one always does."""
        cached = 0
        for digest in _chain(tokens):
            if digest not in self._blocks:
                break
            cached += BLOCK_TOKENS
        cached = min(cached, max(len(tokens) - 1, 0))
        self.asked += len(tokens)
        self.hit += cached
        return cached

    def insert(self, tokens: Sequence[int]) -> None:
        """These tokens have KV now. Later blocks are overwritten before earlier ones."""
        for digest in reversed(list(_chain(tokens))):
            self._blocks.pop(digest, None)
            self._blocks[digest] = None
        while len(self._blocks) > self._blocks_max:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        """The cache was lost."""
        self._blocks.clear()


def _chain(tokens: Sequence[int]) -> Iterator[int]:
    """One digest for each whole block, over everything up to its end."""
    digest = 0
    for end in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
        digest = hash((digest, tuple(tokens[end - BLOCK_TOKENS : end])))
        yield digest
