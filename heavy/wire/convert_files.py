"""Files and what stands for them, to protobuf and back."""

from __future__ import annotations

from collections.abc import Iterable

from heavy.core.errors import FieldViolation, InvalidRequest
from heavy.core.files import File, FileRef
from heavy.v1 import run_pb2 as pb


def files_to_proto(files: Iterable[File]) -> list[pb.File]:
    """Files to send. Raises `InvalidRequest` for a name that is not valid Unicode."""
    converted = []
    for index, file in enumerate(files):
        try:
            converted.append(pb.File(name=file.name, content=file.data))
        except (ValueError, TypeError) as error:
            raise InvalidRequest((FieldViolation(f"files[{index}]", f"cannot be sent: {error}"),)) from error
    return converted


def files_from_proto(files: Iterable[pb.File]) -> tuple[File, ...]:
    """Files as they came."""
    return tuple(File(file.name, file.content) for file in files)


def file_refs_to_proto(refs: Iterable[FileRef]) -> list[pb.FileRef]:
    """What stands for files."""
    return [pb.FileRef(name=ref.name, sha256=ref.digest, size_bytes=ref.size_bytes) for ref in refs]


def file_refs_from_proto(refs: Iterable[pb.FileRef]) -> tuple[FileRef, ...]:
    """What stands for files."""
    return tuple(FileRef(ref.name, ref.sha256, ref.size_bytes) for ref in refs)
