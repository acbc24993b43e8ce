"""An engine's log in files: all of it, bounded, and nobody waits for the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

from workers.engine_log import KEPT_S, PENDING_LINES_MAX, EngineLogFile


async def written(file: EngineLogFile, *lines: str) -> None:
    file.start()
    for line in lines:
        file.take(line)
    await file.close()
    await file.close()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*.log"))


async def test_every_line_is_in_the_file_when_it_is_closed_and_the_next_start_goes_on(tmp_path: Path) -> None:
    for start in ("one", "two"):
        await written(EngineLogFile(str(tmp_path), "p-0 rank 1"), start, "\ud800 \u00fc")
    text = (tmp_path / "heavy-engines" / "p-0-rank-1.log").read_text()
    assert text == "one\n? \u00fc\ntwo\n? \u00fc\n"


async def test_a_file_that_is_full_makes_way_and_two_are_kept(tmp_path: Path) -> None:
    for number in range(9):
        await written(EngineLogFile(str(tmp_path), "p-0", bytes_max=20), f"number {number}")
    found = {file.name: file.read_text() for file in (tmp_path / "heavy-engines").iterdir()}
    assert found == {"p-0.log": "number 8\n", "p-0.log.1": "number 6\nnumber 7\n"}


async def test_what_a_slow_disk_keeps_waiting_is_bounded_and_counted(tmp_path: Path) -> None:
    file = EngineLogFile(str(tmp_path), "p-0")
    await written(file, *map(str, range(PENDING_LINES_MAX + 3)))
    lines = file.path.read_text().splitlines()
    assert lines[:2] == ["[heavy] lines missing here: 3", "3"]
    assert len(lines) == PENDING_LINES_MAX + 1


async def test_files_of_engines_long_gone_are_removed(tmp_path: Path) -> None:
    old, new = EngineLogFile(str(tmp_path), "p-0"), EngineLogFile(str(tmp_path), "p-1")
    await written(old, "old")
    os.utime(old.path, (0, time.time() - KEPT_S - 60))
    (tmp_path / "other.log").touch()
    os.utime(tmp_path / "other.log", (0, 0))
    await written(new, "new")
    assert names(tmp_path) == ["other.log", "p-1.log"]
