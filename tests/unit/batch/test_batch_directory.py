from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heavy.batch.directory import BatchDirectory, read_log, read_results
from heavy.batch.results import BatchResult, ResultState, latest
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError, HeavyError
from heavy.core.ids import new_run_id
from heavy.core.ledger import Ledger, Spend
from heavy.core.records import Record

from tests_support.entries import note

LEDGER = Ledger(Spend(tokens_output=5, cost_usd=0.01), {"arm-0": Spend(tokens_output=5, cost_usd=0.01)})


def result(name: str, attempt: int = 1, **changes: object) -> BatchResult:
    values = {"request_id": f"r-{name}", "run_id": "", "state": ResultState.COMPLETED, "ledger": LEDGER}
    return BatchResult(name, attempt, **{**values, **changes})  # type: ignore[arg-type]


def test_what_was_appended_is_read_back_and_the_last_line_of_an_id_counts(tmp_path: Path) -> None:
    with BatchDirectory(tmp_path) as directory:
        failed = result("a", state=ResultState.FAILED, metadata={"gold": [1, "é"]})
        for one in (failed, result("b"), result("a", 2)):
            directory.append(one)
    assert read_results(tmp_path) == [failed, result("b"), result("a", 2)]
    assert latest(read_results(tmp_path))["a"].attempt == 2


@pytest.mark.parametrize("torn", [b"x", b'{"id": "c", "att', b"\xff" * 100_000])
def test_the_torn_end_of_a_line_is_cut_off_and_what_follows_is_whole(tmp_path: Path, torn: bytes) -> None:
    with BatchDirectory(tmp_path) as directory:
        directory.append(result("a"))
    with (tmp_path / "results.jsonl").open("ab") as stream:
        stream.write(torn)
    with BatchDirectory(tmp_path) as directory:
        assert [one.id for one in directory.results()] == ["a"]
        directory.append(result("b"))
    assert [one.id for one in read_results(tmp_path)] == ["a", "b"]


def test_a_line_that_is_no_result_is_named(tmp_path: Path) -> None:
    with BatchDirectory(tmp_path) as directory:
        directory.append(result("a"))
    with (tmp_path / "results.jsonl").open("ab") as stream:
        stream.write(b"{}\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_results(tmp_path)


def test_a_directory_belongs_to_one_batch(tmp_path: Path) -> None:
    policy = PolicyDraft(width=4)
    with BatchDirectory(tmp_path) as directory:
        begun = directory.begin("digest", 3, policy)
    with BatchDirectory(tmp_path) as directory:
        assert directory.begin("digest", 3, policy) == begun
        with pytest.raises(ConfigError, match="3 other questions"):
            directory.begin("another", 4, policy)
        with pytest.raises(ConfigError, match="width was 4, is 8"):
            directory.begin("digest", 3, PolicyDraft(width=8))


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with (
        BatchDirectory(tmp_path),
        pytest.raises(ConfigError, match="Another process"),
        BatchDirectory(tmp_path),
    ):
        pass
    with BatchDirectory(tmp_path):
        pass


def test_a_log_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    run = new_run_id()
    records = [Record(n, e.trajectory, e.step, e.at_ms, e.body) for n, e in enumerate([note("ä")] * 500, 1)]
    with BatchDirectory(tmp_path) as directory:
        log = directory.log(run)
        for record in records:
            log.add(record)
        assert not list((tmp_path / "logs").glob("*.zst"))
        name = log.finish()
        log.discard()
        directory.log(new_run_id()).discard()
    assert [file.name for file in (tmp_path / "logs").iterdir()] == [Path(name).name]
    assert list(read_log(tmp_path, result("a", run_id=run, log=name))) == records
    with pytest.raises(ConfigError, match="not logged"):
        list(read_log(tmp_path, result("b")))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="cut off"):
        list(read_log(tmp_path, result("a", run_id=run, log=name)))


def test_a_name_that_is_no_run_id_becomes_no_file(tmp_path: Path) -> None:
    with BatchDirectory(tmp_path) as directory, pytest.raises(HeavyError, match="no run id"):
        directory.log("../../etc/passwd")  # type: ignore[arg-type]


FILLS = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_batch_directory import result
from heavy.batch.directory import BatchDirectory
from heavy.core.errors import HeavyError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
with BatchDirectory(Path(sys.argv[1])) as directory:
    number = 0
    try:
        while True:
            directory.append(result(f"q{number}"))
            number += 1
    except HeavyError as error:
        print(number, error)
"""


def test_a_disk_that_fills_takes_the_last_line_back_and_says_so(tmp_path: Path) -> None:
    """The kernel's limit on file sizes stands for the disk: a write that does not fit is cut short, too."""
    here = str(Path(__file__).parent)
    support = str(Path(__file__).parents[2] / "support")
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(tmp_path), here, support],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    number, said = done.stdout.split(maxsplit=1)
    assert "run the same command again" in said
    assert [one.id for one in read_results(tmp_path)] == [f"q{n}" for n in range(int(number))]
    assert (tmp_path / "results.jsonl").read_bytes().endswith(b"\n")
