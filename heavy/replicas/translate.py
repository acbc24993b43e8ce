"""What a model server answers instead of a generation, as Heavy's errors. The one place for it.

400, 404, 422, other 4xx         EngineRefused, or ContextOverflow where the message says so
401, 403                         EngineRefused, naming the environment variable of the key
429 with a used-up quota         EngineRefused: waiting does not help
408, 425, 429, 5xx               EngineUnavailable, with Retry-After where given
3xx                              EngineRefused: redirects are not followed
an error object in the stream    by its own status where it has one, else EngineUnavailable
no connection, or a lost one     EngineUnavailable
silence                          EngineTimeout
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import aiohttp
import orjson

from heavy.core.errors import ContextOverflow, EngineRefused, EngineUnavailable, HeavyError
from heavy.replicas.openai_json import WireError, read_error, well_formed

MESSAGE_CHARS_MAX: Final = 600
RETRY_AFTER_S_MAX: Final = 60.0
_BUSY: Final = frozenset({408, 425, 429})
_USED_UP: Final = frozenset(
    {"insufficient_quota", "exceeded_current_quota_error", "billing_hard_limit_reached"}
)

_OVERFLOW_CODES: Final = frozenset({"context_length_exceeded", "string_above_max_length"})
_OVERFLOW: Final = re.compile(
    r"maximum context length"  # OpenAI, vLLM, SGLang (prompt plus completion)
    r"|longer than the model'?s context length"  # SGLang (prompt alone)
    r"|exceeds? the (?:model'?s )?(?:maximum (?:allowed|context) length|context (?:length|window))"
    r"|exceeded model token limit"  # Moonshot
    r"|prompt is too long"
    r"|input (?:length|tokens?) .{0,40}exceeds?",
    re.IGNORECASE,
)
_ALLOWED: Final = re.compile(
    r"(?:context length|context window|context holds|allowed length|token limit|maximum)"
    r"[^0-9]{0,30}?(\d{2,9})",
    re.IGNORECASE,
)
_USED: Final = re.compile(
    r"(?:total of|requested:?|prompt has|your request has|input \(|input length \(?|resulted in)"
    r"\s*(\d{1,9})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who is being translated: the replica's id, and the key that must never be repeated."""

    replica: str
    api_key: str = ""
    api_key_env: str = ""

    def clean(self, text: str) -> str:
        """A server's text as it may appear in an error: bounded, one line, without the key."""
        text = well_formed(text)
        if self.api_key:
            text = text.replace(self.api_key, "***")
        return " ".join(text.split())[:MESSAGE_CHARS_MAX]


def refusal(speaker: Speaker, status: int, body: bytes, retry_after: str | None) -> HeavyError:
    """The error that a response other than 200 stands for."""
    try:
        error = read_error(orjson.loads(body))
    except orjson.JSONDecodeError:
        error = None
    if error is None:
        error = WireError(body.decode("utf-8", "replace") or "no message")
    return _by_status(speaker, status, error, _seconds(retry_after))


def stream_error(speaker: Speaker, error: WireError) -> HeavyError:
    """The error that an error object in the middle of a stream stands for."""
    status = error.status if 400 <= error.status <= 599 else 500
    return _by_status(speaker, status, error, None)


def _by_status(speaker: Speaker, status: int, error: WireError, retry_after_s: float | None) -> HeavyError:
    replica, text = speaker.replica, speaker.clean(error.message)
    said = f"Replica {replica} answered {status}: {text}"
    if overflow := context_overflow(speaker, error):
        return overflow
    if status in (401, 403):
        where = speaker.api_key_env or "no variable is named by the profile (remote.api_key_env)"
        return EngineRefused(f"{said} Check the API key; it is read from the environment: {where}.", replica)
    if error.code in _USED_UP:
        return EngineRefused(f"{said} The provider's quota is used up.", replica)
    if status in _BUSY or status >= 500:
        return EngineUnavailable(said, replica, retry_after_s)
    if 300 <= status < 400:
        return EngineRefused(
            f"{said} Redirects are not followed: put the final address in base_url.", replica
        )
    return EngineRefused(said, replica)


def context_overflow(speaker: Speaker, error: WireError) -> ContextOverflow | None:
    """The overflow an error means, with the figures it names (0 where it names none); else None."""
    if error.code not in _OVERFLOW_CODES and not _OVERFLOW.search(error.message):
        return None
    used, allowed = _USED.search(error.message), _ALLOWED.search(error.message)
    said = speaker.clean(error.message)
    return ContextOverflow(
        f"Replica {speaker.replica}: the request does not fit the model's context. {said}",
        limit="context_tokens",
        used=int(used[1]) if used else 0,
        allowed=int(allowed[1]) if allowed else 0,
    )


def connection_lost(speaker: Speaker, error: aiohttp.ClientError | OSError) -> EngineUnavailable:
    """No connection, or one that ended before the generation did."""
    what = speaker.clean(str(error)) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError):
        return EngineUnavailable(f"Replica {speaker.replica} cannot be reached: {what}.", speaker.replica)
    return EngineUnavailable(f"Replica {speaker.replica} dropped the connection: {what}.", speaker.replica)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds, bounded; its date form is not used by model servers and means none here."""
    try:
        value = float(retry_after or "")
    except ValueError:
        return None
    return min(value, RETRY_AFTER_S_MAX) if value >= 0 else None
