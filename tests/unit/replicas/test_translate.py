"""What servers answer, as Heavy's errors."""

from __future__ import annotations

import pickle

import aiohttp
import orjson
import pytest

from heavy.core.errors import ContextOverflow, EngineRefused, EngineUnavailable, HeavyError
from heavy.replicas.openai_json import WireError
from heavy.replicas.translate import MESSAGE_CHARS_MAX, Speaker, connection_lost, refusal, stream_error

SPEAKER = Speaker("r1", api_key="sk-secret", api_key_env="SOME_KEY")


def refused(status: int, message: str = "no", retry_after: str | None = None, **error: object) -> HeavyError:
    body = orjson.dumps({"error": {"message": message, **error}})
    return refusal(SPEAKER, status, body, retry_after)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(code, EngineRefused) for code in (301, 400, 401, 403, 404, 409, 413, 422)]
    + [(code, EngineUnavailable) for code in (408, 425, 429, 500, 502, 503, 504)],
)
def test_every_status_has_its_error_and_names_the_replica(status: int, kind: type[HeavyError]) -> None:
    error = refused(status)
    assert type(error) is kind
    assert error.details["replica"] == "r1"
    assert str(status) in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("message", "used", "allowed"),
    [
        ("The input (20007 tokens) is longer than the model's context length (4096 tokens).", 20007, 4096),
        (
            "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested "
            "a total of 100009 tokens: 9 tokens from the input messages and 100000 for the completion.",
            100009,
            4096,
        ),
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 "
            "tokens.",
            9001,
            8192,
        ),
        ("Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)", 9000, 8192),
        ("Input length (70000 tokens) exceeds the maximum allowed length (65536 tokens).", 70000, 65536),
        ("prompt is too long", 0, 0),
        ("The prompt has 9000 tokens and max_tokens is 5; the maximum context length is 300.", 9000, 300),
    ],
)
def test_context_overflows_are_recognised_with_their_figures(message: str, used: int, allowed: int) -> None:
    body = orjson.dumps({"object": "error", "message": message, "type": "BadRequestError", "code": 400})
    error = refusal(SPEAKER, 400, body, None)
    assert isinstance(error, ContextOverflow)
    assert (error.details["used"], error.details["allowed"]) == (used, allowed)


def test_a_context_overflow_is_recognised_by_its_code_alone() -> None:
    assert isinstance(refused(400, "zu lang", code="context_length_exceeded"), ContextOverflow)


@pytest.mark.parametrize("message", ["max_tokens must be positive", "temperature must be non-negative"])
def test_other_refusals_are_no_context_overflow(message: str) -> None:
    assert isinstance(refused(400, message), EngineRefused)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("1e9", 60.0),
        ("-1", None),
        ("nan", None),
        (None, None),
        ("Wed, 21 Oct", None),
    ],
)
def test_retry_after_is_kept_and_bounded(header: str | None, seconds: float | None) -> None:
    error = refused(503, retry_after=header)
    assert isinstance(error, EngineUnavailable)
    assert error.retry_after_s == seconds
    again = pickle.loads(pickle.dumps(error))
    assert again.retry_after_s == seconds


def test_a_used_up_quota_is_final() -> None:
    assert isinstance(refused(429, code="insufficient_quota"), EngineRefused)
    assert isinstance(refused(429, code="rate_limit_exceeded"), EngineUnavailable)


def test_a_wrong_key_names_its_variable_and_never_the_key() -> None:
    error = refused(401, "Incorrect API key provided: sk-secret.")
    assert "SOME_KEY" in str(error)
    assert "sk-secret" not in repr((error.args, error.details, str(error)))


def test_server_text_is_bounded_and_one_line() -> None:
    error = refusal(SPEAKER, 500, b"<html>\n" + b"x" * 10_000, None)
    assert len(str(error)) < MESSAGE_CHARS_MAX + 100
    assert "\n" not in str(error)


def test_errors_in_a_stream_go_by_their_own_status_else_by_the_server() -> None:
    assert isinstance(stream_error(SPEAKER, WireError("bad", status=400)), EngineRefused)
    assert isinstance(stream_error(SPEAKER, WireError("bad")), EngineUnavailable)
    assert isinstance(stream_error(SPEAKER, WireError("bad", status=12)), EngineUnavailable)
    overflow = stream_error(SPEAKER, WireError("longer than the model's context length"))
    assert isinstance(overflow, ContextOverflow)


def test_a_lost_connection_says_how_it_was_lost() -> None:
    assert "dropped the connection" in str(connection_lost(SPEAKER, aiohttp.ServerDisconnectedError()))
    assert "cannot be reached" in str(connection_lost(SPEAKER, aiohttp.ConnectionTimeoutError()))
