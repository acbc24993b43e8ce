"""Tool calls are read strictly, results are Python's own, and intervals are what the formulas say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workers.abacus import cell, chat
from workers.abacus.interpreter import Interpreter, is_arithmetic
from workers.abacus.intervals import bootstrap, wilson
from workers.abacus.loops import parse_call, solve
from workers.abacus.tasks import make_problem
from workers.abacus.tasks.trace import gold


def call_text(index: int, code: str) -> str:
    return chat.completion({"role": "assistant", "tool_calls": [chat.tool_call(index, code)]})


def test_a_well_formed_call_is_read() -> None:
    assert parse_call(call_text(2, "print(3*4)"), 2) == "print(3*4)"


@pytest.mark.parametrize(
    "text",
    [
        call_text(1, "print(1)"),
        "<|tool_calls_section_begin|>print(1)<|tool_calls_section_end|>",
        call_text(0, "print(1)").replace('{"code"', '{"code'),
        call_text(0, "print(1)").replace("code", "text"),
    ],
)
def test_a_wrong_id_marker_or_argument_is_malformed(text: str) -> None:
    assert parse_call(text, 0) is None


def test_python_runs_arithmetic_and_reports_its_errors() -> None:
    with Interpreter() as python:
        assert python.run("print(12*12)") == "144"
        assert python.run("print(1//0)").splitlines()[-1].startswith("ZeroDivisionError")
        assert "NameError: name 'rate' is not defined" in python.run("print(rate*3)")
        assert "SyntaxError" in python.run("print(3+)")
        assert python.run("print(2)") == "2"


@pytest.mark.parametrize("code", ["print(rate*312)", "print(186+384//0)", "print(12*4+)", "print(9//3/0)"])
def test_training_shows_errors_word_for_word_as_the_tool_of_heavy_says_them(code: str) -> None:
    seen = cell.told(code)
    with Interpreter() as python:
        assert python.run(code) == seen
    said = subprocess.run(
        [sys.executable, "-c", EXPLAINS, code], capture_output=True, text=True, check=True
    ).stderr.strip("\n")
    assert said == seen


EXPLAINS = """
import sys
from heavy.tools.sandbox import bootstrap
source = sys.argv[1]
try:
    bootstrap.run(source, bootstrap.FILENAME, bootstrap.Stdout(sys.stdout.buffer), type(sys)("__main__"))
except BaseException as error:
    bootstrap.explain(error, {bootstrap.FILENAME: source})
"""


@pytest.mark.parametrize(
    "code", ["__import__('os')", "print(open('x'))", "print(2**9)", "while 1: pass", "1+" * 200 + "1"]
)
def test_anything_beyond_arithmetic_is_refused(code: str) -> None:
    assert not is_arithmetic(code)


class Scripted:
    """Says what a gold trajectory says, turn by turn."""

    name = "scripted"

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def generate(self, prompts: list[str], temperature: float, tokens_max: int, seed: int) -> list[str]:
        return [self._texts.pop(0) for _ in prompts]


@pytest.mark.parametrize("index", range(8))
def test_a_gold_tool_loop_ends_right_with_real_results(index: int) -> None:
    import random

    problem = make_problem("programs", 4, "dev", index)
    said = [
        chat.completion(message).removesuffix(chat.END)
        for message, _ in gold(problem, random.Random(0))
        if message["role"] == "assistant"
    ]
    (trajectory,) = solve(Scripted(said), [problem], 0.0, 0)
    assert trajectory.right
    assert (trajectory.calls, trajectory.malformed) == (4, 0)
    assert trajectory.thinking.startswith("step 1: ")


def test_intervals() -> None:
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = bootstrap([0.0, 1.0] * 200)
    assert 0.44 < low < 0.5 < high < 0.56
