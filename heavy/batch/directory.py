"""The directory of a batch: what is written so that any death loses nothing.

    manifest.json        what this batch asks: digest of its questions, its policy, its id
    results.jsonl        one ended run a line, appended and synced; the last line of an id counts
    logs/RUN.jsonl.zst   every record of a run, where logs are wanted; complete or not there
    .lock                held by the process that writes

A line is written whole or taken back: after a death in the middle of one, its torn end is cut off when the
directory is opened again, and the run it was about is found by its request id.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

import zstandard
from pydantic import ValidationError

from heavy.batch.results import BatchResult
from heavy.core import clock
from heavy.core.codec import dump, load
from heavy.core.draft import PolicyDraft
from heavy.core.errors import CannotWrite, ConfigError, HeavyError
from heavy.core.ids import RunId, is_run_id
from heavy.core.records import Record

MANIFEST: Final = "manifest.json"
RESULTS: Final = "results.jsonl"
LOGS: Final = "logs"
LOCK: Final = ".lock"
FORMAT: Final = 1
TAIL_BYTES: Final = 1 << 16
READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a batch asks; resuming with anything else is refused."""

    batch: str
    questions_digest: str
    questions: int
    policy: PolicyDraft
    created_ms: int
    format: int = FORMAT


def read_manifest(root: Path) -> Manifest:
    """The manifest of a batch. Raises `ConfigError` when `root` holds none that can be read."""
    file = root / MANIFEST
    try:
        manifest = load(Manifest, file.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{root} holds no batch: there is no {MANIFEST} in it.") from error
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{file} cannot be read as the manifest of a batch: {error}") from error
    if manifest.format != FORMAT:
        raise ConfigError(
            f"{file} is of format {manifest.format}, this is {FORMAT}: use the version that wrote it."
        )
    return manifest


def read_results(root: Path) -> list[BatchResult]:
    """Every line that was written, in order; a torn last one is left out. Raises `ConfigError`."""
    file = root / RESULTS
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    results = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            results.append(load(BatchResult, line))
        except ValidationError as error:
            raise ConfigError(
                f"{file}: line {number} is no result of a batch; take it out and run the batch again: its "
                "question is then found, not asked anew."
            ) from error
    return results


def read_log(root: Path, result: BatchResult) -> Iterator[Record]:
    """The records of a result's run, in order. Raises `ConfigError` when it has no log."""
    if not result.log or not is_run_id(result.run_id):
        raise ConfigError(f"{result.id}: its run was not logged; a batch logs when it is asked to.")
    file = root / LOGS / _log_name(RunId(result.run_id))
    try:
        with file.open("rb") as raw:
            for line in _lines(raw):
                yield load(Record, line)
    except (OSError, zstandard.ZstdError, ValidationError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error


def _lines(raw: IO[bytes]) -> Iterator[bytes]:
    """The lines of a compressed file. Raises `ZstdError` where it is cut off; a stream's reader would not."""
    frame, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    while chunk := raw.read(READ_BYTES):
        *lines, rest = (rest + frame.decompress(chunk)).split(b"\n")
        yield from lines
    if rest or not frame.eof:
        raise zstandard.ZstdError("it is cut off")


class BatchDirectory:
    """A batch's directory, open for writing by one process. Use it as a context manager.

    Everything here is written at once, in the caller's thread: what has returned is on disk, and no cancel
    can come between a line and its sync.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: IO[bytes] | None = None
        self._results: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Take the lock. Raises `ConfigError` when another process has it, or nothing can be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / LOCK).open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._close()
            raise ConfigError(
                f"Another process is writing to {self.root}; let it end, or stop it."
            ) from error
        except OSError as error:
            self._close()
            raise ConfigError(f"{self.root} cannot be written to: {error.strerror}.") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def begin(self, questions_digest: str, questions: int, policy: PolicyDraft) -> Manifest:
        """The manifest: a new one, or the one that is there if it is the same batch.

        Raises `ConfigError` when the directory belongs to another batch.
        """
        if not (self.root / MANIFEST).exists():
            batch = f"batch-{secrets.token_hex(8)}"
            manifest = Manifest(batch, questions_digest, questions, policy, clock.now_ms())
            write_whole(self.root / MANIFEST, dump(manifest) + b"\n")
            return manifest
        manifest = read_manifest(self.root)
        if manifest.questions_digest != questions_digest:
            raise ConfigError(
                f"{self.root} holds a batch of {manifest.questions:,} other questions than these "
                f"{questions:,}. Give the input it was begun with, or another directory."
            )
        if manifest.policy != policy:
            raise ConfigError(
                f"{self.root} holds a batch with another policy ({_difference(manifest.policy, policy)}). "
                "Give the flags it was begun with, or another directory."
            )
        return manifest

    def results(self) -> list[BatchResult]:
        """What is there; the torn end of a line that a death left is cut off first."""
        self._mend()
        return read_results(self.root)

    def append(self, result: BatchResult) -> None:
        """One line more, synced. Raises `CannotWrite` when that fails; the file is then as it was."""
        file = self._results = self._results or self._open_results()
        before = os.fstat(file.fileno()).st_size
        line = dump(result) + b"\n"
        try:
            written = file.write(line)
            if written != len(line):
                file.write(line[written:])
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), before)
            raise cannot_write(self.root / RESULTS, error) from error

    def _open_results(self) -> IO[bytes]:
        file = self.root / RESULTS
        try:
            stream = file.open("ab", buffering=0)
            _sync_directory(self.root)
        except OSError as error:
            raise cannot_write(file, error) from error
        return stream

    def log(self, run: RunId) -> LogWriter:
        """A log for a run's records. Raises `CannotWrite` when it cannot be written."""
        if not is_run_id(run):
            raise HeavyError(f"The server named a run {run!r:.80}, which is no run id: no file is called so.")
        return LogWriter(self.root, _log_name(run))

    def _mend(self) -> None:
        file = self.root / RESULTS
        if not file.exists():
            return
        with file.open("r+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - TAIL_BYTES)
                stream.seek(start)
                newline = stream.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            stream.truncate(end)

    def _close(self) -> None:
        for stream in (self._results, self._lock):
            if stream is not None:
                stream.close()
        self._results = self._lock = None


class LogWriter:
    """Records of one run, compressed, under a name that says it is not complete until `finish`."""

    def __init__(self, root: Path, name: str) -> None:
        self._file = root / LOGS / name
        self._part = self._file.with_suffix(".part")
        try:
            self._file.parent.mkdir(exist_ok=True)
            self._raw = self._part.open("wb")
        except OSError as error:
            raise cannot_write(self._part, error) from error
        self._stream = zstandard.ZstdCompressor().stream_writer(self._raw, closefd=False)

    def add(self, record: Record) -> None:
        """One record more. Raises `CannotWrite` when it cannot be written."""
        try:
            self._stream.write(dump(record) + b"\n")
        except OSError as error:
            raise cannot_write(self._part, error) from error

    def finish(self) -> str:
        """All are there: sync, and take the real name. Returns the path relative to the batch's directory."""
        try:
            self._stream.close()  # type: ignore[no-untyped-call]
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
            self._part.replace(self._file)
            _sync_directory(self._file.parent)
        except OSError as error:
            raise cannot_write(self._file, error) from error
        return f"{LOGS}/{self._file.name}"

    def discard(self) -> None:
        """Nothing to keep, or already finished. Safe to call twice."""
        with contextlib.suppress(OSError):  # what it still had to flush does not fit, and nobody wants it
            self._raw.close()
        self._part.unlink(missing_ok=True)


def write_whole(file: Path, data: bytes) -> None:
    """A file that is there whole or not at all. Raises `CannotWrite` when it cannot be written."""
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
        _sync_directory(file.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(file, error) from error


def cannot_write(file: Path, error: OSError) -> CannotWrite:
    """What to say when the disk is full, or takes nothing for another reason."""
    return CannotWrite(
        f"{file} cannot be written: {error.strerror}. Make room and run the same command again: what was "
        "answered is kept, and runs under way are found, not asked anew."
    )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _log_name(run: RunId) -> str:
    return f"{run}.jsonl.zst"


def _difference(there: PolicyDraft, given: PolicyDraft) -> str:
    names = [name for name in PolicyDraft.__slots__ if getattr(there, name) != getattr(given, name)]
    return ", ".join(f"{name} was {getattr(there, name)}, is {getattr(given, name)}" for name in names)
