"""Who may call, as which tenant, and who may more: a file of `tenant:token[:admin|:metrics]` lines."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heavy.core.errors import ConfigError, Unauthenticated

DEFAULT_TENANT: Final = "default"
TOKEN_CHARS_MIN: Final = 16
TOKENS_MAX: Final = 10_000

_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TOKEN = re.compile(r"[!-~]+")
_ADMIN: Final = "admin"
_METRICS: Final = "metrics"
_HOW = "send it as metadata (in HTTP: a header) `authorization: Bearer <token>`"


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a call is made. An administrator may also ask about what belongs to no tenant or to all;
    `metrics` may read the metrics, which name every tenant."""

    tenant: str
    admin: bool = False
    metrics: bool = False


class Tenants:
    """Names the caller of each call. Without tokens everybody is "default", and an administrator.

    Only digests are kept. Every comparison looks at every token and takes the same time for each.
    """

    def __init__(self, tokens: Iterable[tuple[Caller, str]] = ()) -> None:
        self._digests = tuple((_digest(token), caller) for caller, token in tokens)

    @property
    def open(self) -> bool:
        """Whether no token is asked for; then only loopback may be served."""
        return not self._digests

    def identify(self, authorization: Sequence[str]) -> Caller:
        """The caller that the values of a call's `authorization` name. Raises `Unauthenticated`."""
        if self.open:
            return Caller(DEFAULT_TENANT, admin=True)
        presented = _digest(_bearer(authorization))
        found: Caller | None = None
        for digest, caller in self._digests:
            if hmac.compare_digest(digest, presented):
                found = caller
        if found is None:
            raise Unauthenticated("The bearer token is not one of this server's: check it for typing errors")
        return found

    def require_safe(self, host: str, setting: str) -> None:
        """Raises `ConfigError` when `host` can be reached from elsewhere and no token is asked for."""
        if self.open and not is_loopback(host):
            raise ConfigError(
                f"{setting} is {host!r}, which other machines can reach, and no tokens are configured. Set "
                "HEAVY_TOKENS_FILE to a file of `tenant:token` lines, or serve 127.0.0.1 only."
            )


def load_tenants(path: str) -> Tenants:
    """Read a tokens file; an empty path means that no token is asked for.

    A line is `tenant:token`, or `tenant:token:admin` for an administrator's, or `tenant:token:metrics` for
    one that may read metrics, such as Prometheus's; a tenant may have several.
    Blank lines and lines that begin with # say nothing.
    Raises `ConfigError` with the number of the line that is wrong.
    """
    if not path:
        return Tenants()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The tokens file {path} cannot be read: {error}") from error
    tokens: dict[str, Caller] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        caller, problem, token = _parse(line)
        if not problem and token in tokens:
            problem = "repeats the token of an earlier line; every token must be another"
        if not problem and len(tokens) == TOKENS_MAX:
            problem = f"is one token too many; {TOKENS_MAX} are allowed"
        if problem:
            raise ConfigError(f"{path}, line {number}: {problem}")
        tokens[token] = caller
    if not tokens:
        raise ConfigError(f"The tokens file {path} holds no token: write one `tenant:token` a line")
    return Tenants((caller, token) for token, caller in tokens.items())


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _parse(line: str) -> tuple[Caller, str, str]:
    """Caller, problem and token of a line. A problem never repeats the token."""
    tenant, _, rest = (part.strip() for part in line.partition(":"))
    token, third, mark = (part.strip() for part in rest.partition(":"))
    return (
        Caller(tenant, admin=mark == _ADMIN, metrics=mark == _METRICS),
        _problem(line, tenant, token, mark if third else _ADMIN),
        token,
    )


def _problem(line: str, tenant: str, token: str, mark: str) -> str:
    if ":" not in line:
        return "has no colon; write `tenant:token`"
    if _TENANT.fullmatch(tenant) is None:
        return f"{tenant!r:.80} is no tenant name; use at most 63 of a-z, 0-9, '.', '_' and '-'"
    if _TOKEN.fullmatch(token) is None:
        return "the token is empty or contains spaces or characters outside ASCII"
    if len(token) < TOKEN_CHARS_MIN:
        return f"the token has {len(token)} characters; use at least {TOKEN_CHARS_MIN} random ones"
    if mark not in (_ADMIN, _METRICS):
        return "has a third field that is neither `admin` nor `metrics`; a token itself may hold no colon"
    return ""


def _bearer(authorization: Sequence[str]) -> str:
    if not authorization:
        raise Unauthenticated(f"This server asks for a bearer token: {_HOW}")
    if len(authorization) > 1:
        raise Unauthenticated(f"The call carries {len(authorization)} authorizations: {_HOW}, once")
    scheme, _, token = authorization[0].strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(f"The authorization is not a bearer token: {_HOW}")
    return token.strip()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
