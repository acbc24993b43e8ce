"""Reading a whole log, page by page, so that runs of any length fit in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from heavy.core.ids import RunId
from heavy.core.records import Record
from heavy.store.api import RunLog

PAGE_RECORDS: Final = 500
PAGES_MAX: Final = 4_096
"""Two million records; no run has more."""


async def records_of(log: RunLog, run: RunId) -> AsyncGenerator[Record]:
    """All records of a run so far, in order. Raises `NotFound`, `StoreUnavailable`."""
    after = 0
    for _ in range(PAGES_MAX):
        page = await log.read(run, after=after, limit=PAGE_RECORDS)
        for record in page:
            yield record
        if len(page) < PAGE_RECORDS:
            return
        after = page[-1].number
