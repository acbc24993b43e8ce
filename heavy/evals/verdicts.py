"""Verdicts that cost something, kept on disk: a judge's, and those of the symbolic library.

One file of JSON lines, only ever appended to. What is in it is never asked again, so a report made from it is
the same every time; a judge's failures stay in it beside the verdicts, and count for nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from heavy.aggregation.equivalence import Equivalence, normalise, plainly_same
from heavy.batch.directory import cannot_write


class Verdicts:
    """The verdicts of one evaluation. Use it as a context manager; one process writes at a time.

    Whatever writes raises `HeavyError` when the disk takes nothing; what was kept before is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._right: dict[str, bool] = {}
        self._failures: Counter[str] = Counter()

    def __enter__(self) -> Self:
        good = 0
        try:
            self._file = self._path.open("ab+")
            self._file.seek(0)
            for line in self._file:
                if not self._take(line):
                    break
                good += len(line)
            self._file.truncate(good)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # told when it was written
                self._file.close()

    def get(self, key: str) -> bool | None:
        """The verdict, where there is one."""
        return self._right.get(key)

    def failures(self, key: str) -> int:
        """How often a verdict was sought in vain."""
        return self._failures[key]

    def put(self, key: str, right: bool, **told: Any) -> None:
        """Keep a verdict, and what there is to tell of it. It is on disk when this returns."""
        self._right[key] = right
        self._append({"key": key, "right": right, **told})

    def put_failure(self, key: str, reason: str) -> None:
        """Keep that no verdict was found, and why."""
        self._failures[key] += 1
        self._append({"key": key, "failed": reason})

    def _append(self, entry: dict[str, Any]) -> None:
        assert self._file is not None, "the verdicts are not open"
        try:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def _take(self, line: bytes) -> bool:
        """Whether a line is whole: the last one may have been cut off when a process died."""
        try:
            entry = json.loads(line)
        except ValueError:
            return False
        if not line.endswith(b"\n"):
            return False
        if "right" in entry:
            self._right[entry["key"]] = entry["right"]
        else:
            self._failures[entry["key"]] += 1
        return True


def key_of(*parts: str) -> str:
    """A key that depends on every part."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class KeptEquivalence:
    """Whether two answers are equivalent, with the mathematics asked once and kept."""

    def __init__(self, equivalence: Equivalence, verdicts: Verdicts) -> None:
        self._equivalence = equivalence
        self._verdicts = verdicts

    async def __call__(self, left: str, right: str) -> bool:
        """As `Equivalence.same`."""
        plain = plainly_same(left, right)
        if plain is not None:
            return plain
        key = key_of("same", *sorted((normalise(left), normalise(right))))
        kept = self._verdicts.get(key)
        if kept is None:
            kept = await self._equivalence.same(left, right)
            self._verdicts.put(key, kept, by="mathematics", left=left, to=right)
        return kept
