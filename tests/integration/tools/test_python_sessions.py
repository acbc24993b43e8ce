"""Python with a memory: what lasts, what is lost and how that is said, and what never crosses over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from heavy.core.files import File, FileRef, ref_of
from heavy.core.ids import RunId, arm
from heavy.core.tools import ToolContext, ToolOutput
from heavy.tools.python_session import PythonSessionTool
from heavy.tools.sandbox.jail import SandboxLimits
from heavy.tools.sandbox.sessions import SessionBounds, Sessions

from tests_support.up import processes_below

SMALL = SandboxLimits(
    cpu_s=30,
    memory_bytes=512 << 20,
    files=64,
    file_bytes=1 << 20,
    tmp_bytes=4 << 20,
    output_bytes=8_000,
    flood_bytes=200_000,
)


class Python:
    """The tool, asked in the name of one trajectory or another."""

    def __init__(self, bounds: SessionBounds | None = None, limits: SandboxLimits = SMALL) -> None:
        self.sessions = Sessions(limits, bounds or SessionBounds())
        self.given: dict[str, bytes] = {}
        self.files: tuple[FileRef, ...] = ()
        self.tool = PythonSessionTool(
            self.sessions, timeout_s=20.0, attachment_bytes=1_000, kept_bytes=100_000, files=self
        )

    def give(self, *files: File) -> None:
        """The caller's files, for all trajectories."""
        self.files = tuple(map(ref_of, files))
        self.given = {ref.digest: file.data for ref, file in zip(self.files, files, strict=True)}

    async def read(self, run: RunId, digest: str) -> bytes:
        """As the store reads them."""
        return self.given[digest]

    async def __call__(
        self,
        code: str,
        index: int = 0,
        timeout_s: float = 20.0,
        history: tuple[dict[str, Any], ...] | None = None,
        **more: Any,
    ) -> ToolOutput:
        context = ToolContext(RunId("run-1"), arm(index), 0, "tenant", "call", timeout_s, history, self.files)
        return await self.tool.call({"code": code, **more}, context)


@pytest.fixture
async def python() -> AsyncIterator[Python]:
    """Sessions of one runner."""
    tool = Python()
    yield tool
    await tool.tool.close()


@pytest.fixture
async def cramped() -> AsyncIterator[Python]:
    """The same with room for one session."""
    tool = Python(SessionBounds(sessions_max=1))
    yield tool
    await tool.tool.close()


async def test_variables_functions_and_files_last_from_call_to_call(python: Python) -> None:
    assert (await python("def double(x): return 2 * x\nbase = 21")).content == "(no output)"
    written = await python("open('note.txt', 'w').write('kept'); print(double(base))")
    assert written.content == "42\n[files new or changed: 'note.txt' (4 bytes)]"
    assert (await python("open('note.txt').read()")).content == "'kept'"


async def test_trajectories_share_neither_variables_nor_files(python: Python) -> None:
    await python("secret = 1\nopen('secret.txt', 'w').write('x')", index=0)
    other = await python("import os\nprint('secret' in globals(), os.listdir('.'), os.listdir('/tmp'))", 1)
    assert other.content == "False [] ['work']"


async def test_files_go_in_and_come_out_bounded(python: Python) -> None:
    given = {"in.csv": "a,b\n1,2\n", "../out": "x"}
    output = await python(
        "open('big.txt', 'w').write('x' * 5000)\nopen('raw', 'wb').write(b'\\xff')",
        files=given,
        return_files=["in.csv", "big.txt", "raw", "absent", "/etc/passwd"],
    )
    assert "```in.csv, 8 bytes\na,b\n1,2\n" in output.content
    assert "big.txt, the first 1000 bytes\n" + "x" * 1000 + "\n" in output.content
    assert "[raw is no text, so it is not shown]" in output.content
    assert "'absent' is not attached: [Errno 2]" in output.content
    assert "'/etc/passwd' is not attached: '/etc/passwd' is not a plain file name" in output.content
    came = [File("in.csv", b"a,b\n1,2\n"), File("big.txt", b"x" * 5000), File("raw", b"\xff")]
    assert list(output.files) == came
    assert "[given to the user: in.csv (8 bytes), big.txt (5,000 bytes), raw (1 bytes)]" in output.content
    assert not output.storable


