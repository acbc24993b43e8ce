"""Questions of a batch: what is asked, and reading them from JSONL without trusting a line of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from heavy.core.codec import dump
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError
from heavy.core.messages import Message, Role

QUESTIONS_MAX: Final = 1_000_000
LINE_BYTES_MAX: Final = 8 << 20
ID_CHARS_MAX: Final = 200
FAULTS_SHOWN: Final = 10

NO_OVERRIDES: Final = PolicyDraft()


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `policy` overrides the batch's where it says something; `metadata` is carried along."""

    id: str
    messages: tuple[Message, ...]
    policy: PolicyDraft = NO_OVERRIDES
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_text(cls, id: str, text: str, **metadata: Any) -> Question:
        """A question that is one user's turn."""
        return cls(id, (Message(Role.USER, text),), metadata=metadata)


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no question, by its number from 1, and what is wrong with it."""

    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class Questions:
    """What a file held: the questions in order, and the lines that were none."""

    questions: tuple[Question, ...]
    faults: tuple[Fault, ...] = ()


def read_questions(file: Path, *, strict: bool = False) -> Questions:
    """The questions of a JSONL file, one object a line; empty lines are skipped.

        {"id": "q1", "question": "What is 17 * 23?"}
        {"id": "q2", "messages": [{"role": "user", "content": "..."}], "policy": {"width": 4}, "metadata": {}}

    Without an `id` a question is called after its line. A malformed line becomes a `Fault`; with `strict`, or
    when no line is left, faults are a `ConfigError`. So are two questions with one id, and a file that cannot
    be read.
    """
    questions: list[Question] = []
    faults: list[Fault] = []
    lines: dict[str, int] = {}
    for number, text in enumerate(_lines(file), start=1):
        if not text.strip():
            continue
        try:
            question = _question(text, number)
        except ValueError as error:
            faults.append(Fault(number, str(error)))
            continue
        if question.id in lines:
            raise ConfigError(
                f"{file}: lines {lines[question.id]} and {number} have the same id {question.id!r}; "
                "results are told apart by id, so give each question one of its own."
            )
        lines[question.id] = number
        questions.append(question)
        if len(questions) > QUESTIONS_MAX:
            raise ConfigError(f"{file}: has more than {QUESTIONS_MAX:,} questions; split it.")
    if faults and (strict or not questions):
        raise ConfigError(f"{file}: {said(faults)}")
    if not questions:
        raise ConfigError(f"{file}: has no questions; put one JSON object on each line.")
    return Questions(tuple(questions), tuple(faults))


def said(faults: Sequence[Fault]) -> str:
    """Faults for people: the first few, and how many more."""
    shown = "; ".join(f"line {fault.line}: {fault.problem}" for fault in faults[:FAULTS_SHOWN])
    more = len(faults) - FAULTS_SHOWN
    lines = "malformed line" if len(faults) == 1 else "malformed lines"
    return f"{len(faults)} {lines}: {shown}" + (f"; and {more} more" if more > 0 else "")


def merged(base: PolicyDraft, override: PolicyDraft) -> PolicyDraft:
    """`base`, with whatever `override` says in its place."""
    given = {f.name: getattr(override, f.name) for f in fields(PolicyDraft)}
    nothing = {f.name: f.default for f in fields(PolicyDraft)}
    return replace(base, **{name: value for name, value in given.items() if value != nothing[name]})


def digest(questions: Iterable[Question]) -> str:
    """What is asked, as one digest: ids, messages and overrides in order. Metadata is not asked."""
    hashed = hashlib.sha256()
    for question in questions:
        hashed.update(orjson.dumps([question.id, [dump(m).decode() for m in question.messages]]))
        hashed.update(dump(question.policy))
    return hashed.hexdigest()


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)
    role: Role
    content: str


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: str | int | None = None
    question: str | None = None
    messages: Annotated[list[_Turn], Field(min_length=1)] | None = None
    policy: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)


_DRAFT: Final = TypeAdapter(PolicyDraft)


def _lines(file: Path) -> Iterable[bytes]:
    try:
        with file.open("rb") as stream:
            while line := stream.readline(LINE_BYTES_MAX + 1):
                yield line
                while len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
                    line = stream.readline(LINE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.") from error


def _question(text: bytes, number: int) -> Question:
    """Raises ValueError, with one sentence."""
    if len(text) > LINE_BYTES_MAX:
        raise ValueError(f"has more than {LINE_BYTES_MAX:,} bytes")
    try:
        line = _Line.model_validate(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error})") from error
    except ValidationError as error:
        raise ValueError(_first(error)) from error
    if (line.question is None) == (line.messages is None):
        raise ValueError("must have either `question` (a text) or `messages` (a conversation)")
    name = f"line-{number}" if line.id is None else str(line.id)
    if not name or len(name) > ID_CHARS_MAX or not name.isprintable():
        raise ValueError(f"id must have 1 to {ID_CHARS_MAX} printable characters")
    turns = line.messages or [_Turn(role=Role.USER, content=line.question or "")]
    messages = tuple(Message(turn.role, turn.content) for turn in turns)
    if messages[-1].role is not Role.USER or not messages[-1].content.strip():
        raise ValueError("the last message must be the user's, and not empty")
    return Question(name, messages, _overrides(line.policy), line.metadata)


def _overrides(given: Mapping[str, Any]) -> PolicyDraft:
    known = {f.name for f in fields(PolicyDraft)}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"policy.{unknown[0]} is not known; known are {', '.join(sorted(known))}")
    try:
        return _DRAFT.validate_python(given)
    except ValidationError as error:
        raise ValueError(f"policy.{_first(error)}") from error


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"]) or "the line"
    if found["type"] == "extra_forbidden":
        return f"{where} is not known here; put what is yours under `metadata`"
    return f"{where}: {found['msg'][:1].lower()}{found['msg'][1:]}"
