"""Drafts become policies: defaults, and every violation at once."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.config import Settings
from heavy.coordinator.defaults import PolicyDefaults, fingerprint
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError, InvalidRequest
from heavy.core.ids import RunId
from heavy.core.messages import Message, Role
from heavy.core.policy import AggregationMode, ArmsFrom, Budget, ContextPolicy, Policy, Sampling
from heavy.profiles.schema import PresetSection, Profile, SamplingPreset, SamplingSection


def profile(name: str, **more: Any) -> Profile:
    return Profile(name=name, title=name, engine="simulated", model=name, context_tokens=4096, **more)


PROFILES = {
    "tiny": profile(
        "tiny",
        default_tools=("python", "unavailable"),
        sampling=SamplingSection(arm=SamplingPreset(temperature=0.7, top_p=0.9)),
        context_policy=ContextPolicy.FAIL,
    ),
    "big": profile("big", default_tools=("search", "python")),
    "idle": profile("idle"),
}
PROFILES["big"] = PROFILES["big"].model_copy(
    update={
        "presets": {
            "search": PresetSection(steps_max=300, output_tokens_per_step_max=24_000, temperature=0.4)
        }
    }
)


def defaults(**values: Any) -> PolicyDefaults:
    values.setdefault("profile", "tiny")
    return PolicyDefaults(PROFILES, ("tiny", "big"), Settings(**values), ("python", "search"))


def violations(draft: PolicyDraft, **values: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        defaults(**values).resolve(draft)
    return {item.field: item.problem for item in caught.value.violations}


def test_an_empty_draft_gets_every_default() -> None:
    policy = defaults().resolve(PolicyDraft())
    assert (policy.width, policy.quorum) == (8, 6)
    assert (policy.members.arms, policy.members.aggregator) == (("tiny",) * 8, "tiny")
    assert (policy.straggler_grace_s, policy.deadline_s) == (30, 600)
    assert (policy.vote_threshold, policy.early_stop) == (0.75, True)
    assert policy.aggregation is AggregationMode.AUTO
    assert policy.tools == ("python",)
    assert (policy.context_policy, policy.context_keep_last) == (None, None)
    assert policy.sampling is None
    assert policy.budget == Budget()


def test_the_seed_is_drawn_anew_unless_given() -> None:
    drawn = {defaults().resolve(PolicyDraft()).seed for _ in range(5)}
    assert len(drawn) > 1
    assert defaults().resolve(PolicyDraft(seed=5)).seed == 5


@pytest.mark.parametrize(("width", "quorum"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 6)])
def test_the_quorum_is_three_quarters_rounded_up(width: int, quorum: int) -> None:
    assert defaults().resolve(PolicyDraft(width=width)).quorum == quorum


def test_the_only_profile_served_is_the_default_and_several_are_none() -> None:
    no_default = Settings(profile="")
    one = PolicyDefaults(PROFILES, ("big",), no_default, ("python", "search"))
    assert one.resolve(PolicyDraft()).members.arms == ("big",) * 8
    assert "served: big, tiny" in violations(PolicyDraft(), profile="")["policy.members.arms"]


def test_a_default_profile_that_does_not_exist_is_the_servers_fault() -> None:
    with pytest.raises(ConfigError, match="HEAVY_PROFILE"):
        defaults(profile="gone").resolve(PolicyDraft())


def test_members_take_one_name_for_all_or_one_for_each() -> None:
    policy = defaults().resolve(PolicyDraft(width=2, arms=("big",)))
    assert (policy.members.arms, policy.members.aggregator) == (("big", "big"), "big")
    policy = defaults().resolve(PolicyDraft(width=2, arms=("big", "tiny"), aggregator="tiny"))
    assert (policy.members.arms, policy.members.aggregator) == (("big", "tiny"), "tiny")
    assert policy.tools == ("search", "python")
    assert "exactly 3" in violations(PolicyDraft(width=3, arms=("big", "tiny")))["policy.members.arms"]


def test_unknown_and_unserved_profiles_are_told_apart() -> None:
    found = violations(PolicyDraft(width=2, arms=("nobody", "idle"), aggregator="nobody"))
    assert "known: big, idle, tiny" in found["policy.members.arms[0]"]
    assert "does not serve it; served: big, tiny" in found["policy.members.arms[1]"]
    assert "known: big, idle, tiny" in found["policy.members.aggregator"]


def test_a_temperature_alone_keeps_the_profiles_top_p() -> None:
    assert defaults().resolve(PolicyDraft(temperature=0)).sampling == Sampling(0, 0.9)
    assert defaults().resolve(PolicyDraft(top_p=1.0)).sampling == Sampling(0.7, 1.0)


def test_no_tools_are_none_and_named_ones_are_kept_in_order() -> None:
    assert defaults().resolve(PolicyDraft(tools=())).tools == ()
    assert defaults().resolve(PolicyDraft(tools=("search", "python"))).tools == ("search", "python")
    found = violations(PolicyDraft(tools=("python", "shell", "python")))
    assert "known: python, search" in found["policy.tools[1]"]
    assert "second time" in found["policy.tools[2]"]


def test_deadlines_stay_within_the_servers_limit() -> None:
    assert defaults(deadline_max_s=60).resolve(PolicyDraft()).deadline_s == 60
    assert "at most 60 s" in violations(PolicyDraft(deadline_s=61), deadline_max_s=60)["policy.deadline"]
    assert "policy.deadline" in violations(PolicyDraft(deadline_s=0))


def test_steps_are_bounded_for_the_whole_run() -> None:
    assert (
        defaults().resolve(PolicyDraft(steps_per_trajectory_max=500)).budget.steps_per_trajectory_max == 500
    )
    found = violations(PolicyDraft(steps_per_trajectory_max=501))
    assert "at most 500 an arm" in found["policy.budget.steps_per_trajectory_max"]


NUMBERS = [
    name
    for name in (item.name for item in fields(PolicyDraft))
    if name not in ("arms", "aggregator", "aggregation", "early_stop", "tools", "context_policy", "arms_from")
]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 10**400])
def test_no_number_may_be_absurd(name: str, value: float) -> None:
    assert len(violations(replace(PolicyDraft(), **{name: value}))) == 1


def test_everything_wrong_is_said_at_once() -> None:
    found = violations(
        PolicyDraft(width=9, quorum=0, vote_threshold=0.5, top_p=0, tokens_max=0, cost_usd_max=0, seed=-1)
    )
    assert set(found) == {
        "policy.width",
        "policy.quorum",
        "policy.vote_threshold",
        "policy.sampling.top_p",
        "policy.budget.tokens_max",
        "policy.budget.cost_usd_max",
        "policy.sampling.seed",
    }


ANY_NUMBER = st.none() | st.integers() | st.floats()


@given(
    st.builds(
        PolicyDraft,
        arms=st.lists(st.sampled_from(["tiny", "big", "idle", "nobody"]), max_size=9).map(tuple),
        aggregator=st.sampled_from(["", "tiny", "nobody"]),
        tools=st.none() | st.lists(st.sampled_from(["python", "search", "shell"]), max_size=3).map(tuple),
        **dict.fromkeys(NUMBERS, ANY_NUMBER),
    )
)
@settings(deadline=None)
def test_any_draft_gives_a_sound_policy_or_an_invalid_request(draft: PolicyDraft) -> None:
    try:
        policy = defaults().resolve(draft)
    except InvalidRequest:
        return
    assert_sound(policy)


def assert_sound(policy: Policy) -> None:
    assert 1 <= policy.quorum <= policy.width <= 8
    assert len(policy.members.arms) == policy.width
    assert 0 < policy.deadline_s <= Settings().deadline_max_s
    assert 0.5 < policy.vote_threshold <= 1
    assert policy.width * policy.budget.steps_per_trajectory_max <= 4_000


def test_a_count_must_be_a_whole_number() -> None:
    found = violations(PolicyDraft(width=1.5, quorum=0.5))  # type: ignore[arg-type]
    assert set(found) == {"policy.width", "policy.quorum"}
    assert "whole number" in found["policy.width"]


def test_a_fingerprint_depends_on_messages_and_draft_alone() -> None:
    hello, draft = (Message(Role.USER, "Hello"),), PolicyDraft(width=2)
    assert fingerprint(hello, draft) == fingerprint(hello, PolicyDraft(width=2))
    assert fingerprint(hello, draft) != fingerprint(hello, PolicyDraft(width=3))
    assert fingerprint(hello, draft) != fingerprint((Message(Role.USER, "Goodbye"),), draft)
    assert fingerprint(hello, draft) != fingerprint(hello * 2, draft)


EARLIER = RunId("run-0123456789abcdef01234567")


def test_arms_taken_over_are_the_width() -> None:
    policy = defaults().resolve(PolicyDraft(arms_from=ArmsFrom(EARLIER, (5, 1, 0))))
    assert (policy.width, policy.quorum, len(policy.members.arms)) == (3, 3, 3)


@pytest.mark.parametrize(
    ("taken", "width", "path"),
    [
        (ArmsFrom(EARLIER, ()), None, "policy.arms_from.arms"),
        (ArmsFrom(EARLIER, (1, 1)), None, "policy.arms_from.arms"),
        (ArmsFrom(EARLIER, (8,)), None, "policy.arms_from.arms"),
        (ArmsFrom(EARLIER, (-1,)), None, "policy.arms_from.arms"),
        (ArmsFrom(RunId("../x"), (0,)), None, "policy.arms_from.run_id"),
        (ArmsFrom(EARLIER, (0, 1)), 3, "policy.width"),
    ],
)
def test_arms_that_cannot_be_taken_over_are_named(taken: ArmsFrom, width: int | None, path: str) -> None:
    assert set(violations(PolicyDraft(arms_from=taken, width=width))) == {path}


def test_a_preset_of_the_first_arms_profile_fills_in_what_the_caller_left_open() -> None:
    policy = defaults().resolve(
        PolicyDraft(arms=("big",), preset="search", reasoning_tokens_per_step_max=999)
    )
    assert policy.preset == "search"
    assert policy.budget.steps_per_trajectory_max == 300
    assert policy.budget.reasoning_tokens_per_step_max == 999
    assert policy.sampling == Sampling(temperature=0.4, top_p=1.0)


def test_a_preset_that_is_not_there_is_named_with_those_that_are() -> None:
    found = violations(PolicyDraft(arms=("big",), preset="serch"))
    assert found == {"policy.preset": "'serch' is not a preset of big; known: search"}
    assert violations(PolicyDraft(preset="x"))["policy.preset"].endswith("tiny; known: none")
