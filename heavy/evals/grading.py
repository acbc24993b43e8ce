"""Whether an answer is right: one small grader each for exact, numeric, symbolic and choice.

A grader answers True or False, or raises `JudgeFailed`: a judge that fails is no wrong answer.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

from heavy.aggregation.equivalence import normalise
from heavy.core.errors import ConfigError
from heavy.evals.questions import GraderName, Question, Tolerance
from heavy.evals.reading import Amount, Reading, amount_in


class Same(Protocol):
    """Whether two answers are equivalent."""

    async def __call__(self, left: str, right: str) -> bool: ...


class Judge(Protocol):
    """Whether a response is right, in the eyes of a model. Raises `JudgeFailed`."""

    async def __call__(self, question: Question, response: str, answer: str) -> bool: ...


class Graders:
    """Grades by each question's own grader. `judge` None is enough where no question wants one."""

    def __init__(self, same: Same, judge: Judge | None = None) -> None:
        self._same = same
        self._judge = judge

    async def right(self, question: Question, response: str, reading: Reading) -> bool:
        """Whether `response`, whose short answer is `reading`, is right. No answer is a wrong one."""
        if not reading.answer:
            return False
        match question.grader:
            case GraderName.EXACT:
                return exactly(reading.answer, question.answer)
            case GraderName.CHOICE:
                return reading.answer == question.answer
            case GraderName.NUMERIC:
                close = numerically(reading.answer, question.answer, question.tolerance)
                return await self._same(reading.answer, question.answer) if close is None else close
            case GraderName.SYMBOLIC:
                return await self._same(reading.answer, question.answer)
            case GraderName.JUDGE:
                if self._judge is None:
                    raise ConfigError(
                        f"Question {question.id!r} is graded by a judge, and none is configured; "
                        "give --judge-profile, or --judge-url and --judge-model"
                    )
                return await self._judge(question, response, reading.answer)


def exactly(answer: str, truth: str) -> bool:
    """Whether two answers are the same text, but for case, spaces, quotes and a closing full stop."""
    return normalise(answer) == normalise(truth)


def numerically(answer: str, truth: str, tolerance: Tolerance) -> bool | None:
    """Whether an answer's number is the true one, within the tolerance, compared exactly.

    Where just one of the two is a percentage, it may stand for its share or for its bare number. None where
    one of them is no plain number, which is for mathematics to decide.
    """
    said, true = amount_in(answer), amount_in(truth)
    if said is None or true is None:
        return None
    return any(_close(a, b, tolerance) for a in _values(said, other=true) for b in _values(true, other=said))


def _values(amount: Amount, *, other: Amount) -> tuple[Fraction, ...]:
    if not amount.percent or other.percent:
        return (amount.value,)
    return amount.value, amount.value / 100


def _close(said: Fraction, true: Fraction, tolerance: Tolerance) -> bool:
    allowed = max(Fraction(str(tolerance.absolute)), Fraction(str(tolerance.relative)) * abs(true))
    return abs(said - true) <= allowed
