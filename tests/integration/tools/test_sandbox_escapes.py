"""Attempts to leave the sandbox beside those of `test_sandbox`: each comes to nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heavy.tools.sandbox import cgroup
from heavy.tools.sandbox.jail import SandboxLimits
from heavy.tools.sandbox.level import WALLS, sandbox_level
from heavy.tools.sandbox.sandbox import Ending, Sandbox

from tests_support.up import alive, processes_below
from tests_support.users import as_ordinary_user

SMALL = SandboxLimits(cpu_s=2, memory_bytes=256 << 20, threads=16, files=64, tmp_bytes=4 << 20)

ATTEMPTS = """
import ctypes, json, mmap, os, signal, socket, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
found = {{}}
def attempt(name, act):
    try:
        found[name] = repr(act())[:200]
    except BaseException as error:
        found[name] = type(error).__name__
def read(path):
    with open(path, 'rb') as file:
        return file.read(200)
def write(path, data='1'):
    with open(path, 'w') as file:
        return file.write(data)
def call(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), 'refused')
    return 'open'
{attempts}
print(json.dumps(found))
"""

# What is attempted, by what it is against.
PROC_AND_SYS = """
for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sysrq-trigger',
             '/proc/1/mem', '/proc/1/oom_score_adj', '/proc/sys/vm/drop_caches', '/proc/self/uid_map',
             '/proc/self/setgroups', '/proc/timer_list', '/proc/acpi/x'):
    attempt('write ' + path, lambda: write(path))
for path in ('/proc/kcore', '/proc/1/environ', '/proc/1/root/etc/passwd', '/proc/1/cwd/x', '/proc/kmsg',
             '/proc/1/fd/0', '/sys/kernel/notes', '/sys/class/net', '/dev/mem', '/dev/sda', '/dev/kvm',
             '/dev/fuse', '/dev/net/tun', '/proc/self/root/etc/shadow', '/etc/passwd', '/root/.ssh/id_rsa',
             '/var/run/docker.sock'):
    attempt('read ' + path, lambda: read(path))
attempt('list /sys', lambda: os.listdir('/sys'))
attempt('escape by root link', lambda: os.listdir('/proc/1/root/home'))
for path in ('/proc/1/mem', '/proc/1/task/1/mem', '/proc/1/oom_score_adj',
             '/proc/self/oom_score_adj', '/proc/thread-self/oom_score_adj'):
    attempt('open ' + path, lambda: open(path, 'r+b'))
for name in ('environ', 'cmdline', 'maps', 'status', 'fd', 'exe', 'root', 'cwd', 'ns'):
    attempt('see ' + name, lambda: read('/proc/1/' + name) or os.listdir('/proc/1/' + name))
