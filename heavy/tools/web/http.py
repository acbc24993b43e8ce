"""One GET: every hop checked, polite, bounded in bytes as sent and as unpacked, and in time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from heavy.tools.web.guard import AddressRefused, CheckedResolver, Refused, Rules
from heavy.tools.web.politeness import Politeness

CONNECT_S: Final = 10.0
SILENCE_S: Final = 15.0
"""How long a server may send nothing."""
CHUNK: Final = 1 << 16
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({400, 404, 405, 410, 414, 451})
"""Statuses that another attempt would meet again."""


class FetchFailed(Exception):
    """A page could not be had. The message is for the model.

    `lasting`: another attempt would fail alike. `status`: what the server answered, 0 where it did not.
    """

    def __init__(self, message: str, *, lasting: bool = False, status: int = 0) -> None:
        super().__init__(message)
        self.lasting = lasting
        self.status = status


@dataclass(frozen=True, slots=True)
class Document:
    """What a server sent. `cut`: it went on beyond the limit. `charset`: as the server says, or empty."""

    url: URL
    status: int
    kind: str
    charset: str
    body: bytes
    cut: bool


@dataclass(frozen=True, slots=True)
class WebLimits:
    """Bounds of one visitor."""

    bytes_max: int = 8 << 20
    redirects_max: int = 5
    at_once_max: int = 16
    per_host_at_once_max: int = 2
    per_host_delay_s: float = 0.2
    user_agent: str = "heavy-web-fetch/0.1"


class Web:
    """Visits public servers. Made inside the event loop; `close` it."""

    def __init__(self, rules: Rules, limits: WebLimits, resolver: AbstractResolver | None = None) -> None:
        self.rules = rules
        self.limits = limits
        self._polite = Politeness(limits.per_host_at_once_max, limits.per_host_delay_s)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=CheckedResolver(rules, resolver), use_dns_cache=False, limit=limits.at_once_max
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
            headers={
                "User-Agent": limits.user_agent,
                "Accept": "text/html,application/xhtml+xml,application/pdf;q=0.9,text/*;q=0.8,*/*;q=0.5",
                "Accept-Encoding": "gzip, deflate",
            },
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        await self._session.close()

    async def get(
        self, url: URL, *, bytes_max: int | None = None, delay_s: float | None = None
    ) -> Document | URL:
        """One hop to a URL that `rules.check` gave: a document, or the (checked) URL it redirects to.

        Raises `Refused`, `FetchFailed`.
        """
        try:
            async with (
                self._polite.visit(url.raw_host or "", delay_s),
                self._session.get(url, allow_redirects=False) as response,
            ):
                if response.status in _REDIRECTS and (target := response.headers.get("Location")):
                    return self._target(url, target)
                if response.status >= 400:
                    said = f"{url} answered {response.status}{_phrase(response.status)}."
                    raise FetchFailed(said, lasting=response.status in _GONE, status=response.status)
                body, cut = await _body(response, bytes_max or self.limits.bytes_max)
                charset = response.charset or ""
                return Document(url, response.status, response.content_type.lower(), charset, body, cut)
        except (aiohttp.ClientError, OSError, ValueError, zlib.error) as error:
            raise _translated(url, error) from error

    def _target(self, url: URL, target: str) -> URL:
        try:
            return self.rules.check(str(url.join(URL(target))))
        except ValueError as error:
            raise FetchFailed(f"{url} redirects to what is no URL.", lasting=True) from error
        except Refused as refusal:
            raise Refused(f"{url} redirects to where this server does not go: {refusal}") from refusal


async def _body(response: aiohttp.ClientResponse, bytes_max: int) -> tuple[bytes, bool]:
    """The unpacked body, up to `bytes_max` both as sent and as unpacked, and whether there was more."""
    unpacked, sent = bytearray(), 0
    unpack = _Unpacking(response.headers.get("Content-Encoding", ""))
    async for chunk in response.content.iter_chunked(CHUNK):
        sent += len(chunk)
        for piece in unpack.pieces(chunk, bytes_max + 1 - len(unpacked)):
            unpacked += piece
        if sent > bytes_max or len(unpacked) > bytes_max:
            response.close()  # the rest is not wanted, nor is the connection
            return bytes(unpacked[:bytes_max]), True
    return bytes(unpacked), False


class _Unpacking:
    """Undoes one content encoding, never by more bytes than there is room for."""

    def __init__(self, encoding: str) -> None:
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise FetchFailed(
                f"The document is packed as {name!r:.40}, which was not asked for.", lasting=True
            )
        self._plain = name in ("", "identity")
        self._deflate = name == "deflate"
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def pieces(self, chunk: bytes, room: int) -> Iterator[bytes]:
        """The unpacked bytes of a chunk, at most `room`."""
        if self._plain:
            yield chunk[: max(0, room)]
            return
        try:
            yield self._zlib.decompress(chunk, max(1, room))
        except zlib.error:
            if not self._deflate:
                raise
            self._deflate = False  # some servers send deflate without its zlib wrapping
            self._zlib = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            yield self._zlib.decompress(chunk, max(1, room))


def _translated(url: URL, error: BaseException) -> Exception:
    """A foreign error as one of ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return Refused(f"{cause}.")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, TimeoutError):
        return FetchFailed(f"{url} did not answer in time.")
    if isinstance(error, zlib.error):
        return FetchFailed(f"{url} sent a body that cannot be unpacked.")
    return FetchFailed(f"{url} could not be fetched: {type(error).__name__}: {error}")


def _phrase(status: int) -> str:
    """What a status means; never what the server wrote beside it, which would be its words unmarked."""
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
