"""Files of runs, on Redis: `heavy.store.api.Files`. One hash a run, by content; it goes when the run goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from heavy.core.errors import NotFound
from heavy.core.files import File, FileRef, ref_of
from heavy.core.ids import RunId
from heavy.store import scripts
from heavy.store.keys import RunKeys
from heavy.store.link import Link
from heavy.store.refusals import not_found


class RedisFiles:
    """What is kept of a run beside its log, at most `bytes_max` for each run."""

    def __init__(self, link: Link, bytes_max: int) -> None:
        self._link = link
        self._bytes_max = bytes_max

    async def keep(self, run: RunId, files: Sequence[File]) -> tuple[FileRef, ...]:
        """Keep files with a run; what there is no room for has no digest. Raises `NotFound`."""
        return tuple([await self._keep(run, file) for file in files])

    async def _keep(self, run: RunId, file: File) -> FileRef:
        keys, ref = RunKeys(run), ref_of(file)
        answer, *_ = await self._link.script(
            f"keep a file of {run}",
            scripts.KEEP_FILE,
            [keys.run, keys.files],
            [self._bytes_max, ref.digest, file.data],
        )
        if answer == b"gone":
            raise not_found(run)
        return ref if answer == b"ok" else replace(ref, digest="")

    async def read(self, run: RunId, digest: str) -> bytes:
        """The content with that digest. Raises `NotFound`."""
        key = RunKeys(run).files

        async def read(client: Any) -> bytes | None:
            found: bytes | None = await client.hget(key, digest)
            return found

        found = await self._link.call(f"read a file of {run}", read)
        if found is None:
            raise NotFound(f"{run} has no file {digest[:80]!r}.")
        return found
