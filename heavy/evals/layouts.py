"""The published layouts a dataset file may have, and what each makes of a row.

`plain` is our own (docs/evaluation.md lists its fields). `aime`, `gpqa` and `hle` are the columns of the
published files: AIME as problem or question and answer, GPQA as one column per option, HLE with
`answer_type` and `image`.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from heavy.aggregation.equivalence import as_number, normalise
from heavy.core.ids import derive_seed
from heavy.evals.questions import EXACT, LETTERS, GraderName, Question, Tolerance
from heavy.evals.reading import amount_in, letter_in, option_in
from heavy.evals.rows import Row

ID_CHARS_MAX: Final = 200
LABEL_CHARS_MAX: Final = 80


class LayoutName(StrEnum):
    """Which layout a file has."""

    PLAIN = "plain"
    AIME = "aime"
    GPQA = "gpqa"
    HLE = "hle"


@dataclass(frozen=True, slots=True)
class ReadAs:
    """How rows are read.

    `seed` orders shuffled options, question by question. `grader` None lets each row say; `open_grader` is
    for answers that are free text (HLE's exactMatch). `instructions` None means the layout's own, the
    empty text none.
    """

    seed: int = 0
    grader: GraderName | None = None
    open_grader: GraderName = GraderName.SYMBOLIC
    tolerance: Tolerance = EXACT
    instructions: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row left out on purpose: counted, and said."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be read."""

    problem: str


Read = Question | Skipped | Fault


class _Fault(Exception):
    """A `Fault` on its way out of a layout."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout: its name, and what it makes of one row."""

    name: LayoutName
    _read: Callable[[Row, Mapping[str, Any], ReadAs], Question | Skipped]

    def read(self, row: Row, read_as: ReadAs) -> Read:
        """One row as a question. Column names are matched without regard to case."""
        columns = {str(name).strip().casefold(): value for name, value in row.values.items()}
        try:
            return self._read(row, columns, read_as)
        except _Fault as fault:
            return Fault(str(fault))


def detect(path: Path, columns: Mapping[str, Any]) -> LayoutName:
    """The layout of a file, from the columns of its first row, else from its name."""
    names = {str(name).strip().casefold() for name in columns}
    if {"correct answer", "incorrect answer 1"} <= names:
        return LayoutName.GPQA
    if "answer_type" in names:
        return LayoutName.HLE
    return LayoutName.AIME if "aime" in path.name.casefold() else LayoutName.PLAIN


ANSWER_LINE = "End with one line that holds the answer alone:\nAnswer: <your answer>"
_AIME = "The answer is a whole number from 0 to 999. End with one line that holds it alone:\nAnswer: <number>"
_LETTER = "Exactly one option is right. End with one line that holds its letter alone:\nAnswer: <letter>"
_HLE = """\
Reply in this form, each label at the start of a line of its own:
Explanation: <why your answer is right>
Answer: <your final answer, alone>
Confidence: <how sure you are that it is right, from 0% to 100%>"""
_PLAIN_KNOWN: Final = frozenset(
    {"id", "question", "problem", "prompt", "answer", "target", "choices", "grader", "tools"}
    | {"tolerance_abs", "tolerance_rel", "solution", "rationale", "url", "canary"}
)


def _plain(row: Row, columns: Mapping[str, Any], read_as: ReadAs) -> Question:
    question = _text(columns, "question", "problem", "prompt")
    answer = _text(columns, "answer", "target")
    choices = _choices(columns.get("choices"))
    grader = _grader(columns, read_as) or (GraderName.CHOICE if choices else _grader_for(answer, read_as))
    instructions = _LETTER if grader is GraderName.CHOICE else ""
    if choices and grader is GraderName.CHOICE:
        answer = _letter_of(answer, choices)
        question = f"{question}\n\n{_listed(choices)}"
    return Question(
        id=_id(row, columns, "id"),
        prompt=_prompt(question, instructions, read_as),
        answer=answer,
        grader=grader,
        choices=choices,
        tolerance=_tolerance(columns, read_as),
        tools=_tools(columns.get("tools")),
        labels=_labels(columns, columns.keys() - _PLAIN_KNOWN),
    )


def _aime(row: Row, columns: Mapping[str, Any], read_as: ReadAs) -> Question:
    question = _text(columns, "problem", "question")
    answer = _text(columns, "answer")
    amount = amount_in(answer)  # one published answer has a degree sign
    if amount is None or amount.percent or amount.value.denominator != 1 or not 0 <= amount.value <= 999:
        raise _Fault(f"has the answer {answer!r:.80}; AIME answers are whole numbers from 0 to 999")
    return Question(
        id=_id(row, columns, "id", "problem_idx"),
        prompt=_prompt(question, _AIME, read_as),
        answer=str(int(amount.value)),
        grader=read_as.grader or GraderName.NUMERIC,
        labels=_labels(columns, ("year", "part")),
    )


def _gpqa(row: Row, columns: Mapping[str, Any], read_as: ReadAs) -> Question:
    question = _text(columns, "question")
    right = _text(columns, "correct answer")
    options = [right, *(_text(columns, f"incorrect answer {number}") for number in (1, 2, 3))]
    if right in options[1:]:
        raise _Fault(f"has its right option {right!r:.80} among the wrong ones too")
    name = _id(row, columns, "record id", "id")
    random.Random(derive_seed(read_as.seed, "options", name)).shuffle(options)
    return Question(
        id=name,
        prompt=_prompt(f"{question}\n\n{_listed(options)}", _LETTER, read_as),
        answer=LETTERS[options.index(right)],
        grader=read_as.grader or GraderName.CHOICE,
        choices=tuple(options),
        labels=_labels(columns, ("high-level domain", "subdomain")),
    )


_HLE_OPTIONS: Final = re.compile(r"^answer choices:\s*$", re.IGNORECASE | re.MULTILINE)
_OPTION: Final = re.compile(r"^\(?([A-Z])[.):]\s+(.+?)\s*$", re.MULTILINE)


def _hle(row: Row, columns: Mapping[str, Any], read_as: ReadAs) -> Question | Skipped:
    if _shows_something(columns.get("image")):
        return Skipped("the question has an image; the text-only subset is evaluated")
    question = _text(columns, "question")
    answer = _text(columns, "answer")
    kind = _text(columns, "answer_type")
    grader, options = read_as.open_grader, _options_in(question)
    match kind.casefold():
        case "multiplechoice":
            letter = letter_in(answer, options)
            if not letter:
                options, letter = (), letter_in(answer)
            # An answer of several letters, or of words, is no letter to compare a reply's with: it is open.
            if letter:
                grader, answer = GraderName.CHOICE, letter
        case "exactmatch":
            pass
        case _:
            raise _Fault(f"has answer_type {kind!r:.80}; it must be exactMatch or multipleChoice")
    return Question(
        id=_id(row, columns, "id"),
        prompt=_prompt(question, _HLE, read_as),
        answer=answer,
        grader=read_as.grader or grader,
        choices=options if grader is GraderName.CHOICE else (),
        tolerance=read_as.tolerance,
        labels=_labels(columns, ("category", "answer_type")),
    )


def _shows_something(image: object) -> bool:
    """Files hold a picture as text, or as bytes with a path; where there is none, as nothing of either."""
    return any(image.values()) if isinstance(image, dict) else bool(image)


LAYOUTS: Final = {
    LayoutName.PLAIN: Layout(LayoutName.PLAIN, _plain),
    LayoutName.AIME: Layout(LayoutName.AIME, _aime),
    LayoutName.GPQA: Layout(LayoutName.GPQA, _gpqa),
    LayoutName.HLE: Layout(LayoutName.HLE, _hle),
}


def _text(columns: Mapping[str, Any], *names: str) -> str:
    """The first of these columns that the row has. Numbers are written as people write them."""
    for name in names:
        if name in columns:
            value = columns[name]
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, str | int | float) and str(value).strip():
                return str(value).strip()
            empty = value is None or isinstance(value, str)
            raise _Fault(f"has {'an empty' if empty else 'no text or number in'} {name!r}")
    wanted = " or ".join(repr(name) for name in names)
    raise _Fault(f"has no column {wanted}; it has {', '.join(sorted(columns)) or 'none'}")


