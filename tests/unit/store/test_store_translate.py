from __future__ import annotations

import inspect
import pickle
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions

from heavy.core.errors import ConfigError, StoreUnavailable
from heavy.store.translate import server_name, translated, worth_retrying

FOREIGN = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, exceptions.RedisError)
    and kind is not exceptions.AskError
    and not issubclass(kind, exceptions.AskError)
]


@pytest.mark.parametrize("kind", [*FOREIGN, OSError, TimeoutError, ConnectionResetError])
def test_every_error_of_the_client_library_becomes_one_of_ours(kind: type[Exception]) -> None:
    error = translated(kind("what happened"), url="redis://h:1/0", doing="append", timeout_s=5)
    assert isinstance(error, ConfigError | StoreUnavailable)
    assert "redis://h:1/0" in error.message
    assert "append" in error.message
    assert pickle.loads(pickle.dumps(error)).message == error.message


def test_wrong_credentials_are_for_the_operator_to_mend_and_not_tried_again() -> None:
    for kind in (exceptions.AuthenticationError, exceptions.NoPermissionError):
        assert not worth_retrying(kind("no"))
        assert isinstance(translated(kind("no"), url="redis://h", doing="x", timeout_s=1), ConfigError)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (exceptions.OutOfMemoryError("command not allowed"), "maxmemory"),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file"), "disk"),
        (exceptions.ReadOnlyError("You can't write"), "primary"),
        (ConnectionRefusedError("refused"), "runs"),
    ],
)
def test_the_message_says_what_to_do(error: Exception, advice: str) -> None:
    assert advice in str(translated(error, url="redis://h", doing="append", timeout_s=1))


SECRETS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=6, max_size=20)


@given(password=SECRETS, user=st.sampled_from(["", "user"]))
def test_no_password_passes_into_a_message(password: str, user: str) -> None:
    secret = quote(password, safe="")
    for url in (
        f"redis://{user}:{secret}@redis.example:7000/3",
        f"rediss://{user}:{secret}@[::1]/",
        f"unix://{user}@/run/store?db=0&password={secret}",
    ):
        error = exceptions.ConnectionError(f"Error while reading from {url}: {password}")
        text = str(translated(error, url=url, doing="append", timeout_s=1))
        untouched = str(translated(exceptions.ConnectionError(), url=url, doing="append", timeout_s=1))
        for form in (password, secret):
            assert form not in text or form in untouched + "Error while reading from ***"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://:pw@h", "redis://h:6379"),
        ("redis://u:pw@h:7000/2", "redis://h:7000/2"),
        ("rediss://[::1]:7000/2", "rediss://[::1]:7000/2"),
        ("unix:///run/x.sock?db=1", "unix:///run/x.sock"),
    ],
)
def test_a_server_is_named_by_where_it_is(url: str, name: str) -> None:
    assert server_name(url) == name
