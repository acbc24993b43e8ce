"""Small made-up datasets in the layouts of published ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

AIME_ROWS: list[dict[str, Any]] = [
    {"id": 60, "problem": "Add the first ten odd numbers.", "solution": "It is a square.", "answer": "100"},
    {"id": 61, "problem": "Count the divisors of 12.", "solution": "1, 2, 3, 4, 6, 12.", "answer": "006"},
]
"""Columns as in the files of the 2024 problems: id, problem, solution, answer as text with leading zeros."""

GPQA_ROWS: list[dict[str, Any]] = [
    {
        "Record ID": f"rec{number}",
        "Question": f"Which of these is the colour of sample {number}?",
        "Correct Answer": "red",
        "Incorrect Answer 1": "blue",
        "Incorrect Answer 2": "green",
        "Incorrect Answer 3": "grey",
        "High-level domain": "Chemistry" if number % 2 else "Physics",
        "Subdomain": "Colours",
        "Explanation": "It was seen.",
    }
    for number in range(20)
]

HLE_ROWS: list[dict[str, Any]] = [
    {
        "id": "a1",
        "question": "Name the smallest prime.",
        "image": "",
        "answer": "2",
        "answer_type": "exactMatch",
        "rationale": "By trial.",
        "category": "Math",
    },
    {
        "id": "a2",
        "question": "Which is a metal?\n\nAnswer Choices:\nA. Oxygen\nB. Iron\nC. Neon",
        "image": "",
        "answer": "B",
        "answer_type": "multipleChoice",
        "rationale": "By its shine.",
        "category": "Chemistry",
    },
    {
        "id": "a3",
        "question": "What does the picture show?",
        "image": "data:image/png;base64,AAAA",
        "answer": "a cat",
        "answer_type": "exactMatch",
        "rationale": "",
        "category": "Other",
    },
]


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """One object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """With a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """With one row group a row, so that reading goes over their borders."""
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path, row_group_size=1)
    return path