def _id(row: Row, columns: Mapping[str, Any], *names: str) -> str:
    value = next((columns[name] for name in names if columns.get(name) not in (None, "")), None)
    name = f"row-{row.number}" if value is None else str(value).strip()
    if not name.isprintable() or not 0 < len(name) <= ID_CHARS_MAX:
        raise _Fault(f"has the id {name!r:.80}; ids are printable, at most {ID_CHARS_MAX} characters")
    return name


def _labels(columns: Mapping[str, Any], names: Sequence[str] | set[str]) -> dict[str, str]:
    found = {name: columns[name] for name in sorted(names) if name in columns}
    return {
        name: str(value).strip()
        for name, value in found.items()
        if isinstance(value, str | int | float) and 0 < len(str(value).strip()) <= LABEL_CHARS_MAX
    }


def _grader(columns: Mapping[str, Any], read_as: ReadAs) -> GraderName | None:
    if read_as.grader:
        return read_as.grader
    if columns.get("grader") in (None, ""):
        return None
    try:
        return GraderName(columns["grader"])
    except ValueError:
        known = ", ".join(GraderName)
        raise _Fault(f"has the grader {columns['grader']!r:.80}; known: {known}") from None


def _grader_for(answer: str, read_as: ReadAs) -> GraderName:
    return GraderName.SYMBOLIC if as_number(normalise(answer)) is None else GraderName.NUMERIC


