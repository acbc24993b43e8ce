from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heavy.batch.budget import BatchBudget, Purse
from heavy.batch.throttle import Throttle
from heavy.core.draft import PolicyDraft
from heavy.core.ledger import Spend

ANY = PolicyDraft()


def test_without_a_budget_everything_fits() -> None:
    purse = Purse(BatchBudget())
    for number in range(100):
        assert purse.fits(ANY)
        purse.take(str(number), ANY)


def test_while_the_price_is_unknown_one_question_is_out_at_a_time() -> None:
    purse = Purse(BatchBudget(cost_usd_max=1.0))
    assert purse.fits(ANY)
    purse.take("a", ANY)
    assert not purse.fits(ANY)
    purse.give_back("a")
    purse.book(Spend(cost_usd=0.3))
    for name in "bc":
        assert purse.fits(ANY)
        purse.take(name, ANY)
    assert not purse.fits(ANY)


def test_what_is_out_counts_as_what_it_has_spent_once_that_is_more() -> None:
    purse = Purse(BatchBudget(cost_usd_max=1.0))
    purse.book(Spend(cost_usd=0.1))
    purse.take("a", ANY)
    assert purse.fits(ANY)
    purse.seen("a", Spend(cost_usd=0.85))
    assert not purse.fits(ANY)


@given(
    st.floats(0.1, 10),
    st.lists(st.tuples(st.floats(0.01, 2), st.floats(0, 1)), max_size=30),
    st.integers(1, 5),
)
def test_a_budget_over_capped_questions_is_never_exceeded(
    budget: float, questions: list[tuple[float, float]], width: int
) -> None:
    purse = Purse(BatchBudget(cost_usd_max=budget))
    out: list[tuple[str, float]] = []
    for number, (cap, share) in enumerate(questions):
        policy = PolicyDraft(cost_usd_max=cap)
        while out and (len(out) >= width or not purse.fits(policy)):
            name, cost = out.pop(0)
            purse.give_back(name)
            purse.book(Spend(cost_usd=cost))
        if purse.fits(policy):
            purse.take(str(number), policy)
            out.append((str(number), cap * share))
    assert purse.cost_usd + sum(cost for _, cost in out) <= budget * (1 + 1e-9)


def test_a_full_server_is_asked_less_and_one_that_answers_more_again() -> None:
    throttle = Throttle(16)
    throttle.full(15, 0.0, 5.0)
    after = throttle.limit
    assert after < 12
    throttle.full(15, 1.0, 5.0)
    assert throttle.limit == after
    throttle.full(after, 6.0, 5.0)
    assert throttle.limit < after
    for _ in range(200):
        throttle.answered()
    assert throttle.limit == 16


def test_the_limit_never_falls_below_one() -> None:
    throttle = Throttle(2)
    for at in range(50):
        throttle.full(0, float(at), 0.5)
    assert throttle.limit == 1
