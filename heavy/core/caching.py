"""What an administrator sees of the tool cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolCacheStats:
    """How one tool's results are come by, since the cache was empty, and what of it is stored now."""

    tool: str
    hits: int = 0
    coalesced: int = 0
    misses: int = 0
    bypassed: int = 0
    stale: int = 0
    refreshed: int = 0
    saved_s: float = 0.0
    """Seconds of execution that were not repeated."""
    entries: int = 0
    bytes: int = 0

    @property
    def calls(self) -> int:
        """All calls, however answered."""
        return self.hits + self.coalesced + self.misses + self.bypassed + self.stale

    @property
    def hit_share(self) -> float:
        """The part of the calls for which nothing was executed, 0..1."""
        return (self.hits + self.coalesced + self.stale) / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Every tool, and the server. `complete` False: there was too much to look at, sizes are of a part."""

    tools: tuple[ToolCacheStats, ...]
    bodies: int
    """Large contents, each stored once for all entries that have it."""
    body_bytes: int
    leases: int
    """Calls being executed now."""
    memory_bytes: int
    memory_bytes_max: int
    """0 for no limit."""
    evicted: int
    """Entries the server removed for want of memory, since it started."""
    complete: bool


@dataclass(frozen=True, slots=True)
class CacheItem:
    """One stored result. Times are wall-clock milliseconds."""

    key: str
    tool: str
    """Empty when the tool is not known by name any more."""
    content: str
    is_error: bool
    stored_ms: int
    fresh_until_ms: int
    expires_ms: int
    cost_s: float
    bytes: int


@dataclass(frozen=True, slots=True)
class CacheQuery:
    """Which result: by its key, or by a tool and the JSON text of a call's arguments, for a tenant or run."""

    key: str = ""
    tool: str = ""
    arguments: str = ""
    tenant: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True)
class CachePurge:
    """What to remove: one key, or what is of a tool, of a tenant, or both, or all of it."""

    key: str = ""
    tool: str = ""
    tenant: str = ""
    all: bool = False


@dataclass(frozen=True, slots=True)
class Purged:
    """How much was removed. `leases` are calls under way, whose results will not be stored."""

    entries: int
    leases: int