attempt('dumpable', lambda: call(157 if os.uname().machine == 'x86_64' else 167, 4, 1, 0, 0, 0))
"""
PROCESSES = """
attempt('fork', os.fork)
attempt('forkpty', os.forkpty)
attempt('spawn', lambda: os.posix_spawn('/python/bin/python3', ['x'], {}))
attempt('subprocess', lambda: subprocess.run(['/python/bin/python3', '-c', '1']))
attempt('shell', lambda: 'Error' if os.system('true') else 'ran')
attempt('vfork', lambda: call(58 if sys.maxsize and os.uname().machine == 'x86_64' else 220, 17))
attempt('clone', lambda: call(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0))
attempt('clone3', lambda: call(435, ctypes.byref(ctypes.create_string_buffer(88)), 88))
"""
SIGNALS = """
attempt('kill 1', lambda: os.kill(1, 0))
attempt('pidfd 1', lambda: signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGKILL))
attempt('parent', lambda: os.kill(os.getppid(), signal.SIGKILL) if os.getppid() else call(1 << 30))
attempt('outside', lambda: os.kill(99999, 0))
attempt('group of init', lambda: os.killpg(1, signal.SIGTERM))
attempt('priority', lambda: os.setpriority(os.PRIO_PROCESS, 0, -10))
attempt('limits of 1', lambda: __import__('resource').prlimit(1, 0))
attempt('stop 1', lambda: os.kill(1, signal.SIGSTOP))
"""
NAMESPACES = """
x86 = os.uname().machine == 'x86_64'
attempt('unshare user', lambda: call(272 if x86 else 97, 0x10000000))
attempt('unshare mount', lambda: call(272 if x86 else 97, 0x00020000))
attempt('setns', lambda: call(308 if x86 else 268, os.open('/proc/self/ns/net', os.O_RDONLY), 0))
attempt('mount', lambda: call(165 if x86 else 40, b'none', b'/tmp', b'tmpfs', 0, 0))
attempt('remount', lambda: call(165 if x86 else 40, 0, b'/', 0, 0x20 | 0x1000, 0))
attempt('umount', lambda: call(166 if x86 else 39, b'/proc', 2))
attempt('chroot', lambda: os.chroot('/tmp'))
attempt('pivot_root', lambda: call(155 if x86 else 41, b'/tmp', b'/tmp'))
attempt('new mount api', lambda: call(430, b'tmpfs', 0))
attempt('device', lambda: os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0)))
attempt('become root', lambda: os.setuid(0))
attempt('groups', lambda: os.setgroups([0]))
attempt('write to a bound file', lambda: write('/python/lib/x'))
attempt('hard link out', lambda: os.link('/python/bin/python3', '/tmp/python3'))
attempt('make it setuid', lambda: os.chmod('/python/bin/python3', 0o4755))
attempt('bpf', lambda: call(321 if x86 else 280, 0, 0, 0))
attempt('io_uring', lambda: call(425, 1, 0))
attempt('ptrace', lambda: call(101 if x86 else 117, 16, 1, 0, 0))
attempt('kernel keys', lambda: call(250 if x86 else 219, 0, -3, 0))
"""
ESCAPES = (PROC_AND_SYS, PROCESSES, SIGNALS, NAMESPACES)


async def tried(attempts: str, limits: SandboxLimits = SMALL) -> dict[str, Any]:
    """What became of each attempt: what it gave, or the name of the error."""
    code = ATTEMPTS.format(attempts=attempts)
    run = await Sandbox(limits).run(code, timeout_s=60.0)
    assert run.ending is Ending.FINISHED, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def refused(found: dict[str, Any]) -> None:
    """Every attempt ended in an error."""
    assert found
    came_through = {name: said for name, said in found.items() if not said.strip("'").endswith("Error")}
    assert came_through == {}


async def test_proc_and_sys_open_no_way_to_the_host() -> None:
    found = await tried(PROC_AND_SYS)
    refused(found)


async def test_no_process_can_be_made_by_any_call() -> None:
    found = await tried(PROCESSES)
    refused(found)


async def test_signals_reach_nobody_else_and_stopping_oneself_is_not_for_ever() -> None:
    found = await tried(SIGNALS)
    refused(found)
    stopped = await Sandbox(SMALL).run("import os; os.kill(os.getpid(), 19)", timeout_s=3.0)
    assert stopped.ending is Ending.TIMEOUT
    everybody = await Sandbox(SMALL).run("import os; os.kill(-1, 9); print('alive')", timeout_s=20.0)
    assert everybody.ending in (Ending.FINISHED, Ending.KILLED, Ending.EXCEPTION)
    assert alive({os.getpid()})


async def test_namespaces_and_mounts_stay_as_they_are() -> None:
    found = await tried(NAMESPACES)
    refused(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other half: these tests run as an ordinary user already")
async def test_an_ordinary_users_sandbox_holds_against_all_of_it_too() -> None:
    """There the code and bwrap's own process in the namespace have the same user."""
    script = """
import asyncio, os, sys
sys.path[:0] = ["tests/support"]
from tests.integration.tools.test_sandbox_escapes import ESCAPES, refused, tried
assert os.geteuid() == 65534
for attempts in ESCAPES:
    refused(asyncio.run(tried(attempts)))
print("all refused")
"""
    command = [*as_ordinary_user(), "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-c", script]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "all refused\n", done.stderr


async def test_what_one_call_leaves_behind_no_other_finds() -> None:
    sandbox = Sandbox(SMALL)
    left = """
import os, socket, threading, time
open('/tmp/left', 'w').write('x'); os.environ['LEFT'] = '1'
s = socket.socket(socket.AF_UNIX); s.bind('\\0left')
"""
    look = """
import os, socket
s = socket.socket(socket.AF_UNIX)
print(os.listdir('/tmp'), 'LEFT' in os.environ)
s.connect('\\0left')
"""
    first, second = await asyncio.gather(
        sandbox.run(left + "time.sleep(2)", timeout_s=30.0), sandbox.run(look, timeout_s=30.0)
    )
    assert first.ending is Ending.FINISHED
    assert second.stdout == "[] False\n"
    assert "ConnectionRefusedError" in second.stderr


