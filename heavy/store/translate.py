"""Where Redis errors become Heavy's: one place, and no password in any of them."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis import exceptions

from heavy.core.errors import ConfigError, HeavyError, StoreUnavailable

RETRIED: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    OSError,
    TimeoutError,
)
"""What another attempt may mend: broken connections, silence, a replica that is about to be promoted."""

REFUSED: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
    exceptions.AuthenticationWrongNumberOfArgsError,
)
"""What no attempt mends: the password or the rights in the URL are wrong."""


def worth_retrying(error: BaseException) -> bool:
    """Whether the same command may succeed a moment later."""
    return isinstance(error, RETRIED) and not isinstance(error, REFUSED)


def server_name(url: str) -> str:
    """The server of a URL as people may read it: no user, no password, no query."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"


def without_secrets(text: str, url: str) -> str:
    """`text` with every password of `url`, as written and decoded, taken out."""
    parts = urlsplit(url)
    for secret in (*parse_qs(parts.query).get("password", ()), parts.password or ""):
        for form in (secret, unquote(secret)):
            if form:
                text = text.replace(form, "***")
    return text


def translated(error: BaseException, *, url: str, doing: str, timeout_s: float) -> HeavyError:
    """The Heavy error for whatever the client library raised, while `doing` something, in the end."""
    server = server_name(url)
    if isinstance(error, REFUSED):
        return ConfigError(
            f"The store at {server} refused to {doing}: check the user and password of its URL,"
            " and what that user may do."
        )
    cause = without_secrets(str(error), url) or "no answer"
    return StoreUnavailable(
        f"The store at {server} could not {doing} within {timeout_s:g} s ({cause}). {_advice(error)}"
    )


def _advice(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError):
        return "It is full: raise its maxmemory, or lower HEAVY_RETENTION_S."
    if text.startswith("MISCONF"):
        return "It cannot write to its disk: free space there, or see its log."
    if isinstance(error, exceptions.ReadOnlyError):
        return "It is a replica: point the URL at the primary."
    if isinstance(error, exceptions.ResponseError):
        return "It rejected the command: see its log, and whether it is Redis 7 or Valkey."
    return "Check that it runs and can be reached from here."
