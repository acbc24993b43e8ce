"""The one answer format: `Answer: X` after the thinking, `Cites: C, F` on the next line of an aggregation."""

from __future__ import annotations

import re

_ANSWER = re.compile(r"Answer:[ \t]*(-?[\w./]+)")
_CITES = re.compile(r"Cites:[ \t]*([A-H](?:,[ \t]*[A-H])*)")


def extract(content: str) -> str | None:
    """The last answer given in visible content, or None."""
    found = _ANSWER.findall(content)
    return found[-1] if found else None


def cited(content: str) -> tuple[str, ...]:
    """The labels an aggregating answer cites, in its order; none when it cites nothing."""
    found = _CITES.search(content)
    return tuple(label.strip() for label in found.group(1).split(",")) if found else ()


def visible(text: str) -> str:
    """What follows the thinking: everything after the last `</think>`."""
    return text.rpartition("</think>")[2].replace("<|im_end|>", "").strip()


def thinking(text: str) -> str:
    """Everything up to `</think>`, a leading `<think>` being optional; all of it where it never ended."""
    return text.partition("</think>")[0].removeprefix("<think>")


def is_right(answer: str | None, truth: int) -> bool:
    """Whether an extracted answer is the true whole number."""
    return answer is not None and answer.strip() == str(truth)
