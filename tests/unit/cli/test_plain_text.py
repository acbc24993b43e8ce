from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from heavy.cli.plain import clipped, on_one_line, plain


@given(st.text())
def test_nothing_that_others_wrote_controls_the_terminal(text: str) -> None:
    assert all(unicodedata.category(c) != "Cc" or c in "\n\t" for c in plain(text))
    assert "\n" not in on_one_line(text, 50)
    assert len(on_one_line(text, 50)) <= 50


def test_what_is_left_out_is_counted() -> None:
    assert clipped("abcdef", 4) == "abcd … 2 more characters (--full)"
    assert clipped("abcdef", None) == "abcdef"