@pytest.mark.parametrize(
    "bomb",
    [
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        "import mmap\nx = [mmap.mmap(-1, 1 << 26) for _ in range(1000)]",
        "import threading as t, time\n"
        "for _ in range(99): t.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "n = 0\nwhile True:\n    open(f'/tmp/{n}', 'wb').write(b'x' * (1 << 20)); n += 1",
        "import os\nwhile True: os.open('/python/bin/python3', os.O_RDONLY)",
        "x = 'a' * 10\nwhile True: x += x",
        "import sys\nwhile True: sys.stdout.write('x' * 100_000)",
    ],
)
async def test_bombs_end_themselves_alone(bomb: str) -> None:
    before = processes_below(os.getpid())
    run = await Sandbox(SMALL).run(bomb, timeout_s=60.0)
    assert run.ending not in (Ending.FINISHED, Ending.BROKEN)
    assert alive(processes_below(os.getpid()) - before) == set()
    assert len(run.stdout) + len(run.stderr) < 300_000


async def test_the_level_in_force_is_told_and_so_is_what_the_host_lacks() -> None:
    level = await sandbox_level()
    assert level.works
    assert set(WALLS) <= set(level.walls)
    assert "cgroup limits" in str(level)
    lacking = dict(level.lacking)
    assert "delegated cgroup v2 directory" in lacking[cgroup.WALL]


async def test_where_nothing_can_be_confined_the_level_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heavy.tools.sandbox.jail._bwrap", lambda: "/nonexistent/bwrap")
    level = await sandbox_level()
    assert not level.works
    assert level.walls == ()
    assert "bwrap" in level.lacking[0][1]


async def test_limits_that_the_kernel_was_asked_for_and_does_not_give_keep_code_from_running(
    tmp_path: Path,
) -> None:
    level = await sandbox_level(replace(SMALL, cgroup=str(tmp_path)))
    assert not level.works
    assert f"{tmp_path} is no cgroup v2 directory" in level.lacking[0][1]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("ordinary", [False, True])
async def test_no_process_starts_in_a_sandbox_before_the_first_is_bounded(ordinary: bool) -> None:
    """One that had started would stay outside of the cgroup, with all it does."""
    script = """
import asyncio, time
from heavy.tools.sandbox import child
from heavy.tools.sandbox.jail import SandboxLimits
from heavy.tools.sandbox.sandbox import Sandbox
class Late:
    def __init__(self, *bounds): pass
    def add(self, pid):
        time.sleep(0.5)  # long enough for the code itself to have ended, were it not held back
        print("before:", open(f"/proc/{pid}/task/{pid}/children").read().split())
    def remove(self): pass
child.Cgroup = Late
print(asyncio.run(Sandbox(SandboxLimits(cgroup="any")).run("print(6 * 7)", timeout_s=30)).stdout)
"""
    user = [*as_ordinary_user(), "PYTHONDONTWRITEBYTECODE=1"] if ordinary and os.geteuid() == 0 else []
    command = [*user, sys.executable, "-c", script]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["before:", "[]", "42"], done.stderr


def test_a_cgroup_is_made_bounded_and_removed(tmp_path: Path) -> None:
    """On a plain directory, which takes the same files: what the kernel makes of them is the kernel's."""
    assert "no cgroup v2 directory" in cgroup.problem(str(tmp_path))
    (tmp_path / "cgroup.subtree_control").write_text("cpu pids\n")
    assert cgroup.problem(str(tmp_path)) == f"write '+memory' to {tmp_path}/cgroup.subtree_control"
    (tmp_path / "cgroup.subtree_control").write_text("memory pids\n")
    assert cgroup.problem(str(tmp_path)) == ""
    group = cgroup.Cgroup(str(tmp_path), 256 << 20, 16)
    group.add(4711)
    (made,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert (made / "memory.max").read_text() == str((256 << 20) + cgroup.OVERHEAD_BYTES)
    assert (made / "pids.max").read_text() == "16"
    assert (made / "cgroup.procs").read_text() == "4711"
    group.remove()
    assert (made / "cgroup.kill").read_text() == "1"