def _tolerance(columns: Mapping[str, Any], read_as: ReadAs) -> Tolerance:
    def given(name: str, default: float) -> float:
        value = columns.get(name)
        if value in (None, ""):
            return default
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if not (math.isfinite(number) and number >= 0):
            raise _Fault(f"has {name} {value!r:.80}; it must be a number of zero or more")
        return number

    default = read_as.tolerance
    return Tolerance(given("tolerance_abs", default.absolute), given("tolerance_rel", default.relative))


def _tools(value: object) -> tuple[str, ...] | None:
    if value in (None, ""):
        return None
    if isinstance(value, list) and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    raise _Fault(f"has tools {value!r:.80}; it must be a list of tool names")


def _choices(value: object) -> tuple[str, ...]:
    if value in (None, ""):
        return ()
    if isinstance(value, dict):
        letters = sorted(str(letter) for letter in value)
        if letters != list(LETTERS[: len(letters)]):
            raise _Fault(f"has choices {', '.join(letters)}; letters must run from A without a gap")
        value = [value[letter] for letter in letters]
    if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS):
        raise _Fault(f"has choices {value!r:.80}; it must be a list of 2 to {len(LETTERS)} options")
    options = tuple(str(option).strip() for option in value)
    if len(set(options)) < len(options) or not all(options):
        raise _Fault("has an option that is empty or there twice")
    return options


def _letter_of(answer: str, choices: Sequence[str]) -> str:
    """The letter of the true answer, given as a letter or as the option's text; the text wins."""
    if option := option_in(answer, choices):
        return option
    letter = answer.strip("().: ").upper()
    if len(letter) == 1 and letter in LETTERS[: len(choices)]:
        return letter
    raise _Fault(f"has the answer {answer!r:.80}, which is neither one of its choices nor the letter of one")


def _listed(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))


def _options_in(question: str) -> tuple[str, ...]:
    """The options that a question's own text lists after "Answer Choices:", where they run from A on."""
    start = _HLE_OPTIONS.search(question)
    found = _OPTION.findall(question, start.end()) if start else []
    letters = "".join(letter for letter, _ in found)
    return tuple(option for _, option in found) if letters and LETTERS.startswith(letters) else ()


def _prompt(question: str, instructions: str, read_as: ReadAs) -> str:
    said = instructions if read_as.instructions is None else read_as.instructions
    return f"{question}\n\n{said}" if said.strip() else question
