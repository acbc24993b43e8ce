"""Where Redis errors become Heavy's: one place, and no password in any of them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, unquote_plus, urlsplit

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
    """The server of a URL as people may read it: no user, no password, no query.

    Raises `ConfigError` for what is no store URL, quoting nothing of it: any part may be a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError:
        raise unreadable() from None  # the original quotes what it stumbled over
    if parts.scheme == "unix" and parts.path:
        return f"unix://{parts.path}"
    if parts.scheme not in ("redis", "rediss") or not re.fullmatch(r"/?\d*", parts.path):
        raise unreadable()
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path}"


def unreadable() -> ConfigError:
    """The URL of a store is none."""
    return ConfigError(
        "The store URL cannot be read: it looks like redis://USER:PASSWORD@HOST:6379/0, rediss://... or"
        " unix:///PATH, with anything special in the password percent-encoded."
    )


def without_secrets(text: str, url: str) -> str:
    """`text` with every password of `url`, as written and decoded, taken out."""
    parts = urlsplit(url)
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    written = [parts.password or "", *(value for name, _, value in pairs if name == "password")]
    forms = {form for secret in written for form in (secret, unquote(secret), unquote_plus(secret)) if form}
    for form in sorted(forms, key=len, reverse=True):
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
