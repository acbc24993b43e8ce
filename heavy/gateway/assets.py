"""The web page's own files, from the wheel: HTML, style sheets, ES modules. Nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

SCREENS: Final = ("/", "/runs", "/runs/{run}", "/spend", "/fleet")
"""The addresses a person may type or share; the page itself finds out which screen they mean."""
TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
DEPTH_MAX: Final = 3

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer. Trusted Types take away the ways in which a script could turn text into code."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, read once."""

    body: bytes
    content_type: str
    etag: str


class Page:
    """Serves the files, each with a tag by which a browser knows that it has it already."""

    def __init__(self) -> None:
        self._assets = dict(_read(resources.files("heavy.gateway").joinpath("page"), "", DEPTH_MAX))

    def routes(self) -> list[web.RouteDef]:
        """The screens, and the files they are made of."""
        return [*(web.get(path, self._screen) for path in SCREENS), web.get("/page/{path:.+}", self._file)]

    async def _screen(self, request: web.Request) -> web.Response:
        return self._serve(request, "index.html")

    async def _file(self, request: web.Request) -> web.Response:
        return self._serve(request, request.match_info["path"])

    def _serve(self, request: web.Request, path: str) -> web.Response:
        asset = self._assets.get(path)
        if asset is None:
            raise web.HTTPNotFound(text=f"There is no {path!r:.80} here.\n")
        headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == asset.etag:
            return web.Response(status=304, headers=headers)
        response = web.Response(
            body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers
        )
        response.enable_compression()
        return response


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Put `HEADERS` on an answer about to be sent."""
    response.headers.update(HEADERS)


def _read(directory: Traversable, prefix: str, depth: int) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for entry in directory.iterdir():
        if entry.is_dir() and depth:
            found += _read(entry, f"{prefix}{entry.name}/", depth - 1)
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in TYPES:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found.append((prefix + entry.name, Asset(body, TYPES[suffix], etag)))
    return found
