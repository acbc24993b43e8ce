"""Building SGLang's environment, with pip played by a stand-in: once, alone, whole or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from heavy.core.errors import EngineUnavailable
from workers.engines.sglang import environment as module
from workers.engines.sglang.environment import LOCK, MARK, CpuEnvironment, build, cpu_environment, main
from workers.engines.sglang.pip_run import failure, progress

Installed = list[tuple[str, ...]]


class StandIn:
    """pip that notes what it is asked for, and can be made to fail."""

    def __init__(self, installed: Installed, before: Callable[[], None]) -> None:
        self.installed = installed
        self.before = before

    def __call__(self, python: str, log: Path, report: Callable[[str], None]) -> StandIn:
        return self

    def install(self, *arguments: str) -> None:
        self.before()
        self.installed.append(arguments)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """What pip was asked to install; nothing is installed, and nothing is imported."""

    def create(environment: CpuEnvironment) -> None:
        environment.python.parent.mkdir(parents=True)
        environment.python.touch()

    asked: Installed = []
    monkeypatch.setattr(module, "PipRun", StandIn(asked, lambda: None))
    monkeypatch.setattr(module, "_create", create)
    monkeypatch.setattr(module, "_check", lambda environment: {"sglang": "0.5.23"})
    monkeypatch.setattr(module, "ROOM_BYTES_MIN", 0)
    return asked


@pytest.fixture
def environment(tmp_path: Path) -> CpuEnvironment:
    return CpuEnvironment(tmp_path / "envs" / "sglang-cpu-test")


def silent(_line: str) -> None:
    return


def test_a_second_build_does_nothing(environment: CpuEnvironment, installed: Installed) -> None:
    assert build(environment, silent).ready
    once = list(installed)
    assert build(environment, silent).ready
    assert installed == once
    assert environment.details["sglang"] == "0.5.23"


def test_the_lock_is_installed_with_hashes_and_torch_as_the_machine_has_it(
    environment: CpuEnvironment, installed: Installed
) -> None:
    build(environment, silent)
    locked, torch = installed
    assert {"--no-deps", "--require-hashes", str(LOCK)} <= set(locked)
    assert torch[-1] == "torch==2.13.0"


def test_two_builds_at_once_are_one(environment: CpuEnvironment, installed: Installed) -> None:
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: build(environment, silent), range(4)))
    assert all(one.ready for one in built)
    assert len(installed) == 2


def test_who_has_to_wait_is_told_and_waits_no_longer_than_allowed(
    environment: CpuEnvironment, installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert end.wait(30)

    monkeypatch.setattr(module, "PipRun", StandIn(installed, hold))
    monkeypatch.setattr(module, "WAIT_S_MAX", 0.0)
    said: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(build, environment, silent)
        assert begun.wait(30)
        with pytest.raises(EngineUnavailable, match="Another build"):
            build(environment, said.append)
        end.set()
        assert first.result(30).ready
    assert said == ["another build of it is under way; waiting"]


def test_what_a_killed_build_left_behind_is_built_anew(
    environment: CpuEnvironment, installed: Installed
) -> None:
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()
    (environment.root / "half").touch()
    assert not environment.ready
    assert build(environment, silent).ready
    assert not (environment.root / "half").exists()
    assert len(installed) == 2


def test_a_failed_build_leaves_no_environment(
    environment: CpuEnvironment, installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise EngineUnavailable("the index is away")

    monkeypatch.setattr(module, "PipRun", StandIn(installed, fail))
    with pytest.raises(EngineUnavailable, match="the index is away"):
        build(environment, silent)
    assert not environment.root.exists()


def test_too_little_room_is_said_before_anything_is_fetched(
    environment: CpuEnvironment, installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOM_BYTES_MIN", 10**18)
    with pytest.raises(EngineUnavailable, match="HEAVY_CACHE_DIR"):
        build(environment, silent)
    assert installed == []


def test_a_cache_that_cannot_be_written_is_told_with_its_path(tmp_path: Path, installed: Installed) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineUnavailable, match="file"):
        build(CpuEnvironment(tmp_path / "file" / "envs" / "x"), silent)


def test_another_lock_is_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cpu_environment(tmp_path)
    (tmp_path / "lock").write_text(LOCK.read_text() + "# changed\n")
    monkeypatch.setattr(module, "LOCK", tmp_path / "lock")
    assert cpu_environment(tmp_path).root != before.root
    assert before.root.parent == tmp_path / "envs"


def test_the_lock_names_no_index_and_pins_everything() -> None:
    lines = [
        line for line in LOCK.read_text().splitlines() if line and not line.startswith("    --hash=sha256:")
    ]
    assert all("==" in line and line.endswith(" \\") for line in lines)
    assert any(line.startswith("sglang==0.5.23") for line in lines)
    assert not any(line.startswith("torch==") for line in lines)
    assert "://" not in LOCK.read_text()


def test_status_says_where_it_is_and_whether_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEAVY_CACHE_DIR", str(tmp_path))
    assert main(["status", "--json"]) == 1
    state = json.loads(capsys.readouterr().out)
    assert state["ready"] is False
    assert state["root"].startswith(str(tmp_path))
    root = Path(state["root"])
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").touch()
    (root / MARK).write_text('{"sglang": "0.5.23"}')
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sglang"] == "0.5.23"


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        ("WARNING: Retrying: Failed to establish a new connection: [Errno 111]", "cannot be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "another file"),
        ("ERROR: No matching distribution found for sglang==0.5.23", "no wheel for this machine"),
        ("something else", "pip failed"),
    ],
)
def test_a_failed_pip_is_explained(line: str, meaning: str, tmp_path: Path) -> None:
    message = failure(["Collecting x", line], tmp_path / "log")
    assert meaning in message
    assert line in message
    assert str(tmp_path / "log") in message


def test_progress_names_large_downloads_and_counts_the_rest() -> None:
    assert (
        progress("  Downloading triton-3.9.0-cp311.whl (285.8 MB)", 3)
        == "downloading triton-3.9.0-cp311.whl (285.8 MB)"
    )
    assert progress("  Downloading tiny-1.0.whl (1.0 MB)", 3) == ""
    assert progress("Collecting aiohttp==3.14.5 (from -r x)", 40) == "40 packages found"
    assert progress("Collecting aiohttp==3.14.5 (from -r x)", 41) == ""
    assert progress("Installing collected packages: a, b, c", 41) == "installing 3 packages"
