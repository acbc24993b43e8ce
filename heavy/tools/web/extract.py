"""From a document to readable text, in a sandbox of its own that is thrown away afterwards.

The next sandbox is started ahead, with its libraries imported, so that a page does not wait for it.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from heavy.tools.sandbox import jail
from heavy.tools.sandbox.jail import SandboxLimits
from heavy.tools.sandbox.sandbox import Ending, Sandbox
from heavy.tools.sandbox.session import Session, SessionLost
from heavy.tools.web.http import Document, FetchFailed

LIBRARIES: Final = ("trafilatura", "lxml_html_clean", "pypdf")
CPU_S: Final = 20
MEMORY_BYTES: Final = 1 << 30
AT_ONCE_MAX: Final = 4
WARM_UP_S: Final = 60.0
_SOURCE: Final = (Path(__file__).parent / "extract_inside.py").read_text(encoding="utf-8")
_WARM_UP: Final = _SOURCE + "\nimport trafilatura\n"
_HTML_KINDS: Final = frozenset({"text/html", "application/xhtml+xml"})
_TEXT_KINDS: Final = frozenset(
    {
        "application/json",
        "application/ld+json",
        "application/xml",
        "application/javascript",
        "application/x-ndjson",
        "application/yaml",
        "application/toml",
    }
)


@dataclass(frozen=True, slots=True)
class Readable:
    """The text of a document. `left_out` says what of it is missing; empty when nothing is."""

    title: str
    text: str
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class ExtractLimits:
    """How much text is kept, of how many pages of a PDF."""

    text_chars_max: int = 2_000_000
    pdf_pages_max: int = 300


class Extractor:
    """Turns documents into text, a bounded number at once. `close` it."""

    def __init__(self, limits: ExtractLimits, bytes_max: int) -> None:
        self._limits = limits
        self._sandbox_limits = SandboxLimits(
            cpu_s=CPU_S,
            session_cpu_s=2 * CPU_S,
            memory_bytes=MEMORY_BYTES,
            file_bytes=max(bytes_max, 6 * limits.text_chars_max) + (1 << 20),
            tmp_bytes=bytes_max + 6 * limits.text_chars_max + (4 << 20),
        )
        self._jail = jail.build(self._sandbox_limits, session=True, libraries=LIBRARIES)
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self._warm: asyncio.Task[Session] | None = None

    async def probe(self) -> None:
        """Raises `SandboxUnavailable` where documents cannot be confined."""
        await Sandbox(self._sandbox_limits).probe()

    async def read(self, document: Document, timeout_s: float) -> Readable:
        """The document's text. Raises `FetchFailed` for one that has none."""
        kind = _kind(document)
        if kind == "text":
            return self._plain(document)
        if kind == "pdf" and document.cut:
            raise FetchFailed(
                f"{document.url} is a PDF of more than {len(document.body)} bytes.", lasting=True
            )
        async with self._slots:
            try:
                async with asyncio.timeout(timeout_s):
                    found = await self._inside(document, kind, timeout_s)
            except TimeoutError as error:
                raise FetchFailed(f"{document.url} took too long to be read.", lasting=True) from error
        if problem := found.get("problem"):
            raise FetchFailed(f"{document.url} cannot be read: {problem}.", lasting=True)
        cut = f"what follows its first {len(document.body)} bytes" if document.cut else ""
        missing = " and ".join(filter(None, (str(found.get("left_out", "")), cut)))
        return Readable(str(found.get("title", "")), str(found.get("text", "")), missing)

    async def close(self) -> None:
        """End the sandbox that waits; safe to call twice."""
        warm, self._warm = self._warm, None
        if warm is not None:
            warm.cancel()
            for session in await asyncio.gather(warm, return_exceptions=True):
                if isinstance(session, Session):
                    await session.end()

    def warm_up(self) -> None:
        """Start the sandbox for the next document now."""
        if self._warm is None:
            self._warm = asyncio.create_task(self._open())

    async def _inside(self, document: Document, kind: str, timeout_s: float) -> dict[str, Any]:
        asked = {
            "kind": kind,
            "charset": _known(document.charset),
            "url": str(document.url),
            "text_chars_max": self._limits.text_chars_max,
            "pdf_pages_max": self._limits.pdf_pages_max,
        }
        try:
            session = await self._session()
        except SessionLost as error:
            raise FetchFailed(f"{document.url} could not be read: {error}.") from error
        try:
            await session.put("document", document.body)
            await session.put("request.json", json.dumps(asked).encode())
            run = await session.run("extract()", timeout_s=timeout_s)
            if session.lost or run.execution.ending is not Ending.FINISHED:
                ending = session.lost or run.execution.ending.value
                return {"problem": f"reading it was stopped ({ending})"}
            data, problem = await session.get("result.json", self._sandbox_limits.file_bytes)
            return {"problem": problem} if problem else _result(data)
        except SessionLost as error:
            return {"problem": str(error)}
        finally:
            await session.end()

    async def _session(self) -> Session:
        """The sandbox that was started ahead, and another one on its way for whoever comes next."""
        self.warm_up()
        taken, self._warm = self._warm, None
        assert taken is not None
        try:
            session = await taken
        except asyncio.CancelledError:
            taken.cancel()
            raise
        self.warm_up()
        return session

    async def _open(self) -> Session:
        session = await Session.open(self._jail, self._sandbox_limits)
        try:
            run = await session.run(_WARM_UP, timeout_s=WARM_UP_S)
            if run.execution.ending is not Ending.FINISHED:
                raise SessionLost(f"the reader does not start: {run.execution.stderr[-300:]}")
        except BaseException:
            await session.end()
            raise
        return session

    def _plain(self, document: Document) -> Readable:
        text = _decoded(document)
        most = self._limits.text_chars_max
        missing = f"what follows its first {len(document.body)} bytes" if document.cut else ""
        if len(text) > most:
            missing = f"{len(text) - most} characters at the end"
        return Readable("", text[:most], missing)


def _kind(document: Document) -> str:
    """`html`, `pdf` or `text`. Raises `FetchFailed` for everything else."""
    if document.body[:1024].lstrip().startswith(b"%PDF-") or document.kind == "application/pdf":
        return "pdf"
    if document.kind in _HTML_KINDS:
        return "html"
    if document.kind.startswith("text/") or document.kind in _TEXT_KINDS or document.kind.endswith("+json"):
        return "text"
    if document.kind == "application/octet-stream" and b"\0" not in document.body[:4096]:
        return (
            "html"
            if document.body[:1024].lstrip().lower().startswith((b"<!doctype html", b"<html"))
            else "text"
        )
    raise FetchFailed(f"{document.url} is {document.kind}, which has no text to read.", lasting=True)


def _known(charset: str) -> str:
    try:
        return codecs.lookup(charset).name if charset else ""
    except LookupError:
        return ""


def _decoded(document: Document) -> str:
    for charset in filter(None, ("utf-8-sig", _known(document.charset))):
        try:
            decoder = codecs.getincrementaldecoder(charset)()
            return decoder.decode(document.body, final=not document.cut)
        except (UnicodeDecodeError, LookupError):
            continue
    return document.body.decode("cp1252", "replace")


def _result(data: bytes) -> dict[str, Any]:
    """What the sandbox wrote, which a hostile document may have forged: a mapping, or a problem."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {"problem": "its reader failed"}
    return found if isinstance(found, dict) else {"problem": "its reader failed"}