async def test_a_file_too_large_to_be_given_back_is_shown_in_part_and_not_said_to_be_given(
    python: Python,
) -> None:
    output = await python("open('big.txt', 'w').write('x' * 100_001)", return_files=["big.txt"])
    assert "big.txt, the first 1000 bytes\n" in output.content
    assert output.files == ()
    assert "given to the user" not in output.content


async def test_the_callers_files_are_there_from_the_start_and_again_after_a_loss(python: Python) -> None:
    python.give(File("data.csv", b"n\n20\n22\n"), File("raw.bin", bytes(range(256))))
    read = "print(sum(map(int, open('data.csv').read().split()[1:])), len(open('raw.bin', 'rb').read()))"
    assert (await python(f"open('data.csv', 'a').write('0\\n')\n{read}")).content.startswith("42 256\n")
    assert "gone" not in (await python(read, 1)).content
    lost = await python("import os\nos._exit(3)")
    assert "The session is lost" in lost.content
    again = await python(read)
    assert again.content.startswith("42 256\n[files new or changed: 'data.csv' (8 bytes)")


async def test_files_that_do_not_fit_in_are_said_and_nothing_is_run(python: Python) -> None:
    python.give(File("large.bin", bytes((1 << 20) + 1)))
    output = await python("print('ran')")
    assert output.is_error
    assert "its files could not be put into it: large.bin has more than 1 MiB" in output.content
    assert "ran" not in output.content


@pytest.mark.timeout(240)
async def test_plots_become_files_and_are_described(python: Python) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9], label='squares')\nplt.title('Growth')\nNone"
    output = await python(code, timeout_s=110.0, pure=True)
    assert "[figure-1.png: 640 x 480 pixels; title 'Growth', line 'squares' of 3 points" in output.content
    assert "[given to the user: figure-1.png (" in output.content
    (plot,) = output.files
    assert plot.name == "figure-1.png"
    assert plot.data.startswith(b"\x89PNG\r\n\x1a\n")
    assert plot.data.endswith(b"IEND\xaeB`\x82")
    assert not output.is_error


@pytest.fixture
async def hasty() -> AsyncIterator[Python]:
    """The same with one second of the CPU for a call."""
    tool = Python(limits=replace(SMALL, cpu_s=1))
    yield tool
    await tool.tool.close()


async def test_a_cell_out_of_time_is_interrupted_and_its_session_lives_on(hasty: Python) -> None:
    python = hasty
    await python("kept = 7")
    slept = await python("import time\ntime.sleep(60)", timeout_s=4.0)
    computed = await python("while True: pass", timeout_s=100.0)
    assert slept.is_error
    assert "stopped after 4 s" in slept.content
    assert "1 s of CPU" in computed.content
    assert (await python("kept")).content == "7"


async def test_too_much_memory_is_an_answer_and_the_state_stays(python: Python) -> None:
    await python("kept = 7")
    assert "512 MiB" in (await python("bytearray(1 << 30)")).content
    assert (await python("kept")).content == "7"


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(3)",
        "import os; os.kill(os.getpid(), 9)",
        "import signal, time\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\ntime.sleep(60)",
        "while True: print('x' * 10_000)",
        "import os\nos.closerange(0, 100)",
    ],
)
async def test_a_session_that_its_code_destroys_is_said_to_be_lost(python: Python, code: str) -> None:
    await python("kept = 7")
    output = await python(code, timeout_s=2.0)
    assert output.is_error
    assert "its variables and files are gone" in output.content
    fresh = await python("'kept' in globals()")
    assert fresh.content == "False"
    assert python.sessions.alive == 1


async def test_lost_impure_state_is_told_and_nothing_is_run(cramped: Python) -> None:
    await cramped("import random\nx = random.random()", 0)
    await cramped("y = 1", 1)
    gone = await cramped("print('ran')", 0)
    assert gone.is_error
    assert "session is gone (the server needed room for others)" in gone.content
    assert "ran" not in gone.content
    assert not gone.storable
    assert (await cramped("'x' in globals()", 0)).content == "False"


