from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heavy.coordinator.plan import (
    AGGREGATION_DEADLINE_MAX_S,
    arm_spec,
    arms_deadline_ms,
    nothing_usable,
    step_tokens_max,
)
from heavy.core.ids import arm
from heavy.core.policy import AggregationMode, Budget, ContextPolicy, Sampling
from heavy.core.runs import Outcome, OutcomeKind
from heavy.profiles.loader import load_profiles

from tests_support.domain import policy, run_spec

PROFILE = load_profiles().get("simulated")


@given(st.integers(1, 8), st.integers(1_000, 10**7), st.integers(1, 10**5))
def test_no_step_can_take_more_than_its_arms_part_of_the_budget(width: int, tokens: int, cap: int) -> None:
    budget = Budget(tokens_max=tokens, reasoning_tokens_per_step_max=cap)
    allowed = step_tokens_max(policy(width=width, quorum=1, budget=budget))
    assert 1 <= allowed <= cap
    assert allowed <= max(128, tokens / width)


def test_without_a_token_budget_the_policys_own_cap_holds() -> None:
    assert step_tokens_max(policy(budget=Budget(reasoning_tokens_per_step_max=777))) == 777


def test_the_aggregation_keeps_its_part_of_the_deadline_unless_there_is_none() -> None:
    short = run_spec(policy=policy(deadline_s=100.0))
    assert short.deadline_ms - arms_deadline_ms(short) == 20_000
    long = run_spec(policy=policy(deadline_s=14_400.0))
    assert long.deadline_ms - arms_deadline_ms(long) == AGGREGATION_DEADLINE_MAX_S * 1000
    for contract in (policy(aggregation=AggregationMode.VOTE), policy(width=1)):
        run = run_spec(policy=contract)
        assert arms_deadline_ms(run) == run.deadline_ms


def test_an_arm_samples_as_the_policy_says_else_as_its_profile_does() -> None:
    own = arm_spec(run_spec(), 3, PROFILE, epoch=1)
    assert own.trajectory == arm(3)
    assert own.sampling == Sampling(PROFILE.sampling.arm.temperature, PROFILE.sampling.arm.top_p, 7)
    told = arm_spec(run_spec(policy=policy(sampling=Sampling(0.2, 0.9))), 0, PROFILE, epoch=1)
    assert told.sampling == Sampling(0.2, 0.9, 7)


def test_an_arms_context_gives_way_as_the_policy_says_else_as_its_profile_does() -> None:
    own = PROFILE.model_copy(update={"context_policy": ContextPolicy.KEEP_LAST, "context_keep_last": 3})
    spec = arm_spec(run_spec(policy=policy(context_policy=None)), 0, own, epoch=1)
    assert (spec.context_policy, spec.context_keep_last) == (ContextPolicy.KEEP_LAST, 3)
    asked = policy(context_policy=ContextPolicy.SUMMARISE, context_keep_last=5)
    spec = arm_spec(run_spec(policy=asked), 0, own, epoch=1)
    assert (spec.context_policy, spec.context_keep_last) == (ContextPolicy.SUMMARISE, 5)


def test_a_run_without_an_answer_names_every_arms_reason() -> None:
    failure = nothing_usable([Outcome(arm(0), OutcomeKind.FAILED, "runner_lost", "It died.")])
    assert "arm-0: runner_lost (It died.)" in failure.message


def test_a_reason_that_several_arms_share_is_said_once() -> None:
    spent = [Outcome(arm(i), OutcomeKind.CUT, "budget", "It is spent.") for i in range(3)]
    failure = nothing_usable([*spent, Outcome(arm(3), OutcomeKind.CUT, "deadline")])
    assert failure.message.endswith("arm-0, arm-1, arm-2: budget (It is spent.); arm-3: deadline")
    assert len(failure.outcomes) == 4
