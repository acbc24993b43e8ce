"""Reading answers: what a candidate's short answer is, and what a reflective pass has decided."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHORT_ANSWER_CHARS_MAX = 400
ABSTAIN = "abstain"

_ANSWER_LINE = re.compile(
    r"^[\s>#*_`-]*(?:(?:final|exact|short|the)\s+)?answer(?:\s+is)?[\s*_`]*[:=][\s*_`]*(.+?)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_CITES_LINE = re.compile(r"^[\s>*_-]*(?:cites|citations)[\s*_]*:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_DISSENT_LINE = re.compile(r"^[\s>*_-]*dissent[\s*_]*:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_CITED = re.compile(r"\b([A-H])\b(?:\s*\(?\s*step\s+(\d+)\s*\)?)?")


def short_answer(text: str) -> str:
    r"""The short answer in a model's visible text.

    The last `Answer: X` line, else the last `\boxed{X}`, else the last non-empty line. A box inside the
    line is opened. Never longer than `SHORT_ANSWER_CHARS_MAX` characters.
    """
    last_line = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return _bare(marked_answer(text) or last_line)


def marked_answer(text: str) -> str:
    r"""The last `Answer: X` line, else the last `\boxed{X}`; empty where the text marks no answer."""
    lines = _ANSWER_LINE.findall(text)
    return _bare(lines[-1] if lines else last_boxed(text))


def _bare(found: str) -> str:
    return (last_boxed(found) or found).strip().strip("*_` ").strip()[:SHORT_ANSWER_CHARS_MAX]


def last_boxed(text: str) -> str:
    r"""The inside of the last complete `\boxed{...}`, braces balanced; empty when there is none."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for at in range(start + 6, len(text)):
            depth += (text[at] == "{") - (text[at] == "}")
            if depth == 0:
                return text[start + 7 : at]
        start = text.rfind("\\boxed{", 0, start)
    return ""


@dataclass(frozen=True, slots=True)
class Cited:
    """A candidate named in support, by its label, and a step of it where one was named."""

    label: str
    step: int | None


@dataclass(frozen=True, slots=True)
class Reflection:
    """What an aggregator wrote, read."""

    answer: str
    short: str
    cites: tuple[Cited, ...]
    dissent: str
    abstained: bool


def read_reflection(text: str, labels: frozenset[str]) -> Reflection:
    """Read an aggregator's visible text; labels that are not candidates are left out.

    The lines of citations and dissent are no part of the answer: they name candidates by labels that only the
    aggregator knows, and what they say stands in `cites` and `dissent`.
    """
    short = short_answer(text)
    cites = _CITES_LINE.findall(text)
    dissents = _DISSENT_LINE.findall(text)
    return Reflection(
        answer=_DISSENT_LINE.sub("", _CITES_LINE.sub("", text)).strip(),
        short=short,
        cites=_read_cites(cites[-1], labels) if cites else (),
        dissent=dissents[-1] if dissents else "",
        abstained=short.casefold().strip(" .") == ABSTAIN,
    )


def _read_cites(line: str, labels: frozenset[str]) -> tuple[Cited, ...]:
    found: dict[str, Cited] = {}
    for label, step in _CITED.findall(line):
        if label in labels and label not in found:
            found[label] = Cited(label, int(step[:6]) if step else None)
    return tuple(found.values())
