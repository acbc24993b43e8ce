"""Deciding on a replica's health from its probes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heavy.core.errors import EngineError, EngineTimeout, EngineUnavailable
from heavy.replicas.api import ReplicaLoad
from heavy.replicas.health import Health, HealthLimits, HealthReport, decide

LOAD = ReplicaLoad(3, 1, 10, 100, {})
DOWN = EngineUnavailable("refused", "r")
SILENT = EngineTimeout("silent", "r")
LIMITS = HealthLimits(failures_max=3, timeouts_max=2, successes_min=2)


def after(*probes: ReplicaLoad | EngineError, limits: HealthLimits = LIMITS) -> HealthReport:
    report = HealthReport()
    for probe in probes:
        report = decide(report, probe, limits)
    return report


def test_a_server_is_well_after_enough_good_probes() -> None:
    assert after(LOAD).health is Health.UNKNOWN
    assert after(LOAD, LOAD) == HealthReport(Health.WELL, LOAD, "", True, 0, 2)
    assert not after(LOAD, LOAD, LOAD).changed


def test_a_busy_server_that_misses_a_probe_or_two_stays_well_and_keeps_its_load() -> None:
    report = after(LOAD, LOAD, DOWN, DOWN)
    assert (report.health, report.load, report.problem) == (Health.WELL, LOAD, "refused")
    assert after(LOAD, LOAD, SILENT, DOWN).health is Health.WELL


def test_failures_in_a_row_make_it_ill_and_say_why() -> None:
    report = after(LOAD, LOAD, DOWN, DOWN, DOWN)
    assert (report.health, report.changed, report.problem) == (Health.ILL, True, "refused")
    assert after(LOAD, LOAD, DOWN, DOWN, DOWN, LOAD).health is Health.ILL
    assert after(LOAD, LOAD, DOWN, DOWN, DOWN, LOAD, LOAD).health is Health.WELL


def test_silence_is_waited_for_within_a_probe_and_makes_it_ill_sooner_than_refusals() -> None:
    assert after(LOAD, LOAD, SILENT, SILENT).health is Health.ILL
    assert after(LOAD, LOAD, SILENT, LOAD, SILENT).health is Health.WELL


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_health_changes_only_after_as_many_equal_probes_in_a_row(
    good: list[bool], failures_max: int, successes_min: int
) -> None:
    limits = HealthLimits(failures_max=failures_max, successes_min=successes_min)
    report = HealthReport()
    for position, fine in enumerate(good):
        before, report = report, decide(report, LOAD if fine else DOWN, limits)
        assert report.changed == (report.health is not before.health)
        if report.changed:
            run = successes_min if fine else failures_max
            assert good[position + 1 - run : position + 1] == [fine] * run
