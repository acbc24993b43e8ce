"""What a model's text answers, and how sure it says it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from heavy.aggregation.answers import marked_answer, short_answer
from heavy.aggregation.equivalence import as_number, normalise
from heavy.evals.questions import LETTERS, GraderName, Question

_CONFIDENCE: Final = re.compile(
    r"^[\s>#*_`-]*confidence(?:\s+(?:score|level))?[\s*_`]*[:=][\s*_`$]*(\d{1,3}(?:\.\d{1,6})?)\s*((?:\\?%)?)",
    re.IGNORECASE | re.MULTILINE,
)
_LETTER: Final = re.compile(
    r"^(?:(?:option|choice|answer)\s+)?[\[({*_`\s]*([A-Za-z])[\])}*_`\s]*(?:[.):,\-–—]\s*(?P<rest>.*))?$",
    re.IGNORECASE | re.DOTALL,
)
_MORE_LETTERS: Final = re.compile(r"[A-Za-z]\W*$|[A-Z]\s*(?:[,;&/]|and\b|or\b)")
"""How what follows a letter begins when it is more letters: "A, B", "A, B and C"."""
_LATEX_TEXT: Final = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}")
_AMOUNT: Final = re.compile(
    r"[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d{1,60})?|\d{1,60}(?:\.\d{0,60})?|\.\d{1,60})(?:e[+-]?\d{1,3})?"
    r"(?:\s*/\s*\d{1,60}(?![.\d]))?",
    re.IGNORECASE,
)
_TIMES_TEN: Final = re.compile(
    r"\s*(?:\\times|\\cdot|×|x|\*)\s*10\s*(?:\^|\*\*)\s*\{?\s*([+-]?\d{1,3})\s*\}?"
)
_DEGREES: Final = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?")
_FRACTION: Final = re.compile(r"\\[dt]?frac\s*\{([+-]?\d{1,60})\}\s*\{(\d{1,60})\}")


@dataclass(frozen=True, slots=True)
class Reading:
    """A short answer (for a choice its letter; empty: none was given), and a confidence from 0 to 1."""

    answer: str
    confidence: float | None


def read(question: Question, text: str, *, complete: bool = True) -> Reading:
    """Read a model's visible text. Half a text (`complete` False) answers only where it marks an answer."""
    said = short_answer(text) if complete else marked_answer(text)
    if question.grader is GraderName.CHOICE and said:
        said = letter_in(said, question.choices)
    return Reading(said, confidence_in(text))


def confidence_in(text: str) -> float | None:
    """The last `Confidence: X` line as a share, as HLE asks for it: percent, with or without the sign.

    A bare decimal of at most one (0.85) is a share already. None where there is none, or above 100.
    """
    found = _CONFIDENCE.findall(text)
    if not found:
        return None
    number, percent = found[-1]
    value = float(number)
    share = value if not percent and "." in number and value <= 1 else value / 100
    return share if share <= 1 else None


def letter_in(answer: str, choices: Sequence[str] = ()) -> str:
    """The one option an answer names, by letter or by its text; empty when that is none, or not clear."""
    text = _LATEX_TEXT.sub(r"\1", answer).strip().strip("$").strip()
    if option := option_in(text, choices):
        return option
    match = _LETTER.match(text)
    if not match:
        return ""
    letter, rest = match[1].upper(), (match["rest"] or "").strip()
    if choices and letter not in LETTERS[: len(choices)]:
        return ""
    return letter if option_in(rest, choices) == letter or not _MORE_LETTERS.match(rest) else ""


def option_in(text: str, choices: Sequence[str]) -> str:
    """The letter of the one option whose text this is: to the letter, else as `normalise` sees it."""
    for form in (str.strip, normalise):
        same = [index for index, option in enumerate(choices) if form(option) == form(text)]
        if len(same) == 1:
            return LETTERS[same[0]]
    return ""


@dataclass(frozen=True, slots=True)
class Amount:
    """An exact number, and whether it was written as a percentage (`value` has it undivided)."""

    value: Fraction
    percent: bool


def amount_in(answer: str) -> Amount | None:
    """The number an answer gives, units and thousands separators gone; None unless it gives exactly one."""
    text = (
        normalise(_DEGREES.sub("°", _LATEX_TEXT.sub(r" \1 ", answer)))
        .replace("\\%", "%")
        .replace("\\ ", " ")
        .strip("$ ")
    )
    plain = as_number(text.rstrip("% "))
    if plain is not None:
        return Amount(plain, text.endswith("%"))
    if (fraction := _FRACTION.fullmatch(text)) and int(fraction[2]):
        return Amount(Fraction(int(fraction[1]), int(fraction[2])), False)
    return _measured(text)


def _measured(text: str) -> Amount | None:
    """A number with something around it: a unit, a currency, a power of ten."""
    first = _AMOUNT.search(text)
    if first is None:
        return None
    number, rest = first[0].replace(",", "").replace(" ", ""), text[first.end() :]
    exponent = _TIMES_TEN.match(rest)
    rest = rest[exponent.end() :] if exponent else rest
    unit = re.sub(r"(?<=[a-zµω])(\^\{?-?\d\}?|-?\d\b)", "", rest)
    if re.search(r"[\d^]", unit) or re.search(r"[\d=^*+]", text[: first.start()]):
        return None
    top, _, bottom = number.partition("/")
    if bottom and int(bottom) == 0:
        return None
    value = Fraction(top) / (Fraction(bottom) if bottom else 1)
    if exponent:
        value *= Fraction(10) ** int(exponent[1])
    return Amount(value, rest.strip().startswith("%"))
