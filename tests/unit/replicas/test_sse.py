"""The event-stream parser: any cutting gives the same events, and nothing but `MalformedStream` comes out."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.core.errors import MalformedStream
from heavy.replicas.sse import SseEvent, SseParser

LINES = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data",
        b": ping",
        b":",
        b"event: error",
        b"id: 1",
        b"retry: 5",
        b"junk",
        b"",
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def parsed(pieces: list[bytes], event_bytes_max: int = 1 << 20) -> list[SseEvent]:
    parser = SseParser("r", event_bytes_max)
    return [event for piece in pieces for event in parser.feed(piece)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
def test_any_cutting_gives_the_events_of_the_whole(stream: bytes, places: list[int]) -> None:
    assert parsed(cut(stream, places)) == parsed([stream])
    assert parsed([bytes([byte]) for byte in stream]) == parsed([stream])


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_raises_nothing_but_malformed_stream(pieces: list[bytes]) -> None:
    parser = SseParser("r", event_bytes_max=64)
    with contextlib.suppress(MalformedStream):
        for piece in pieces:
            parser.feed(piece)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_of_the_standard_ends_a_line(end: bytes) -> None:
    stream = end.join([b"event: x", b"data: one", b"data: two", b"", b": note", b"", b"data:three", b"", b""])
    assert parsed([stream]) == [SseEvent(b"one\ntwo", "x"), SseEvent(b"three")]


def test_an_event_without_its_blank_line_is_dropped() -> None:
    assert parsed([b"data: whole\n\ndata: half\n"]) == [SseEvent(b"whole")]


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_first_field() -> None:
    assert parsed([b"\xef", b"\xbb\xbfdata: x\n\n"]) == [SseEvent(b"x")]


def test_only_one_space_after_the_colon_is_taken_off() -> None:
    assert parsed([b"data:  x\n\n"]) == [SseEvent(b" x")]


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: 12345678\n" * 12])
def test_an_event_beyond_the_limit_is_malformed_however_it_is_cut(stream: bytes) -> None:
    pieces = [stream[at : at + 7] for at in range(0, len(stream), 7)]
    with pytest.raises(MalformedStream, match="more than 80 bytes"):
        parsed(pieces, event_bytes_max=80)
