"""Ctrl-C while everything is still coming up: all of it goes away again."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests_support.up import alive, processes_below

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.mark.parametrize("part", ["ray", "runner-0"])
def test_ctrl_c_during_the_bring_up_leaves_nothing_behind(part: str) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "heavy.cli.main", "demo", "--profile", "simulated"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    said = ""
    for line in demo.stdout:
        said += line
        if line.startswith(part):
            break
    below = processes_below(demo.pid)
    assert len(below) >= 3
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, said + rest
    assert "Traceback" not in rest
    assert alive(below) == set()
