"""A real SGLang server on the CPU passes the checks that our own engine servers pass, bar what differs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.integration.engines import conformance
from tests.integration.engines.client import Client
from tests.integration.engines.conformance import Capabilities

Check = Callable[[str, Capabilities], Awaitable[None]]

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(900)]

SGLANG = Capabilities(
    cached_tokens="measured (--enable-cache-report)",
    cache_granule_tokens=0,
    seeds_hold_in_a_crowd=False,
    control_tokens_are_text=False,
    aborted_metric="sglang:num_aborted_requests_total",
    names_the_field=False,
)
DIFFERS = {
    "check_a_named_call_is_of_that_tool": "Abacus fills its budget with white space for a tool it never saw",
    "check_an_abort_ends_the_generation": "aborts by a beginning only where that is itself an id in flight",
    "check_seeds_are_reproducible": "a seed needs --enable-deterministic-inference, which no CPU backend has",
    "check_malformed_bodies_are_refused": "takes max_tokens 0; tests/integration/sglang has its refusals",
}
"""Checks that SGLang does not pass with this model, and why; `test_api.py` has what it does instead."""
CHECKS = [check for check in conformance.CHECKS if check.__name__ not in DIFFERS]


@pytest.fixture(autouse=True)
def strict_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGLang holds arguments to their schema only where the function says `strict`."""
    for tool in (conformance.PYTHON, conformance.SEARCH):
        monkeypatch.setitem(tool["function"], "strict", True)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seeds do not hold: what a check leaves to them is sampled at temperature 0."""
    say, chunks = Client.say, Client.chunks
    monkeypatch.setattr(Client, "say", lambda self, **body: say(self, **{"temperature": 0, **body}))
    monkeypatch.setattr(Client, "chunks", lambda self, **body: chunks(self, **{"temperature": 0, **body}))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_sglang(url: str, check: Check) -> None:
    await check(url, SGLANG)


def test_every_difference_names_a_check() -> None:
    assert set(DIFFERS) < {check.__name__ for check in conformance.CHECKS}
