"""Text that others wrote, made safe to print: nothing in it can move a cursor or set a title."""

from __future__ import annotations

from typing import Final

_KEPT: Final = "\n\t"
_TABLE: Final = {code: "�" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _KEPT} | {
    0x0D: None
}


def plain(text: str) -> str:
    """`text` with its control characters shown as �; carriage returns are left out."""
    return text.translate(_TABLE)


def on_one_line(text: str, chars_max: int) -> str:
    """`text` on one line, at most so long."""
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= chars_max else flat[: chars_max - 1] + "…"


def clipped(text: str, chars_max: int | None) -> str:
    """The beginning of a text, and how much more there is; all of it without a maximum."""
    safe = plain(text)
    if chars_max is None or len(safe) <= chars_max:
        return safe
    return f"{safe[:chars_max]} … {len(safe) - chars_max:,} more characters (--full)"
