"""Who may ask for what belongs to everybody."""

from __future__ import annotations

import pytest

from heavy.core.errors import Forbidden
from heavy.rpc.calls import Call


def test_a_call_that_needs_an_administrator_tells_others_what_to_do() -> None:
    Call("alice", "", admin=True).require_admin()
    with pytest.raises(Forbidden, match=":admin"):
        Call("alice", "").require_admin()
