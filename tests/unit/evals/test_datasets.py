from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from heavy.core.errors import InvalidDataset
from heavy.evals.datasets import read_dataset
from heavy.evals.layouts import LayoutName, ReadAs
from heavy.evals.questions import GraderName, Tolerance
from heavy.evals.reading import letter_in

from tests_support.datasets import AIME_ROWS, GPQA_ROWS, HLE_ROWS, write_csv, write_jsonl, write_parquet


def refusal(path: Path, layout: LayoutName | None = None) -> str:
    with pytest.raises(InvalidDataset) as refused:
        read_dataset(path, ReadAs(), layout=layout)
    return str(refused.value)


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
def test_aime_files_are_read_in_every_form(tmp_path: Path, write: type[write_jsonl]) -> None:
    ending = write.__name__.removeprefix("write_")
    dataset = read_dataset(write(tmp_path / f"AIME_2024.{ending}", AIME_ROWS), ReadAs())
    assert dataset.layout is LayoutName.AIME
    assert [(q.id, q.answer, q.grader) for q in dataset.questions] == [
        ("60", "100", GraderName.NUMERIC),
        ("61", "6", GraderName.NUMERIC),
    ]
    assert dataset.questions[0].prompt.startswith("Add the first ten odd numbers.")


def test_aime_files_with_other_names_for_their_columns_are_read(tmp_path: Path) -> None:
    rows = [{"Question": "How many?", "Answer": 73, "Year": 1983, "Part": ""}]
    question = read_dataset(write_csv(tmp_path / "aime.csv", rows), ReadAs()).questions[0]
    assert (question.id, question.answer, question.labels) == ("row-1", "73", {"year": "1983"})


def test_an_aime_answer_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    said = refusal(write_jsonl(tmp_path / "aime.jsonl", [{"problem": "?", "answer": "1000"}]))
    assert "line 1 has the answer '1000'" in said


@pytest.mark.parametrize("answer", ["336^\\circ", "$336^{\\circ}$", "336°"])
def test_an_aime_answer_may_have_a_degree_sign_as_a_published_one_has(tmp_path: Path, answer: str) -> None:
    rows = [{"problem_idx": 20, "problem": "What angle?", "answer": answer, "problem_type": ["Geometry"]}]
    question = read_dataset(write_parquet(tmp_path / "aime_2025.parquet", rows), ReadAs()).questions[0]
    assert (question.id, question.answer) == ("20", "336")


def test_gpqa_options_that_differ_in_case_alone_are_different_options(tmp_path: Path) -> None:
    options = {"Correct Answer": "Aa", "Incorrect Answer 1": "aa", "Incorrect Answer 2": "AA"}
    row = {**GPQA_ROWS[0], **options, "Incorrect Answer 3": "AA"}
    question = read_dataset(write_csv(tmp_path / "gpqa.csv", [row]), ReadAs()).questions[0]
    assert question.choices["ABCD".index(question.answer)] == "Aa"
    assert letter_in("Aa", question.choices) == question.answer
    assert letter_in("AA", question.choices) == "", "which of the two is not said"


def test_gpqa_options_of_which_a_wrong_one_is_the_right_one_are_refused(tmp_path: Path) -> None:
    row = GPQA_ROWS[0] | {"Incorrect Answer 2": "red"}
    assert "row 1 has its right option 'red'" in refusal(write_csv(tmp_path / "gpqa.csv", [row]))


def test_gpqa_options_are_shuffled_by_seed_and_question(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "gpqa_diamond.csv", GPQA_ROWS)
    dataset = read_dataset(path, ReadAs(seed=1))
    assert dataset.layout is LayoutName.GPQA
    assert read_dataset(path, ReadAs(seed=1)) == dataset
    assert read_dataset(path, ReadAs(seed=2)) != dataset
    for question in dataset.questions:
        assert sorted(question.choices) == ["blue", "green", "grey", "red"]
        assert question.choices["ABCD".index(question.answer)] == "red"
        assert f"{question.answer}) red" in question.prompt
    assert len(Counter(q.answer for q in dataset.questions)) > 2
    assert dataset.questions[1].labels == {"high-level domain": "Chemistry", "subdomain": "Colours"}


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_hle_keeps_the_text_only_subset_and_counts_the_rest(tmp_path: Path, write: type[write_jsonl]) -> None:
    ending = write.__name__.removeprefix("write_")
    read_as = ReadAs(open_grader=GraderName.JUDGE)
    dataset = read_dataset(write(tmp_path / f"test.{ending}", HLE_ROWS), read_as)
    assert dataset.layout is LayoutName.HLE
    assert [(q.id, q.grader, q.answer) for q in dataset.questions] == [
        ("a1", GraderName.JUDGE, "2"),
        ("a2", GraderName.CHOICE, "B"),
    ]
    assert list(dataset.skipped.values()) == [1]
    assert dataset.questions[1].choices == ("Oxygen", "Iron", "Neon")
    assert all(word in dataset.questions[0].prompt for word in ("Explanation:", "Answer:", "Confidence:"))


