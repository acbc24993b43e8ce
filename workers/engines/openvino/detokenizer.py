"""Token ids to text, piece by piece, never half a character.

Most tokenizers spell every token as fixed bytes; then a table and an incremental UTF-8 decoder do. Whether a
model's does is tried out when it is loaded; where not, the tokenizer decodes a short window.
"""

from __future__ import annotations

import codecs
import random
from collections.abc import Iterable, Sequence
from typing import Protocol

PROBES = 32
PROBE_TOKENS = 24
WINDOW_TOKENS = 6


class TextStream(Protocol):
    """The text of one generation."""

    def feed(self, ids: Sequence[int]) -> str:
        """The text that these tokens complete."""

    def finish(self) -> str:
        """What is left, broken characters replaced."""


class Decoder(Protocol):
    """The part of openvino_genai's Tokenizer that is needed here."""

    def decode(self, tokens: list[int], skip_special_tokens: bool = ...) -> str:
        """Text of tokens."""

    def get_vocab(self) -> dict[bytes, int]:
        """Bytes of every token."""


class Detokenizer:
    """Makes text streams. `hidden` tokens leave no text: the special ones that no parser needs."""

    def __init__(self, tokenizer: Decoder, visible: Iterable[str] = ()) -> None:
        self._tokenizer = tokenizer
        vocabulary = {token: text for text, token in tokenizer.get_vocab().items()}
        self._table = [vocabulary.get(token, b"") for token in range(max(vocabulary, default=-1) + 1)]
        shown = {text.encode() for text in visible}
        self.special = frozenset(token for token in vocabulary if self._is_special(token))
        self.hidden = frozenset(token for token in self.special if vocabulary[token] not in shown)
        self.by_table = self._table_agrees()

    def special_texts(self) -> tuple[str, ...]:
        """How the special tokens are written."""
        texts = (self._table[token].decode("utf-8", "replace") for token in self.special)
        return tuple(sorted(text for text in texts if len(text) > 1))

    def stream(self) -> TextStream:
        """A stream for one generation."""
        if self.by_table:
            return _TableStream(self._table, self.hidden)
        return _WindowStream(self._tokenizer, self.hidden)

    def _is_special(self, token: int) -> bool:
        """Special tokens vanish when they are to be skipped. Only the plausible ones are asked about."""
        text = self._table[token]
        if not (text.startswith((b"<", b"[", b"{", "｜".encode())) and text.endswith((b">", b"]", b"}"))):
            return False
        return len(text) > 2 and self._tokenizer.decode([token], skip_special_tokens=True) == ""

    def _table_agrees(self) -> bool:
        """Tried on whole characters only: for broken ones two decoders may well differ."""
        rng = random.Random(0)
        known = [token for token, text in enumerate(self._table) if _is_text(text)]
        if not known:
            return False
        for _ in range(PROBES):
            ids = [rng.choice(known) for _ in range(PROBE_TOKENS)]
            spelled = b"".join(self._table[token] for token in ids).decode("utf-8", "replace")
            if spelled != self._tokenizer.decode(ids, skip_special_tokens=False):
                return False
        return True


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False


class _TableStream:
    def __init__(self, table: Sequence[bytes], hidden: frozenset[int]) -> None:
        self._table = table
        self._hidden = hidden
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: Sequence[int]) -> str:
        size = len(self._table)
        data = b"".join(self._table[one] for one in ids if one < size and one not in self._hidden)
        return self._decoder.decode(data)

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _WindowStream:
    """Decodes the last few tokens with and without the new ones; the difference is new text."""

    def __init__(self, tokenizer: Decoder, hidden: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._ids: list[int] = []
        self._shown = 0  # tokens whose text has been given out

    def feed(self, ids: Sequence[int]) -> str:
        self._ids += [one for one in ids if one not in self._hidden]
        return self._fresh(final=False)

    def finish(self) -> str:
        return self._fresh(final=True)

    def _fresh(self, final: bool) -> str:
        start = max(self._shown - WINDOW_TOKENS, 0)
        before = self._decode(self._ids[start : self._shown])
        after = self._decode(self._ids[start:])
        if after.endswith("\ufffd") and not final:
            return ""
        self._shown = len(self._ids)
        return after[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False) if ids else ""
