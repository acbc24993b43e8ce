"""The deployment files pass their check, and the check sees what is wrong with them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import check

from tests_support.up import ROOT

SGLANG_LOCK = ROOT / "workers" / "engines" / "sglang" / "requirements-cpu.lock"


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """A copy of the deployment files with one text replaced in one of them."""

    def change(file: str, text: str, by: str) -> Path:
        for part in ("deploy", "dashboards"):
            shutil.copytree(ROOT / part, tmp_path / part, dirs_exist_ok=True)
        path = tmp_path / "deploy" / file
        assert text in path.read_text()
        path.write_text(path.read_text().replace(text, by, 1))
        return tmp_path / "deploy"

    return change


def test_what_is_shipped_has_no_problems() -> None:
    assert check.images(check.ROOT) == []
    assert check.compose(check.ROOT) == []
    assert check.manifests(check.ROOT) == []
    assert check.configs(check.ROOT) == []
    assert check.scripts(check.ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "by", "says"),
    [
        ("kubernetes/heavy.yaml", "replicas: 2", 'replicas: "two"', "'two' is not of type"),
        ("kubernetes/heavy.yaml", "terminationGracePeriodSeconds", "terminationGrace", "terminationGrace"),
        ("kubernetes/ray-cluster.yaml", "maxReplicas: 8", "maxReplica: 8", "maxReplica"),
        ("kubernetes/ray-cluster.yaml", "image: heavy-engine:0.1.0", "imagee: x", "group gpu-8"),
        ("kubernetes/stores.yaml", "serviceName: store", "serviceNam: store", "serviceNam"),
    ],
)
def test_a_manifest_that_kubernetes_would_refuse_is_refused(
    changed: Callable[[str, str, str], Path], file: str, text: str, by: str, says: str
) -> None:
    assert any(says in line for line in check.manifests(changed(file, text, by)))


def test_a_compose_file_with_an_unknown_key_or_a_missing_mount_is_refused(
    changed: Callable[[str, str, str], Path],
) -> None:
    assert check.compose(changed("compose.yaml", "restart: unless-stopped", "restarts: always"))
    found = check.compose(changed("compose.yaml", "prometheus.yml:/etc", "promtheus.yml:/etc"))
    assert any("promtheus.yml, which is not there" in line for line in found)


def test_a_dockerfile_with_a_floating_base_is_refused(changed: Callable[[str, str, str], Path]) -> None:
    found = check.images(changed("images/engine.Dockerfile", "sglang:v0.5.23", "sglang:latest"))
    assert any("DL3007" in line for line in found)


@pytest.mark.parametrize(
    ("file", "text", "by", "says"),
    [
        ("compose.yaml", "  store:", "   store:", "compose.yaml: this is not YAML"),
        ("kubernetes/heavy.yaml", "      containers:", "     containers:", "heavy.yaml: this is not YAML"),
        ("compose/prometheus.yml", "scrape_configs", "scrap_configs", "'scrape_configs' is a required"),
        ("compose/prometheus.yml", "15s", "15 s", "'15 s' does not match"),
        ("compose/grafana-datasources.yml", "isDefault", "isDefaullt", "isDefaullt"),
        ("compose/grafana-dashboards.yml", "apiVersion: 1", "apiVersion: [", "this is not YAML"),
        ("images/serve.sh", "set -eu", "if true; then", "serve.sh"),
        ("images/control.Dockerfile", "WORKDIR /opt", "WORKDIRR /opt", "control.Dockerfile"),
    ],
)
def test_a_wrong_indentation_key_or_instruction_is_a_line_with_its_file(
    changed: Callable[[str, str, str], Path], file: str, text: str, by: str, says: str
) -> None:
    root = changed(file, text, by)
    found = [*check.images(root), *check.compose(root), *check.manifests(root)]
    found += [*check.configs(root), *check.scripts(root)]
    assert any(says in line for line in found)


def test_what_runs_is_what_is_locked_and_tested() -> None:
    """Ray is one version on every node; SGLang is the one that its CPU variant is tested with."""
    lock = (ROOT / "requirements.lock").read_text()
    ray = re.search(r"^ray(?:\[\w+\])?==([\d.]+)", lock, re.MULTILINE)
    assert ray is not None
    assert f"rayVersion: {ray[1]}\n" in (ROOT / "deploy" / "kubernetes" / "ray-cluster.yaml").read_text()
    sglang = re.search(r"^sglang==([\d.]+)", SGLANG_LOCK.read_text(), re.MULTILINE)
    assert sglang is not None
    image = (ROOT / "deploy" / "images" / "engine.Dockerfile").read_text()
    assert f"FROM lmsysorg/sglang:v{sglang[1]}\n" in image


def test_every_secret_that_compose_asks_for_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "deploy" / "compose.yaml").read_text()))
    given = set(
        re.findall(r"^(\w+)=", (ROOT / "deploy" / "compose" / "env.example").read_text(), re.MULTILINE)
    )
    assert asked == given
