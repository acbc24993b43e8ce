"""One call as the cache sees it: what its policy makes of its result, and when a result is an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from heavy.core import clock
from heavy.core.tools import CacheState, ToolOutput, ToolSpec
from heavy.tools.cache_entry import Entry, Found
from heavy.tools.cache_key import Key
from heavy.tools.config import CachePolicy

Execute = Callable[[float], Awaitable[ToolOutput]]
"""Runs the tool within the seconds given."""


@dataclass(frozen=True, slots=True)
class CachedCall:
    """One call as the cache sees it."""

    key: Key
    tool: ToolSpec
    policy: CachePolicy
    execute: Execute

    def keep_s(self, output: ToolOutput, ttl_s: float) -> tuple[float, float]:
        """How long a result is fresh, and how long it is kept; 0 where it is not stored at all."""
        if not output.storable or may_pass(output):
            return 0.0, 0.0
        if output.is_error:
            return self.policy.negative_ttl_s, self.policy.negative_ttl_s
        fresh_s = self.policy.ttl_s or ttl_s
        return fresh_s, fresh_s + self.policy.stale_if_error_s

    def stale(self, found: Found | None) -> Entry | None:
        """What is there as an answer in place of a failure, where the policy allows one of its age."""
        entry = found.entry if found else None
        if entry is None or entry.output.is_error:
            return None
        return entry if clock.now_ms() < entry.fresh_until_ms + self.policy.stale_if_error_s * 1000 else None


def fresh(found: Found | None) -> Entry | None:
    """What was found, where it may simply be given."""
    entry = found.entry if found else None
    return entry if entry is not None and entry.fresh(clock.now_ms()) else None


def labelled(entry: Entry) -> Entry:
    """A result past its time, as an answer that says so, to the model too."""
    age_s = max(0, clock.now_ms() - entry.stored_ms) / 1000
    note = f"[The tool failed just now; this is what it said {age_s:.0f} s ago.]"
    output = replace(entry.output, content=f"{note}\n{entry.output.content}", cache=CacheState.STALE)
    return replace(entry, output=output)


_PASSING_STATUS: Final = frozenset({"401", "403", "407", "408", "425", "429"})


def may_pass(output: ToolOutput) -> bool:
    """Whether a failure might not come again: then it is nobody's answer but its own caller's.

    Whatever a tool believes, refusals of access, of load and a server's own failures always may.
    """
    if not output.is_error:
        return False
    status = output.meta.get("http_status", "")
    return not output.deterministic or status in _PASSING_STATUS or (len(status) == 3 and status[0] == "5")