@pytest.mark.parametrize(
    ("answer", "read_answer", "grader"),
    [
        ("B", "B", GraderName.CHOICE),
        ("B. Iron", "B", GraderName.CHOICE),
        ("iron", "B", GraderName.CHOICE),
        ("D", "D", GraderName.CHOICE),  # its options are not all read
        ("AB", "AB", GraderName.JUDGE),
        ("A, B and C", "A, B and C", GraderName.JUDGE),
        ("both", "both", GraderName.JUDGE),
    ],
)
def test_an_hle_choice_without_one_letter_is_an_open_question(
    tmp_path: Path, answer: str, read_answer: str, grader: GraderName
) -> None:
    path = write_jsonl(tmp_path / "hle.jsonl", [HLE_ROWS[1] | {"answer": answer}])
    question = read_dataset(path, ReadAs(open_grader=GraderName.JUDGE)).questions[0]
    assert (question.answer, question.grader) == (read_answer, grader)


def test_a_plain_row_says_how_it_is_graded_and_what_it_belongs_to(tmp_path: Path) -> None:
    rows = [
        {"id": "n", "question": "What is 2+3?", "answer": 5, "family": "chains", "level": 2},
        {"id": "s", "question": "Solve.", "answer": "\\frac{x}{2}"},
        {"id": "c", "question": "Which?", "answer": "blue", "choices": ["red", "blue"]},
        {"id": "t", "question": "How long?", "answer": "9.81", "tolerance_rel": 0.01, "tools": ["python"]},
        {"id": "j", "question": "Why?", "answer": "Because.", "grader": "judge"},
    ]
    dataset = read_dataset(write_jsonl(tmp_path / "mine.jsonl", rows), ReadAs())
    n, s, c, t, j = dataset.questions
    assert (n.prompt, n.answer, n.grader) == ("What is 2+3?", "5", GraderName.NUMERIC)
    assert n.labels == {"family": "chains", "level": "2"}
    assert s.grader is GraderName.SYMBOLIC
    assert (c.grader, c.answer, c.choices) == (GraderName.CHOICE, "B", ("red", "blue"))
    assert "A) red\nB) blue" in c.prompt
    assert (t.tolerance, t.tools) == (Tolerance(0.0, 0.01), ("python",))
    assert j.grader is GraderName.JUDGE


def test_every_bad_row_is_named_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(
        '{"id": "a", "question": "?", "answer": 1}\n'
        "{broken\n"
        "\n"
        "[1, 2]\n"
        '{"id": "b", "answer": 1}\n'
        '{"id": "c", "question": "  ", "answer": 1}\n'
        '{"id": "d", "question": "?", "answer": null}\n'
        '{"id": "e", "question": "?", "answer": 1, "grader": "magic"}\n'
        '{"id": "f", "question": "?", "answer": 1, "tolerance_abs": -1}\n'
        '{"id": "g", "question": "?", "answer": "pink", "choices": ["red", "blue"]}\n'
        '{"id": "a", "question": "?", "answer": 1}\n'
    )
    said = refusal(path)
    for line in (2, 4, 5, 6, 7, 8, 9, 10, 11):
        assert f"line {line} " in said
    assert "nothing was asked" in said
    assert "'a', which line 1 has already" in said


def test_only_so_many_bad_rows_are_told_of(tmp_path: Path) -> None:
    said = refusal(write_jsonl(tmp_path / "bad.jsonl", [{"answer": 1}] * 50))
    assert "and 30 more" in said


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data.txt", b"x", "ends in '.txt'"),
        ("data.jsonl", b"PAR1\xff\xfe\x00", "not UTF-8"),
        ("data.parquet", b"no parquet", "not a readable Parquet file"),
        ("data.jsonl", b"", "has no question"),
        ("data.csv", b"question,answer\nonly one\n", "row 1 has fewer fields"),
        ("data.csv", b"question,answer\na,b,c\n", "row 1 has more fields"),
        ("data.csv", b'question,answer\n"a,b\n', "row 1 is not CSV"),
        ("data.csv", b"q,a\n1,2\n", "no column 'question'"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert words in refusal(path)


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "none.jsonl")


def test_a_file_in_the_wrong_layout_says_what_is_missing(tmp_path: Path) -> None:
    said = refusal(write_jsonl(tmp_path / "x.jsonl", AIME_ROWS), LayoutName.GPQA)
    assert "read as gpqa" in said
    assert "'correct answer'" in said or "'question'" in said


def test_a_limit_takes_the_first_questions(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "gpqa.csv", GPQA_ROWS)
    assert len(read_dataset(path, ReadAs(), limit=3).questions) == 3


def test_an_hle_file_of_pictures_alone_says_so(tmp_path: Path) -> None:
    assert "has an image" in refusal(write_jsonl(tmp_path / "hle.jsonl", HLE_ROWS[2:]))
