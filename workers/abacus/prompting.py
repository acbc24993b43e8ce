"""Renders the aggregation prompt from its template: prompts are data, this is only the door to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jinja2

TEMPLATE = Path(__file__).parent / "prompts" / "aggregate.txt.jinja"
LABELS = "ABCDEFGH"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One arm as the aggregator sees it: an anonymous label, its answer (or None), its thinking."""

    label: str
    short_answer: str | None
    reasoning: str
    outcome: str = "completed"


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE.read_text())


def aggregate_prompt(question: str, candidates: Sequence[Candidate]) -> str:
    """The one user message an aggregator gets."""
    return _template().render(question=question, candidates=list(candidates))


def rows(candidates: Sequence[Candidate]) -> list[tuple[str, list[str]]]:
    """Answers with the labels that gave them, in the prompt's order: most labels first, then by answer."""
    grouped: dict[str, list[str]] = {}
    for candidate in candidates:
        if candidate.short_answer:
            grouped.setdefault(candidate.short_answer, []).append(candidate.label)
    return sorted(grouped.items(), key=lambda row: (-len(row[1]), row[0].lower()))
