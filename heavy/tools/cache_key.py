"""When are two calls the same? When everything their result may depend on is, to the byte.

Arguments are compared as JSON values, in the manner of RFC 8785: order of members, white space, escapes and
ways to write a number do not count. Text is left as it is: Unicode normal forms would merge programs that
print different things. Whole numbers beyond 2^53 stay exact, where RFC 8785 would round them together.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from heavy.core.files import FileRef
from heavy.core.ids import RunId
from heavy.core.tools import ToolSpec

LAYOUT: Final = 2
"""Raise when keys or values change their meaning; old entries are then never found."""
TAG_CHARS: Final = 16
REMEMBERED: Final = 4_096
_EXACT_MAX: Final = 1 << 53
"""Up to here every float that has no fraction is exactly one integer (IEEE 754 binary64)."""

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Key:
    """Where a call's result is kept (hex), and the tags of its tool and scope by which it can be purged."""

    name: str
    tool: str
    scope: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Makes keys. Without `secret` none of them tells anything."""

    secret: bytes

    def key(self, tool: str, digest: str, scope: str, auth: str, arguments: str, history: str = "") -> Key:
        """The key of a call of `tool` with `canonical` arguments, within `scope` and under `auth`.

        `digest` is what of the tool a result depends on, `auth` whose rights the tool uses, `history` what
        the calls before it came to (`chained`) where the tool keeps a state.
        """
        text = f"{_prefix(scope, auth, digest)}{len(history)}:{history}{arguments}"
        return Key(_hmac(self.secret, text), self.tag("tool", tool), self.tag("scope", scope))

    def tag(self, kind: str, name: str) -> str:
        """What entries of one tool or scope have in common: 16 hex digits."""
        return _tag(self.secret, kind, name)

    def rights(self, secrets: Sequence[str]) -> str:
        """What stands in keys for the secrets a tool works with; it tells nothing. Empty for none."""
        return self.tag("rights", json.dumps(list(secrets))) if secrets else ""

    def body(self, content: bytes) -> str:
        """The address of a large body: the same for the same content, whoever stores it."""
        return hmac.digest(self.secret, content, "sha256").hex()


# What is the same in call after call is made once.


@functools.lru_cache(maxsize=REMEMBERED)
def _prefix(scope: str, auth: str, digest: str) -> str:
    return json.dumps([LAYOUT, scope, auth, digest])


@functools.lru_cache(maxsize=REMEMBERED)
def _tag(secret: bytes, kind: str, name: str) -> str:
    return _hmac(secret, json.dumps([kind, name]))[:TAG_CHARS]


def _hmac(secret: bytes, text: str) -> str:
    return hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()


@functools.lru_cache(maxsize=REMEMBERED)
def scope_of(kind: str, *, tenant: str, run: RunId | str) -> str:
    """The scope that a policy's `run`, `tenant` or `global` means for one caller. No two can be confused."""
    match kind:
        case "run":
            return json.dumps(["run", tenant, run])
        case "tenant":
            return json.dumps(["tenant", tenant])
        case "global":
            return json.dumps(["global"])
    raise ValueError(f"{kind!r} is no scope")


def canonical(arguments: Mapping[str, Any]) -> str:
    """One JSON text for all spellings of the same arguments. `json.loads` gives the arguments back."""
    return _ENCODER.encode(_plain(arguments))


def tool_digest(spec: ToolSpec) -> str:
    """What of a tool a result depends on: name, version, schema."""
    return hashlib.sha256(
        json.dumps([spec.name, spec.version, canonical(spec.parameters)]).encode()
    ).hexdigest()


def chained(history: Sequence[Mapping[str, Any]], files: Sequence[FileRef] = ()) -> str:
    """A whole call history in one digest: equal only for the same calls, in order, on the same files."""
    given = json.dumps([[file.name, file.digest] for file in files]) if files else ""
    digest = hashlib.sha256(f"{len(history)}{given}".encode())
    for arguments in history:
        digest.update(hashlib.sha256(canonical(arguments).encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _EXACT_MAX else value
    if isinstance(value, dict | Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return value