async def test_lost_pure_state_is_rebuilt_unseen(cramped: Python) -> None:
    await cramped("x = 20", 0, pure=True)
    await cramped("x += int(open('n.txt').read())", 0, pure=True, files={"n.txt": "1"})
    await cramped("y = 1", 1)
    assert (await cramped("2 * x", 0)).content == "42"


async def test_calls_that_others_answered_are_caught_up_with_where_they_are_pure(python: Python) -> None:
    done = ({"code": "x = 40", "pure": True}, {"code": "x += 2", "pure": True})
    assert (await python("x", history=done)).content == "42"
    gone = await python("x", 1, history=({"code": "import random\nx = random.random()"},))
    assert "answered elsewhere" in gone.content


async def test_only_a_state_that_is_pure_throughout_may_be_stored(python: Python) -> None:
    assert (await python("x = 1", pure=True)).storable
    assert (await python("x", pure=True)).storable
    assert not (await python("import time; x = time.time()")).storable
    assert not (await python("x", pure=True)).storable


async def test_calls_of_one_trajectory_at_once_run_one_after_the_other(python: Python) -> None:
    await python("log = []")
    code = "log.append({0}); import time; time.sleep(0.05); log.append({0})"
    await asyncio.gather(*(python(code.format(number)) for number in range(4)))
    pairs = await python("all(a == b for a, b in zip(log[::2], log[1::2]))")
    assert pairs.content == "True"


async def test_what_a_session_says_of_itself_is_bounded_and_concerns_it_alone(python: Python) -> None:
    forged = """
import os
for fd in map(int, os.listdir('/proc/self/fd')):
    try:
        if fd > 2: os.write(fd, b'0 99999999999\\n')
    except OSError:
        pass
"""
    output = await python(forged)
    assert output.is_error
    assert "cannot be trusted" in output.content
    assert (await python("1 + 1", 1)).content == "2"


async def test_a_session_is_as_confined_as_a_single_call(python: Python) -> None:
    code = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
found = []
for attempt in (os.fork, lambda: socket.socket(socket.AF_INET), lambda: open('/python/x', 'w'),
                lambda: os.listdir('/home'), lambda: os.kill(1, 9), lambda: os.setuid(0)):
    try:
        attempt()
        found.append('open')
    except OSError as error:
        found.append(type(error).__name__)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(found, status['Seccomp'].strip(), status['NoNewPrivs'].strip(), int(status['CapEff'], 16))
print(len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3, dict(os.environ).get('HEAVY_STORE_URL'))
"""
    output = await python(code)
    assert "open" not in output.content.splitlines()[0]
    assert output.content.splitlines()[0].endswith("] 2 1 0")
    assert output.content.splitlines()[1] == "True None"


async def test_files_of_a_session_have_one_bound_together(python: Python) -> None:
    code = "for n in range(9):\n    open(f'f{n}', 'wb').write(b'x' * (1 << 20))"
    assert "No space left on device" in (await python(code)).content


async def test_the_end_of_a_trajectory_ends_its_interpreter(python: Python) -> None:
    before = processes_below(os.getpid())
    await python("x = 1", 3)
    assert processes_below(os.getpid()) - before
    await python.tool.end(RunId("run-1"), arm(3))
    await python.tool.end(RunId("run-1"), arm(3))
    assert not processes_below(os.getpid()) - before
    assert python.sessions.alive == 0


async def test_a_cancelled_call_takes_its_session_along(python: Python) -> None:
    await python("x = 1")
    running = asyncio.create_task(python("import time; time.sleep(60)"))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert python.sessions.alive == 0
    assert "session is gone (the call that used it was cancelled)" in (await python("x")).content


async def test_idle_sessions_end_by_themselves() -> None:
    python = Python(SessionBounds(idle_s=0.4))
    try:
        await python("x = 1")
        async with asyncio.timeout(20):
            while python.sessions.alive:
                await asyncio.sleep(0.05)
        assert "it was idle for 0.4 s" in (await python("x")).content
    finally:
        await python.tool.close()
