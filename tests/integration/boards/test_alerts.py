"""The alerts by Prometheus' own tool: the rules are valid, fire when they should, and only then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.boards.__main__ import DASHBOARDS
from deploy.boards.alerts import ALERTS

from tests_support.parts import part

HERE = Path(__file__).parent
CASES = ("alerts_test.yml", "alerts_cost_test.yml")
RULES = DASHBOARDS / "alerts.yml"


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [part("prometheus/promtool"), *arguments], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)


def test_the_configuration_that_is_shipped_is_one_of_prometheus() -> None:
    shipped = DASHBOARDS.parent / "deploy" / "compose" / "prometheus.yml"
    assert "SUCCESS" in promtool("check", "config", "--syntax-only", shipped)


@pytest.mark.parametrize("cases", CASES)
def test_alerts_fire_when_they_should_and_only_then(cases: str, tmp_path: Path) -> None:
    text = (HERE / cases).read_text(encoding="utf-8").replace("ALERTS", str(RULES))
    (tmp_path / cases).write_text(text, encoding="utf-8")
    assert "SUCCESS" in promtool("test", "rules", tmp_path / cases)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for cases in CASES:
        for test in yaml.safe_load((HERE / cases).read_text(encoding="utf-8"))["tests"]:
            for case in test["alert_rule_test"]:
                (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    assert fires == silent == {alert.name for alert in ALERTS}
