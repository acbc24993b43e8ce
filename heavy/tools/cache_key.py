"""When are two calls the same? When everything their result may depend on is, to the byte.

Arguments are compared as JSON values: order of members, white space, escapes and ways to write a number do
not count. Text is left as it is: Unicode normal forms would merge programs that print different things.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from heavy.core.tools import ToolSpec

LAYOUT: Final = 1
"""Raise when keys or values change their meaning; old entries are then never found."""
_EXACT_MAX: Final = 1 << 53
"""Up to here every float that has no fraction is exactly one integer (IEEE 754 binary64)."""

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def canonical(arguments: Mapping[str, Any]) -> str:
    """One JSON text for all spellings of the same arguments. `json.loads` gives the arguments back."""
    return _ENCODER.encode(_plain(arguments))


def tool_digest(spec: ToolSpec) -> str:
    """What of a tool a result depends on: layout of the cache, name, version, schema."""
    parts = [LAYOUT, spec.name, spec.version, canonical(spec.parameters)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def key(secret: bytes, scope: str, tool: str, arguments: str) -> str:
    """The cache key (hex) of a call of `tool` (its digest) with `canonical` arguments.

    Without `secret` it tells nothing.
    """
    text = f"{len(scope)}:{scope}{tool}{arguments}"  # the digest has a fixed width: nothing runs together
    return hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {name: _plain(member) for name, member in value.items()}
        case list() | tuple():
            return [_plain(member) for member in value]
        case float() if value.is_integer() and abs(value) < _EXACT_MAX:
            return int(value)
        case _:
            return value
