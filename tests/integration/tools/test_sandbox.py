"""What generated code can and cannot do, tried for real."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heavy.core.ids import RunId, arm
from heavy.core.messages import ToolCall
from heavy.core.tools import ToolContext, ToolOutput
from heavy.tools.python import PythonTool
from heavy.tools.sandbox.jail import SandboxLimits, SandboxUnavailable
from heavy.tools.sandbox.sandbox import Ending, Execution, Sandbox
from heavy.tools.toolset import Toolset

from tests_support.users import as_ordinary_user

SMALL = SandboxLimits(
    cpu_s=3, memory_bytes=160 << 20, tmp_bytes=8 << 20, file_bytes=4 << 20, output_bytes=8 << 10
)


async def run(code: str, limits: SandboxLimits = SMALL, timeout_s: float = 20.0) -> Execution:
    return await Sandbox(limits).run(code, timeout_s=timeout_s)


async def ask(code: str, timeout_s: float = 20.0, limits: SandboxLimits = SMALL) -> ToolOutput:
    toolset = Toolset([PythonTool(Sandbox(limits))])
    context = ToolContext(RunId("run-1"), arm(0), 0, "tenant", "functions.python:0", timeout_s)
    return await toolset.call(ToolCall("functions.python:0", "python", json.dumps({"code": code})), context)


def named(word: str) -> str:
    """Code that gives its process a name by which it can be found from outside."""
    return f"import ctypes\nctypes.CDLL(None).prctl(15, b'{word}')\n"


def processes_named(word: str) -> list[int]:
    """Ids of the processes on this machine with that name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            if name == word:
                found.append(int(entry.name))
    return found


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_the_probe_finds_every_wall_standing() -> None:
    await Sandbox(SMALL).probe()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print(6 * 7)", "42"),
        ("6 * 7", "42"),
        ("print('a')\n'b'", "a"),
        ("x = 1\nx", "1"),
        ("None", "(no output)"),
        ("x = 1", "(no output)"),
        ("'é\\u4e2d'", "'é中'"),
        ("import sys; print(sys.stdin.read() == '')", "True"),
        ("import sys; sys.exit(0)", "(no output)"),
        ("print(__name__)", "__main__"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nP(1)", "P(x=1)"),
        ("import threading\nt = threading.Thread(target=print, args=('in',)); t.start(); t.join()", "in"),
        ("open('/tmp/a', 'w').write('x'); open('/tmp/a').read()", "'x'"),
    ],
)
async def test_code_prints_or_its_last_value_is_shown(code: str, expected: str) -> None:
    output = await ask(code)
    assert (output.content, output.is_error) == (expected, False)


async def test_the_numeric_libraries_are_inside() -> None:
    code = (
        "import numpy, scipy.special, sympy\nprint(numpy.arange(4).sum(), sympy.integrate(sympy.Symbol('x')))"
    )
    output = await ask(code, limits=SandboxLimits(), timeout_s=60)
    assert output.content == "6 x**2/2"


async def test_the_same_code_prints_the_same_every_time() -> None:
    code = "print({str(n) for n in range(50)}, hash('x'))"
    assert (await run(code)).stdout == (await run(code)).stdout


async def test_an_exception_shows_the_frames_of_the_code_and_no_others() -> None:
    output = await ask("import json\ndef f():\n    return json.loads('{')\nprint('before')\nf()")
    assert output.is_error
    assert output.deterministic
    assert output.content.startswith("before\nTraceback")
    assert 'File "<code>", line 3, in f\n    return json.loads' in output.content
    assert "JSONDecodeError" in output.content
    assert "/python" not in output.content
    assert "bootstrap" not in output.content


async def test_syntax_errors_exits_and_broken_text_are_answers_too() -> None:
    assert "SyntaxError" in (await ask("x = (")).content
    assert "status 3" in (await ask("raise SystemExit(3)")).content
    assert not (await ask("print('\\ud800')")).is_error
    assert (await ask("\0")).is_error


