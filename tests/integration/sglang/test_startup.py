"""What lines of SGLang's log mean. The lines are from SGLang 0.5.23."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engines.sglang.startup import classify

FAILED = {
    "[2026-11-23 21:35:20] ERROR:    [Errno 98] error while attempting to bind on address "
    "('127.0.0.1', 31001): address already in use": ("port_taken", "port is taken"),
    "sglang serve: error: unrecognized arguments: --no-such-flag 3": ("unknown_argument", "--no-such-flag 3"),
    "sglang serve: error: argument --tool-call-parser: invalid choice: 'nope' (choose from 'auto')": (
        "bad_argument",
        "--tool-call-parser",
    ),
    "sglang serve: error: argument --tp: expected one argument": ("bad_argument", "--tp"),
    "OSError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/models/nowhere'.": (
        "model_missing",
        "model_path",
    ),
    "OSError: /models/k2 does not appear to have a file named config.json.": ("model_missing", "incomplete"),
    "RuntimeError: Cannot find any model weights with `/models/k2`": ("model_missing", "incomplete"),
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.": ("out_of_memory", "Memory"),
    "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory.": (
        "out_of_memory",
        "Memory",
    ),
    "/usr/bin/python: Error while finding module specification for 'sglang.launch_server' "
    "(ModuleNotFoundError: No module named 'sglang')": ("not_installed", "not installed"),
    "[2026-11-23 21:30:03] Subprocess scheduler_0 (pid=14777) crashed with exit code -15. Triggering SIGQUIT "
    "for cleanup...": ("crashed", "scheduler_0 crashed with exit code -15"),
}
SILENT = (
    "",
    "[2026-11-23 21:25:51] server_args={'model_path': '/models/k2', 'crash_dump_folder': None}",
    "[2026-11-23 21:31:31] Ignore import error when loading sglang.srt.models.x: No module named 'cutlass'",
    '[2026-11-23 21:28:15] INFO:     127.0.0.1:34794 - "POST /freeze_gc HTTP/1.1" 200 OK',
)


@pytest.mark.parametrize("line", FAILED)
def test_a_failure_is_named_and_says_what_to_do(line: str) -> None:
    sign = classify(line)
    assert sign is not None
    cause, words = FAILED[line]
    assert (sign.state, sign.cause) == ("failed", cause)
    assert words in sign.detail


@pytest.mark.parametrize("line", SILENT)
def test_most_lines_mean_nothing(line: str) -> None:
    assert classify(line) is None


def test_the_newest_of_several_progress_bars_in_a_line_counts() -> None:
    line = (
        "Multi-thread loading shards:   0% Completed | 0/62 [00:00<?, ?it/s]"
        "Multi-thread loading shards:  45% Completed | 28/62 [00:09<00:12, 2.3it/s]"
    )
    sign = classify(line)
    assert sign is not None
    assert (sign.state, sign.loaded, sign.detail) == ("starting", 0.45, "loading weights: 45%")
    older = classify("Loading safetensors checkpoint shards: 100% Completed | 2/2 [00:00<00:00,  2.30it/s]")
    assert older is not None
    assert older.loaded == 1.0


def test_ready_is_said_once_and_only_then() -> None:
    sign = classify("[2026-11-23 21:26:40] The server is fired up and ready to roll!")
    assert sign is not None
    assert (sign.state, sign.cause) == ("ready", "")


@given(st.text())
def test_any_line_can_be_classified(line: str) -> None:
    sign = classify(line)
    assert sign is None or sign.detail
    assert sign is None or sign.loaded is None or 0 <= sign.loaded <= 1
