"""The CPU environment of SGLang: a virtual environment of its own, built once and kept in the cache.

    python -m workers.engines.sglang.environment build
    python -m workers.engines.sglang.environment status --json

SGLang's pins must not meet the control plane's. A virtual environment cannot be moved (its scripts carry its
path), so it is built where it will stay and counts only once it is marked complete; whatever lies there
without the mark is built anew. A file lock lets one build run at a time. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from heavy.core.errors import EngineUnavailable, HeavyError
from workers.engines.sglang.pip_run import PipRun

HERE = Path(__file__).resolve().parent
LOCK = HERE / "requirements-cpu.lock"
"""Everything but torch, pinned, with hashes."""
SHIMS = HERE / "cpu_shims"
"""What stands in for GPU parts; on the engine's PYTHONPATH."""
TORCH = "torch==2.13.0"
"""Not in the lock: which build of it is right (CPU, CUDA) is the machine's to say."""
MARK = "complete.json"
ROOM_BYTES_MIN = 6 * 1000**3
"""3.4 GB installed with a CPU build of torch, and about 1 GB of downloads beside it."""
WAIT_S_MAX = 3600.0
"""How long to wait for another build of the same environment."""
WAIT_POLL_S = 0.5
CHECK_S_MAX = 300.0
CHECK = (
    "import json, torch, torchvision, transformers, sgl_kernel, sglang; "
    "print(json.dumps({m.__name__: m.__version__ for m in (torch, transformers, sglang)}))"
)

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CpuEnvironment:
    """Where SGLang for the CPU is installed, or will be."""

    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"

    @property
    def ready(self) -> bool:
        """Whether a build of it was finished."""
        return (self.root / MARK).is_file() and self.python.exists()

    @property
    def details(self) -> dict[str, object]:
        """What the finished build noted: versions, seconds, bytes. Empty where there is none."""
        if not self.ready:
            return {}
        found: dict[str, object] = json.loads((self.root / MARK).read_text())
        return found

    @property
    def variables(self) -> dict[str, str]:
        """What its processes need in their environment.

        One thread: on few cores a small model's tokens take 10 ms with one, and up to 0.5 s with two that
        wait for each other beside other work. No hub: models are directories.
        """
        return {
            "PYTHONPATH": str(SHIMS),
            "SGLANG_USE_CPU_ENGINE": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }


def cpu_environment(cache: Path | None = None) -> CpuEnvironment:
    """The environment of this lock file and this Python, built or not. `cache`: Heavy's, by default."""
    identity = hashlib.sha256(LOCK.read_bytes())
    identity.update(f"{TORCH} python{sys.version_info.major}.{sys.version_info.minor}".encode())
    return CpuEnvironment((cache or cache_directory()) / "envs" / f"sglang-cpu-{identity.hexdigest()[:12]}")


def cache_directory() -> Path:
    """`$HEAVY_CACHE_DIR`, else `heavy` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    if own := os.environ.get("HEAVY_CACHE_DIR"):
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve() / "heavy"


def build(environment: CpuEnvironment, report: Report) -> CpuEnvironment:
    """Build it unless it is there; returns it, ready. Raises `EngineUnavailable` with what to do."""
    if environment.ready:
        return environment
    try:
        environment.root.parent.mkdir(parents=True, exist_ok=True)
        with _alone(environment, report):
            if not environment.ready:
                _build(environment, report)
    except OSError as error:
        raise EngineUnavailable(f"SGLang's environment at {environment.root}: {error}.") from error
    return environment


def _build(environment: CpuEnvironment, report: Report) -> None:
    started_s = time.monotonic()
    _remove(environment)
    _require_room(environment.root.parent)
    report(f"building SGLang for the CPU in {environment.root}")
    log = environment.root.with_suffix(".log")
    try:
        _create(environment)
        pip = PipRun(str(environment.python), log, report)
        pip.install("--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement", str(LOCK))
        pip.install("--only-binary=:all:", TORCH)
        report("checking that it can be imported")
        versions = _check(environment)
    except BaseException:
        _remove(environment)
        raise
    note = {**versions, "seconds": round(time.monotonic() - started_s), "bytes": _size(environment.root)}
    unmarked = environment.root / f"{MARK}.new"
    unmarked.write_text(json.dumps(note) + "\n")
    unmarked.replace(environment.root / MARK)
    log.unlink(missing_ok=True)
    report(f"ready after {note['seconds']} s")


@contextlib.contextmanager
def _alone(environment: CpuEnvironment, report: Report) -> Iterator[None]:
    """Hold the build's lock; the kernel lets go of it when this process ends, however it ends."""
    path = environment.root.with_suffix(".lock")
    until_s = time.monotonic() + WAIT_S_MAX
    with path.open("a") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    report("another build of it is under way; waiting")
                    told = True
                if time.monotonic() > until_s:
                    raise EngineUnavailable(
                        f"Another build has held {path} for {WAIT_S_MAX:.0f} s; end it and try again."
                    ) from None
                time.sleep(WAIT_POLL_S)
        yield


def _require_room(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < ROOM_BYTES_MIN:
        raise EngineUnavailable(
            f"SGLang's environment needs {ROOM_BYTES_MIN / 1e9:.0f} GB in {directory}, where "
            f"{free / 1e9:.1f} GB are free; "
            "make room, or set HEAVY_CACHE_DIR to a directory on another disk."
        )


def _create(environment: CpuEnvironment) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(environment.root)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise EngineUnavailable(
            f"{sys.executable} could not make a virtual environment in {environment.root}: "
            f"{(made.stderr or made.stdout).strip()[-500:]} On Debian the package python3-venv is needed."
        )


def _check(environment: CpuEnvironment) -> dict[str, object]:
    """Import everything once, and thereby compile it; the versions."""
    variables = {**os.environ, **environment.variables}
    command = [str(environment.python), "-W", "ignore", "-c", CHECK]
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, timeout=CHECK_S_MAX
        )
    except subprocess.TimeoutExpired as error:
        raise EngineUnavailable(f"Importing SGLang took more than {CHECK_S_MAX:.0f} s.") from error
    if done.returncode:
        raise EngineUnavailable(
            f"SGLang was installed but cannot be imported: {done.stderr.strip()[-800:]}\n"
            "A build of torch for another accelerator may have been installed."
        )
    versions: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return versions


def _remove(environment: CpuEnvironment) -> None:
    if environment.root.exists():
        shutil.rmtree(environment.root)


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())


def _say(line: str) -> None:
    sys.stderr.write(f"sglang-env: {line}\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    """The command. 0: ready; 1: not ready (`status`) or it failed (`build`)."""
    parser = argparse.ArgumentParser(prog="python -m workers.engines.sglang.environment", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the environment unless it is there")
    status = commands.add_parser("status", help="where it is and whether it is ready")
    status.add_argument("--json", action="store_true", help="as JSON on standard output")
    given = parser.parse_args(arguments)
    environment = cpu_environment()
    if given.command == "build":
        try:
            build(environment, _say)
        except HeavyError as error:
            _say(str(error))
            return 1
        _say(f"SGLang for the CPU is ready: {environment.python}")
        return 0
    state = {"root": str(environment.root), "python": str(environment.python), "ready": environment.ready}
    if given.json:
        sys.stdout.write(
            json.dumps({**state, "variables": environment.variables, **environment.details}) + "\n"
        )
    else:
        sys.stdout.write(
            f"{environment.root}: {'ready' if environment.ready else 'not built; run make sglang-env'}\n"
        )
    return 0 if environment.ready else 1


if __name__ == "__main__":
    sys.exit(main())
