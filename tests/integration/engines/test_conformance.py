"""Every engine server passes the same checks over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from . import conformance
from .conformance import Capabilities

Check = Callable[[str, Capabilities], Awaitable[None]]


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_engine(engine: tuple[str, Capabilities], check: Check) -> None:
    await check(*engine)


async def test_a_full_queue_says_so(small_engine: tuple[str, Capabilities]) -> None:
    await conformance.check_a_full_queue_says_so(*small_engine)
