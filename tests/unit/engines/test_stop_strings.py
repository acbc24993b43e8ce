"""Stop strings: cut at the first, show nothing of it, in any chunking."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engines.formats.scan import StopMatcher


def shown(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    text = "".join(matcher.feed(piece) for piece in pieces)
    return text + matcher.finish(), matcher.matched


def test_the_text_ends_before_the_first_stop_string() -> None:
    assert shown(["END"], ["some E", "N", "D more"]) == ("some ", True)


def test_the_beginning_of_a_stop_string_is_shown_when_it_comes_to_nothing() -> None:
    assert shown(["END"], ["some EN"]) == ("some EN", False)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text("ab", max_size=30),
    stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
    size=st.integers(1, 7),
)
def test_any_chunking_of_a_text_stops_at_the_same_place(text: str, stops: list[str], size: int) -> None:
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    found = [text.find(stop) for stop in stops if stop in text]
    assert shown(stops, chunks) == (text[: min(found)] if found else text, bool(found))