async def test_nothing_survives_from_one_call_to_the_next() -> None:
    sandbox = Sandbox(SMALL)
    await sandbox.run("open('/tmp/left', 'w').write('x')", timeout_s=20)
    left = await sandbox.run("import os; print(os.listdir('/tmp'))", timeout_s=20)
    assert left.stdout.strip() == "[]"


async def test_files_of_the_host_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    project = Path(__file__).parents[3]
    paths = [
        tmp_path / "secret",
        project,
        project / "pyproject.toml",
        Path.home(),
        "/etc/passwd",
        "/etc/shadow",
    ]
    paths += ["/root", "/home", "/var", "/run", "/sys", "/usr/bin", "/bin", "/tmp/../etc", "/proc/1/root/etc"]
    look = f"import os\nfor p in {[str(p) for p in paths]!r}:\n  if os.path.exists(p): print(p)"
    code = f"{look}\nprint(os.listdir('/'))"
    there = (await run(code)).stdout
    assert not re.search(r"^/", there, re.MULTILINE), there
    assert set(eval(there.strip())) <= {"tmp", "dev", "proc", "lib", "lib64", "usr", "python"}  # noqa: S307


async def test_symlinks_lead_nowhere_outside() -> None:
    code = """
import os
targets = ["/etc/passwd", "/proc/1/root", "/proc/self/cwd/..", "../../../root", "/proc/1/cwd"]
for n, target in enumerate(targets):
    os.symlink(target, f"/tmp/l{n}")
    try:
        found = os.listdir(f"/tmp/l{n}")
        print("LEAK" if set(found) - {"tmp", "dev", "proc", "lib", "lib64", "usr", "python"} else "ok")
    except OSError as error:
        print("ok")
"""
    assert (await run(code)).stdout.split() == ["ok"] * 5


async def test_only_tmp_can_be_written_and_not_without_end() -> None:
    code = """
import os
for p in ["/", "/usr", "/usr/lib", "/python", "/python/site", "/python/bin", "/dev", "/dev/shm", "/proc"]:
    try:
        open(p + "/x", "w"); print("WROTE", p)
    except OSError:
        pass
try:
    open("/tmp/big", "wb").write(bytes(6 << 20)); print("WROTE big")
except OSError as error:
    print(error.strerror)
try:
    for n in range(8):
        open(f"/tmp/part{n}", "wb").write(bytes(3 << 20))
    print("WROTE all")
except OSError as error:
    print(error.strerror)
"""
    result = await run(code)
    assert result.stdout.splitlines() == ["File too large", "No space left on device"], result


async def test_there_is_no_network_and_no_way_to_ask_for_one() -> None:
    word = os.urandom(6).hex()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{word}")
    listener.listen()
    code = f"""
import socket
print([line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]])
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 38, 40):
    try:
        socket.socket(family, socket.SOCK_DGRAM); print("OPEN", family)
    except OSError:
        pass
try:
    socket.getaddrinfo("example.org", 80); print("RESOLVED")
except OSError:
    pass
s = socket.socket(socket.AF_UNIX)
for path in ("\\0{word}", "/run/docker.sock", "/tmp/valkey.sock"):
    try:
        s.connect(path); print("CONNECTED")
    except OSError:
        pass
print("done")
"""
    with listener:
        assert (await run(code)).stdout.split("\n") == ["['lo']", "done", ""]


async def test_the_environment_and_open_files_are_empty() -> None:
    os.environ["HEAVY_TEST_SECRET"] = "s3cret"
    try:
        code = "import os\nprint(dict(os.environ))\nprint(sorted(map(int, os.listdir('/proc/self/fd'))))"
        result = await run(code)
    finally:
        del os.environ["HEAVY_TEST_SECRET"]
    assert "s3cret" not in result.stdout
    assert "HEAVY" not in result.stdout
    fds = eval(result.stdout.splitlines()[-1])  # noqa: S307
    assert fds[:3] == [0, 1, 2]
    assert len(fds) <= 4  # the fourth lists the directory


