"""What runs inside the sandbox to turn a document into text. Read as text; imports nothing of Heavy.

The document is hostile until shown otherwise: it is parsed only here, where there is nothing to steal and
nowhere to send it, within the sandbox's memory and CPU seconds.
"""

from __future__ import annotations

import json
import re
from typing import Any

FILE = "document"
RESULT = "result.json"
TITLE_CHARS_MAX = 300


def extract() -> None:
    """Read `request.json` and the document; write `result.json` with title, text, and what was left out."""
    with open("request.json", encoding="utf-8") as request:
        asked = json.load(request)
    with open(FILE, "rb") as document:
        data = document.read()
    try:
        found = pdf(data, asked) if asked["kind"] == "pdf" else html(data, asked)
    except MemoryError:
        found = {"problem": "it needs too much memory"}
    except Exception as error:
        found = {"problem": f"{type(error).__name__}: {error}"[:500]}
    text = found.get("text", "")
    if len(text) > asked["text_chars_max"]:
        found["text"] = text[: asked["text_chars_max"]]
        found["left_out"] = f"{len(text) - asked['text_chars_max']} characters at the end"
    with open(RESULT, "w", encoding="utf-8", errors="backslashreplace") as result:
        json.dump(found, result)


def html(data: bytes, asked: dict[str, Any]) -> dict[str, str]:
    """The readable part of a page as Markdown; all of its text where no part is readable alone."""
    import trafilatura
    from trafilatura.utils import load_html

    page = decoded(data, asked["charset"])
    tree = load_html(page)
    if tree is None:
        return {"problem": "it is no HTML that can be read"}
    title = " ".join((tree.findtext(".//title") or "").split())[:TITLE_CHARS_MAX]
    text = trafilatura.extract(
        page, url=asked["url"], output_format="markdown", include_links=True, include_comments=False
    )
    return {"title": title, "text": text or trafilatura.html2txt(page) or ""}


def decoded(data: bytes, charset: str) -> Any:
    """Text where it is UTF-8, which nothing else looks like, or what the server says; else the bytes.

    Bytes are read by what the page itself says, or what they suggest.
    """
    for name in filter(None, ("utf-8", charset)):
        try:
            return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return data


def pdf(data: bytes, asked: dict[str, Any]) -> dict[str, str]:
    """The text of a PDF, page by page."""
    import io
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        return {"problem": "it is encrypted"}
    parts, broken = [], 0
    pages = len(reader.pages)
    for number in range(min(pages, asked["pdf_pages_max"])):
        try:
            parts.append(f"[page {number + 1}]\n{reader.pages[number].extract_text().strip()}")
        except MemoryError:
            raise
        except Exception:
            broken += 1
    title = str(reader.metadata.title or "")[:TITLE_CHARS_MAX] if reader.metadata else ""
    missing = [f"{pages - asked['pdf_pages_max']} pages at the end"] if pages > asked["pdf_pages_max"] else []
    missing += [f"{broken} pages that cannot be read"] if broken else []
    text = re.sub(r"[ \t]+\n", "\n", "\n\n".join(parts))
    return {"title": title, "text": text, "left_out": " and ".join(missing)}
