"""Files of a run: those its caller gave and those its tools made, by their content, kept with the run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from heavy.core.ids import RunId

FILES_MAX: Final = 16
"""How many files a request may bring."""
FILES_BYTES_MAX: Final = 8 << 20
"""How large they may be together: they travel in one message and stand in every arm's sandbox."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class File:
    """A file's name (see `is_file_name`) and its bytes."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileRef:
    """Which file: its name, the SHA-256 of its content in hex, and its size.

    An empty digest says that the content was not kept: the run had no room for it.
    """

    name: str
    digest: str
    size_bytes: int


class FileReader(Protocol):
    """Where the files of runs are read."""

    async def read(self, run: RunId, digest: str) -> bytes:
        """The content with that digest. Raises `NotFound`, `StoreUnavailable`."""
        ...


def digest_of(data: bytes) -> str:
    """The address of a content."""
    return hashlib.sha256(data).hexdigest()


def ref_of(file: File) -> FileRef:
    """What stands for a file in specs and records."""
    return FileRef(file.name, digest_of(file.data), len(file.data))


def is_digest(text: str) -> bool:
    """Whether it can be the digest of a content."""
    return _DIGEST.fullmatch(text) is not None


def is_file_name(name: str) -> bool:
    """Whether it is a plain name of 1 to 100 characters: no path, nothing hidden, no blanks."""
    return _NAME.fullmatch(name) is not None


def listed(files: Sequence[FileRef]) -> str:
    """Files as people and models read of them."""
    return ", ".join(f"{file.name} ({file.size_bytes:,} bytes)" for file in files)
