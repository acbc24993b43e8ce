"""A stored result: what it says, how old it may get, and when it is worth fetching anew ahead of time.

On the server an entry is a header that administration can read (a version, the tags of tool and scope) and
JSON, compressed where that pays. A large content is not in it but under its own address, once for all
entries that have it.
"""

from __future__ import annotations

import json
import math
import random
import secrets
from dataclasses import dataclass
from typing import Any, Final

import zstandard

from heavy.core import clock
from heavy.core.tools import CacheState, ToolOutput
from heavy.tools.cache_key import TAG_CHARS, Key, Keys

INLINE_BYTES_MAX: Final = 16 << 10
"""Larger contents (compressed) stand under their own address."""
BODY_BYTES_MAX: Final = 4 << 20
"""Larger contents (compressed) are not stored."""
UNPACKED_BYTES_MAX: Final = 32 << 20
COMPRESSED_FROM_BYTES: Final = 256
LEVEL: Final = 3

VERSION_CHARS: Final = 16
HEADER_BYTES: Final = VERSION_CHARS + 2 * TAG_CHARS
_PLAIN: Final = b"j"
_ZSTD: Final = b"z"


@dataclass(frozen=True, slots=True)
class Entry:
    """A result as it is kept. Times are wall-clock milliseconds; `cost_s` is what executing it took.

    From `fresh_until_ms` on it is stale: given only in place of a failure, where the operator allows that.
    """

    output: ToolOutput
    cost_s: float
    stored_ms: int
    fresh_until_ms: int

    def fresh(self, now_ms: int) -> bool:
        """Whether it may simply be given."""
        return now_ms < self.fresh_until_ms

    def due(self, now_ms: int) -> bool:
        """Whether this reader should fetch it anew although it is still fresh.

        Chosen by chance, more likely the closer its end and the longer it takes, so that of many readers of
        a hot entry about one does (XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache
        Stampede Prevention", VLDB 2015).
        """
        ahead_ms = -math.log(1.0 - random.random()) * self.cost_s * 1000
        return now_ms + ahead_ms >= self.fresh_until_ms


@dataclass(frozen=True, slots=True)
class Found:
    """What the server has under a key. `entry` is None for what cannot be read, or whose content is gone."""

    version: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Packed:
    """An entry as it is sent: itself, and where its content is large, that content and its address."""

    data: bytes
    body_address: str = ""
    body: bytes = b""


def pack(entry: Entry, key: Key, keys: Keys) -> Packed | None:
    """An entry as it is stored; None for one that is too large."""
    content = entry.output.content.encode("utf-8", "surrogatepass")
    if len(content) > UNPACKED_BYTES_MAX:
        return None
    squeezed = _squeezed(content)
    if len(squeezed) <= INLINE_BYTES_MAX:
        return Packed(_header(key) + _squeezed(_fields(entry, entry.output.content, "")))
    if len(squeezed) > BODY_BYTES_MAX:
        return None
    address = keys.body(content)
    return Packed(_header(key) + _squeezed(_fields(entry, "", address)), address, squeezed)


def version_of(data: bytes) -> str:
    """What tells this entry from the next one under its key; of rubbish, its beginning."""
    return data[:VERSION_CHARS].decode("latin-1")


def tags_of(header: bytes) -> tuple[str, str]:
    """The tags of tool and scope in an entry's header."""
    text = header[VERSION_CHARS:HEADER_BYTES].decode("latin-1")
    return text[:TAG_CHARS], text[TAG_CHARS:]


def unpack(data: bytes) -> tuple[Entry, str] | None:
    """What `pack` wrote and the address of its content (empty: it is in there); None for anything else."""
    try:
        fields = json.loads(_expanded(data[HEADER_BYTES:]))
        content, address, is_error, deterministic, meta, cost_s, stored_ms, fresh_until_ms = fields
        output = ToolOutput(
            str(content),
            is_error is True,
            CacheState.HIT,
            deterministic=deterministic is True,
            meta=dict(meta),
        )
        return Entry(output, float(cost_s), int(stored_ms), int(fresh_until_ms)), str(address)
    except (zstandard.ZstdError, ValueError, TypeError, RecursionError):
        return None


def content_of(body: bytes) -> str | None:
    """The text of a large body; None for what is none."""
    try:
        return _expanded(body).decode("utf-8", "surrogatepass")
    except (zstandard.ZstdError, ValueError):
        return None


def made(output: ToolOutput, cost_s: float, lifetime_s: float) -> Entry:
    """An entry of a result that has just come."""
    now_ms = clock.now_ms()
    return Entry(output, cost_s, now_ms, now_ms + int(lifetime_s * 1000))


def _header(key: Key) -> bytes:
    return (secrets.token_hex(VERSION_CHARS // 2) + key.tool + key.scope).encode()


def _fields(entry: Entry, content: str, address: str) -> bytes:
    output = entry.output
    fields: list[Any] = [
        content,
        address,
        output.is_error,
        output.deterministic,
        dict(output.meta),
        round(entry.cost_s, 4),
        entry.stored_ms,
        entry.fresh_until_ms,
    ]
    return json.dumps(fields).encode()


def _squeezed(data: bytes) -> bytes:
    if len(data) < COMPRESSED_FROM_BYTES:
        return _PLAIN + data
    return _ZSTD + zstandard.ZstdCompressor(level=LEVEL).compress(data)


def _expanded(data: bytes) -> bytes:
    """Raises ValueError or ZstdError for what `_squeezed` did not write, or would be too large."""
    kind, rest = data[:1], data[1:]
    if kind == _PLAIN:
        return rest
    if kind != _ZSTD:
        raise ValueError("neither plain nor compressed")
    if not 0 <= zstandard.frame_content_size(rest) <= UNPACKED_BYTES_MAX:
        raise ValueError("too large, or does not say how large")
    return zstandard.ZstdDecompressor().decompress(rest)
