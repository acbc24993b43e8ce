from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.batch.questions import Question, digest, merged, read_questions
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError
from heavy.core.messages import Message, Role
from heavy.core.policy import AggregationMode


def written(directory: Path, *lines: object) -> Path:
    file = directory / "input.jsonl"
    file.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return file


def test_questions_are_texts_or_conversations_with_what_belongs_to_them(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    file = written(
        tmp_path,
        {"id": "a", "question": "What is 2 + 2?", "metadata": {"gold": 4}},
        "",
        {"id": 7, "messages": turns, "policy": {"width": 4, "aggregation": "vote", "tools": []}},
        {"question": "Without an id?"},
    )
    first, second, third = read_questions(file).questions
    assert first == Question("a", (Message(Role.USER, "What is 2 + 2?"),), metadata={"gold": 4})
    assert second.id == "7"
    assert second.messages[0] == Message(Role.SYSTEM, "Be brief.")
    assert second.policy == PolicyDraft(width=4, aggregation=AggregationMode.VOTE, tools=())
    assert third.id == "line-4"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is not JSON"),
        ("[1]", "the line"),
        ({"id": "x"}, "either `question`"),
        ({"question": "a", "messages": [{"role": "user", "content": "b"}]}, "either `question`"),
        ({"question": "a", "polcy": {}}, "polcy is not known here"),
        ({"question": "a", "policy": {"widht": 3}}, "policy.widht is not known"),
        ({"question": "a", "policy": {"width": "many"}}, "policy.width"),
        ({"question": " "}, "must be the user's, and not empty"),
        ({"messages": [{"role": "assistant", "content": "b"}]}, "must be the user's"),
        ({"id": "a\nb", "question": "a"}, "printable"),
        ({"id": "x" * 201, "question": "a"}, "printable"),
    ],
)
def test_a_malformed_line_is_told_by_its_number_and_does_not_end_the_rest(
    tmp_path: Path, line: object, problem: str
) -> None:
    file = written(tmp_path, {"id": "good", "question": "Why?"}, line)
    found = read_questions(file)
    assert [question.id for question in found.questions] == ["good"]
    assert [fault.line for fault in found.faults] == [2]
    assert problem in found.faults[0].problem
    with pytest.raises(ConfigError, match="line 2"):
        read_questions(file, strict=True)


def test_two_questions_with_one_id_are_an_error_that_names_both_lines(tmp_path: Path) -> None:
    file = written(
        tmp_path, {"id": 1, "question": "a"}, {"id": 2, "question": "b"}, {"id": "1", "question": "c"}
    )
    with pytest.raises(ConfigError, match="lines 1 and 3 have the same id '1'"):
        read_questions(file)


def test_a_file_without_a_question_and_one_that_is_not_there_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no questions"):
        read_questions(written(tmp_path, ""))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_questions(tmp_path / "nowhere.jsonl")


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_reading_ends_in_questions_or_a_clear_error(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "x.jsonl"
        file.write_bytes(data + b'\n{"id": "last one", "question": "Why?"}\n')
        assert read_questions(file).questions[-1].id == "last one"


def test_the_digest_knows_what_is_asked_and_not_what_is_carried_along() -> None:
    plain = Question.of_text("a", "Why?")
    assert digest([plain]) == digest([Question.of_text("a", "Why?", gold=1)])
    others = [
        Question.of_text("b", "Why?"),
        Question.of_text("a", "Why not?"),
        Question("a", plain.messages, PolicyDraft(width=2)),
    ]
    assert len({digest([q]) for q in (plain, *others)}) == 4


def test_an_override_changes_what_it_says_and_nothing_else() -> None:
    base = PolicyDraft(width=8, tools=("python",), seed=1)
    assert merged(base, PolicyDraft()) == base
    assert merged(base, PolicyDraft(width=2, tools=())) == PolicyDraft(width=2, tools=(), seed=1)
