"""What is wanted of a profile, as it is asked for again and changed by administrators."""

from __future__ import annotations

from dataclasses import replace

from heavy.coordinator.fleet import asked_for
from heavy.core.fleet import Wanted
from heavy.profiles.loader import load_profiles
from heavy.profiles.schema import Profile

PROFILE = load_profiles([]).get("simulated")


def again(before: Wanted | None, profile: Profile = PROFILE, replicas: int | None = 2) -> Wanted:
    return asked_for(profile, before, replicas, now_ms=2_000)


def test_what_administrators_have_changed_outlives_a_restart_of_the_coordinator() -> None:
    changed = replace(again(None), replicas=5, replicas_min=5, replicas_max=5, restarts=1, asked_ms=1_000)
    assert again(changed) == replace(changed, asked_ms=2_000)


def test_a_profile_that_is_another_one_than_the_last_time_takes_the_place_of_all_changes() -> None:
    changed = replace(again(None), definition="{}", replicas=5, replicas_min=5, replicas_max=5)
    other = PROFILE.model_copy(update={"title": "another"})
    assert again(changed, other).definition == other.model_dump_json(exclude_defaults=True)
    assert again(changed, replicas=3).replicas_min == 3


def test_a_setting_that_a_newer_version_adds_is_no_update() -> None:
    definition = again(None).definition
    assert "drain_timeout_s" not in definition
    assert Profile.model_validate_json(definition) == PROFILE


def test_what_anybody_wants_kept_is_kept() -> None:
    kept = asked_for(PROFILE, None, 2, 1_000, keep=True)
    assert kept.kept
    assert again(kept).kept
    assert again(kept, replicas=3).kept
    assert not again(None).kept


def test_what_was_dismissed_is_wanted_again() -> None:
    assert not again(replace(again(None), dismissed=True)).dismissed