async def test_other_processes_are_invisible_and_out_of_reach() -> None:
    code = """
import os, signal
print(sorted(int(p) for p in os.listdir("/proc") if p.isdigit()))
for pid in (1, os.getppid()):
    for path in ("mem", "environ", "root", "maps"):
        try:
            open(f"/proc/{pid}/{path}").read(1); print("READ", path)
        except OSError:
            pass
print(os.getpid(), os.getuid())
"""
    result = await run(code)
    assert result.stdout.splitlines() == ["[1, 2]", "2 1000"], result


FORBIDDEN = {
    "fork": "os.fork()",
    "subprocess": "__import__('subprocess').run(['/python/bin/python3', '-c', '1'])",
    "mount": "sys(165, 0, b'/tmp', b'tmpfs', 0, 0)",
    "ptrace": "sys(101, 16, 1, 0, 0)",
    "unshare": "sys(272, 0x10000000)",
    "setns": "sys(308, 0, 0)",
    "keyctl": "sys(250, 0, 0)",
    "bpf": "sys(321, 0, 0, 0)",
    "io_uring": "sys(425, 1, 0)",
    "userfaultfd": "sys(323, 0)",
    "perf_event_open": "sys(298, 0, 0, 0, 0, 0)",
    "personality": "sys(135, 0)",
    "memfd_create": "sys(319, b'x', 0)",
    "shmget": "sys(29, 0, 4096, 0o1600)",
    "clone with a new user namespace": "sys(56, 0x10000011, 0, 0, 0, 0)",
    "chroot": "os.chroot('/tmp')",
    "setuid": "os.setuid(0)",
    "raise a limit": "__import__('resource').setrlimit(7, (10000, 10000))",
    "raise the memory limit": "__import__('resource').setrlimit(9, (-1, -1))",
    "nice down": "os.nice(-1)",
    "oom score down": "open('/proc/self/oom_score_adj', 'w').write('-1000')",
    "sysctl": "open('/proc/sys/kernel/hostname', 'w').write('x')",
    "sysrq": "open('/proc/sysrq-trigger', 'w').write('b')",
    "device": "os.mknod('/tmp/d', 0o20600, os.makedev(1, 1))",
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers below are x86_64's")
async def test_the_tools_for_breaking_out_are_taken_away() -> None:
    code = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def sys(*args):
    if libc.syscall(*args) < 0:
        raise OSError(ctypes.get_errno(), "refused")
for name, attempt in {FORBIDDEN!r}.items():
    try:
        eval(attempt)
    except (OSError, ValueError, RuntimeError):
        continue
    print("ALLOWED", name)
print("done")
"""
    result = await run(code)
    assert result.stdout.strip() == "done", result


async def test_threads_are_bounded() -> None:
    code = """
import threading, time
threading.stack_size(65536)
try:
    for n in range(1000):
        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
except RuntimeError:
    print(n)
"""
    result = await run(code)
    assert 8 <= int(result.stdout) <= SMALL.threads


async def test_a_memory_bomb_ends_itself_alone() -> None:
    output = await ask("x = []\nwhile True:\n    x.append(bytearray(10**7))", timeout_s=30)
    assert output.is_error
    assert not output.deterministic
    assert "160 MiB" in output.content


async def test_a_crash_is_told_apart_from_an_answer() -> None:
    result = await run("import ctypes; ctypes.string_at(0)")
    assert result.ending is Ending.KILLED


async def test_endless_computing_ends_at_the_cpu_limit() -> None:
    output = await ask("while True: pass", timeout_s=60, limits=SandboxLimits(cpu_s=1))
    assert output.is_error
    assert not output.deterministic
    assert "1 s of CPU" in output.content


async def test_a_flood_of_output_is_cut_and_stopped() -> None:
    limits = SandboxLimits(output_bytes=8 << 10, flood_bytes=1 << 20)
    result = await run("print('first')\nwhile True: print('y' * 1000)", limits)
    assert result.ending is Ending.FLOOD
    assert result.stdout.startswith("first\n")
    assert len(result.stdout) < (8 << 10) + 100
    assert "bytes left out here" in result.stdout


async def test_a_flood_of_errors_does_not_block_the_output() -> None:
    code = "import sys\nsys.stderr.write('e' * 3_000_000)\nprint('end')"
    result = await run(code)
    assert result.stdout == "end\n"
    assert len(result.stderr) < (8 << 10) + 100


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(1000)",
        "import os, time; os.close(1); os.close(2); time.sleep(1000)",
        "import signal, time\nfor n in (1, 2, 13, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(1000)",
    ],
)
async def test_a_time_out_leaves_no_process(code: str) -> None:
    word = os.urandom(6).hex()
    call = asyncio.create_task(Sandbox(SMALL).run(named(word) + code, timeout_s=5.0))
    await until(lambda: bool(processes_named(word)))
    assert (await call).ending is Ending.TIMEOUT
    assert processes_named(word) == []


async def test_cancelling_the_call_kills_the_sandbox() -> None:
    word = os.urandom(6).hex()
    call = asyncio.create_task(
        Sandbox(SMALL).run(named(word) + "import time; time.sleep(1000)", timeout_s=60)
    )
    await until(lambda: bool(processes_named(word)))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert processes_named(word) == []


async def test_the_sandbox_dies_with_its_parent() -> None:
    word = os.urandom(6).hex()
    code = named(word) + "import time; time.sleep(1000)"
    script = f"""
import asyncio
from heavy.tools.sandbox.sandbox import Sandbox
async def main():
    await Sandbox().run({code!r}, timeout_s=600)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    try:
        await until(lambda: bool(processes_named(word)), within_s=30)
        parent.kill()
        await parent.wait()
        await until(lambda: processes_named(word) == [])
    finally:
        if parent.returncode is None:
            parent.kill()
            await parent.wait()


async def test_calls_beyond_the_concurrency_wait_and_then_say_so() -> None:
    sandbox = Sandbox(SMALL, concurrency=1)
    first = asyncio.create_task(sandbox.run("import time; time.sleep(1000)", timeout_s=4.0))
    await asyncio.sleep(0)
    second = await sandbox.run("1", timeout_s=0.2)
    assert second.ending is Ending.BROKEN
    assert "busy" in second.stderr
    assert (await first).ending is Ending.TIMEOUT
    assert (await sandbox.run("1", timeout_s=20)).ending is Ending.FINISHED


async def test_a_sandbox_that_cannot_work_is_refused_with_a_hint(tmp_path: Path) -> None:
    from dataclasses import replace

    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    sandbox = Sandbox(SMALL)
    sandbox._jail = replace(sandbox._jail, command=(str(broken), *sandbox._jail.command[1:]))
    with pytest.raises(SandboxUnavailable, match=r"No permissions.*max_user_namespaces"):
        await sandbox.probe()


@pytest.mark.skipif(os.geteuid() != 0, reason="the other half: these tests run as an ordinary user already")
async def test_the_sandbox_works_for_an_ordinary_user() -> None:
    """An ordinary user, in a mount namespace where the interpreter's folders can be entered by anyone."""
    script = """
import asyncio, os
from heavy.tools.sandbox.sandbox import Sandbox
async def main():
    sandbox = Sandbox()
    await sandbox.probe()
    run = await sandbox.run("import os; os.getuid()", timeout_s=20)
    print(os.geteuid(), run.stdout, run.stderr)
    fork = await sandbox.run("import os\\nos.fork()", timeout_s=20)
    print(fork.stderr)
    for path in ("/x", "/dev/x", "/dev/shm/x", "/python/x", "/usr/x", "/tmp/x"):
        wrote = await sandbox.run(f"open({path!r}, 'w').close()", timeout_s=20)
        print(path, wrote.ending)
asyncio.run(main())
"""
    command = [*as_ordinary_user(), sys.executable, "-c", script]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[0].startswith("65534 1000"), done
    assert "PermissionError" in done.stdout
    assert re.findall(r"(/\S+) finished", done.stdout) == ["/tmp/x"], done.stdout
