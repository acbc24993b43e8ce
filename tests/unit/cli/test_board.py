from __future__ import annotations

import re

import pytest

from heavy.cli.board import Board

CHANGES = (
    ("store", "ready", "Valkey"),
    ("ray", "starting", ""),
    ("ray", "ready", "local cluster"),
    ("replica-0", "failed", "\x1b[31mout of memory"),
)


def test_in_a_pipe_every_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Board() as board:
        for change in CHANGES:
            board(*change)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [list(change[:2]) for change in CHANGES]
    assert "\x1b" not in lines[-1]


def test_at_a_terminal_each_part_has_one_row_and_changes_after_that_are_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Board() as board:
        for change in CHANGES:
            board(*change)
        board.settle()
        settled = capsys.readouterr().out
        board("runner-0", "lost", "replacing it")
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", settled.rpartition("store")[2])
    assert [line.split()[:2] for line in last.splitlines()[1:] if line.strip()] == [
        ["ray", "ready"],
        ["replica-0", "failed"],
    ]
    assert "runner-0" in capsys.readouterr().out


def test_where_it_is_narrow_only_the_detail_gives_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "40")
    with Board() as board:
        board("coordinator", "starting", "a detail that is longer than forty columns have room for")
    drawn = capsys.readouterr().out
    assert "coordinator" in drawn
    assert "starting" in drawn
    assert "a detai" in drawn
    assert "room for" not in drawn
