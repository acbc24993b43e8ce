"""The loop's bounds as a profile may set them."""

from __future__ import annotations

from dataclasses import fields, replace

from heavy.agent.limits import AgentLimits, LadderLimits, StuckLimits
from heavy.profiles.schema import AgentSection, LadderSection, Profile, StuckSection

OF_THE_RUNNER = {"checkpoint_tokens", "checkpoint_s"}
"""Those are settings: what a lost runner may cost is no matter of the model."""


def test_every_bound_of_the_loop_can_be_set_in_a_profile() -> None:
    for limits, section in (
        (AgentLimits, AgentSection),
        (StuckLimits, StuckSection),
        (LadderLimits, LadderSection),
    ):
        assert set(section.model_fields) == {field.name for field in fields(limits)} - OF_THE_RUNNER


def test_a_profile_changes_what_it_names_and_nothing_else() -> None:
    agent = {"empty_retries_max": 4, "stuck": {"same_call_stop_at": 99}, "ladder": {"told_max": 5}}
    profile = Profile.model_validate(
        {
            "name": "a",
            "title": "A",
            "engine": "simulated",
            "model": "a",
            "context_tokens": 256,
            "agent": agent,
        }
    )
    base = AgentLimits(backoff_s=0.1)
    assert base.changed(profile.agent) == replace(
        base, empty_retries_max=4, stuck=StuckLimits(same_call_stop_at=99), ladder=LadderLimits(told_max=5)
    )
    assert base.changed(AgentSection()) == base
