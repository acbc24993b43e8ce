"""Bearer tokens: the file, its errors, and who is who."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.coordinator.tenants import Caller, Tenants, is_loopback, load_tenants
from heavy.core.errors import ConfigError, Unauthenticated

A, B, C, D = "alice-token-0123456789", "bob-token-0123456789", "alice-admin-0123456789", "watch-0123456789"


def load(tmp_path: Path, text: str) -> Tenants:
    path = tmp_path / "tokens"
    path.write_text(text)
    return load_tenants(str(path))


def test_without_a_file_everybody_is_the_default_tenant() -> None:
    tenants = load_tenants("")
    assert tenants.open
    assert tenants.identify([]) == Caller("default", admin=True)
    assert tenants.identify(["Bearer whatever"]).tenant == "default"


def test_a_tenant_may_have_several_tokens(tmp_path: Path) -> None:
    tenants = load(tmp_path, f"# people\n\nalice:{A}\r\n  bob : {B}  \nalice:{C}:admin\nwatch:{D}:metrics\n")
    assert not tenants.open
    assert tenants.identify([f"Bearer {A}"]) == Caller("alice")
    assert tenants.identify([f"bearer  {B}"]) == Caller("bob")
    assert tenants.identify([f"BEARER {C}"]) == Caller("alice", admin=True)
    assert tenants.identify([f"Bearer {D}"]) == Caller("watch", metrics=True)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (A, "no colon"),
        (f"Alice:{A}", "no tenant name"),
        (f":{A}", "no tenant name"),
        (f"{'a' * 64}:{A}", "no tenant name"),
        ("alice:", "empty"),
        ("alice:two words are one too many", "spaces"),
        ("alice:tökenwithumlauts0123", "ASCII"),
        ("alice:short", "at least 16"),
        (f"bob:{A}", "repeats"),
        (f"bob:{A}:admin", "repeats"),
        (f"bob:{B}:root", "third field"),
        (f"bob:{B}:", "third field"),
    ],
)
def test_a_wrong_line_is_named_by_number_and_its_token_is_not_shown(
    tmp_path: Path, line: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=f"line 3: .*{hint}") as caught:
        load(tmp_path, f"# people\nalice:{A}\n{line}\n")
    assert A not in str(caught.value)


def test_a_file_that_is_missing_or_empty_closes_the_door(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tenants(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="holds no token"):
        load(tmp_path, "# nobody yet\n")


@given(st.lists(st.text(max_size=40), max_size=3))
@settings(deadline=None)
def test_nothing_but_the_token_lets_anybody_in(authorization: list[str]) -> None:
    with pytest.raises(Unauthenticated):
        Tenants([(Caller("alice"), A)]).identify(authorization)


def test_tokens_are_not_kept_in_the_clear() -> None:
    tenants = Tenants([(Caller("alice"), A)])
    assert A not in repr(vars(tenants))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host)
    Tenants().require_safe(host, "HEAVY_HOST")


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.example.com"])
def test_everything_else_needs_tokens(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="HEAVY_TOKENS_FILE"):
        Tenants().require_safe(host, "HEAVY_HOST")
    Tenants([(Caller("alice"), A)]).require_safe(host, "HEAVY_HOST")
