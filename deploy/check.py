"""Check deploy/: Dockerfiles by hadolint, the compose file and every manifest by their schemas.

A RayCluster's own fields are held to `kubernetes/ray-cluster.schema.json`, its pod templates to Kubernetes',
the files for Prometheus and Grafana to `compose/configs.schema.json`, scripts to the shell that reads them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml

ROOT: Final = Path(__file__).resolve().parent
SCRIPTS: Final = Path(sysconfig.get_path("scripts"))


def images(root: Path) -> list[str]:
    """What hadolint finds in the Dockerfiles."""
    files = sorted(map(str, (root / "images").glob("*.Dockerfile")))
    done = subprocess.run([str(SCRIPTS / "hadolint"), *files], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line]


def compose(root: Path) -> list[str]:
    """What the Compose Specification's schema finds, and files that are mounted but not there."""
    file = root / "compose.yaml"
    command = [str(SCRIPTS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()
    services = {name: one for part in _read(file, found) for name, one in part.get("services", {}).items()}
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            source = str(volume).partition(":")[0]
            if source.startswith(("./compose", "../")) and not (root / source).exists():
                found.append(f"{file.name}: {name} mounts {source}, which is not there")
    return found


def configs(root: Path) -> list[str]:
    """What is wrong in the files that the compose file mounts."""
    found: list[str] = []
    for name, schema in json.loads((ROOT / "compose" / "configs.schema.json").read_text()).items():
        for config in _read(root / "compose" / name, found) if isinstance(schema, dict) else ():
            errors = jsonschema.Draft202012Validator(schema).iter_errors(config)
            found += [f"{name}: {error.json_path}: {error.message}" for error in errors]
    return found


def scripts(root: Path) -> list[str]:
    """What the shell cannot read."""
    files = sorted(map(str, (root / "images").glob("*.sh")))
    runs = [subprocess.run(["sh", "-n", file], capture_output=True, text=True, check=False) for file in files]
    return [line for run in runs for line in run.stderr.splitlines()]


def _read(file: Path, found: list[str]) -> list[dict[str, Any]]:
    """The documents of a YAML file; none, and one more line of `found`, where it is none."""
    try:
        return list(yaml.safe_load_all(file.read_text()))
    except yaml.YAMLError as error:
        found.append(f"{file.name}: this is not YAML: {' '.join(str(error).split())}")
        return []


def manifests(root: Path) -> list[str]:
    """What the schemas of Kubernetes find in every manifest."""
    found: list[str] = []
    for file in sorted((root / "kubernetes").glob("*.yaml")):
        for resource in _read(file, found):
            found += [f"{file.name}: {problem}" for problem in _problems(resource)]
    return found


def _problems(resource: dict[str, Any]) -> Iterator[str]:
    if resource["kind"] != "RayCluster":
        yield from _kubernetes(resource, str(resource["kind"]))
        return
    schema = json.loads((ROOT / "kubernetes" / "ray-cluster.schema.json").read_text())
    for error in jsonschema.Draft202012Validator(schema).iter_errors(resource):
        yield f"RayCluster: {error.json_path}: {error.message}"
    spec = resource["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        name = group.get("groupName", "head")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **group["template"]}
        yield from _kubernetes(pod, f"RayCluster group {name}")


def _kubernetes(resource: dict[str, Any], what: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kubernetes_validate.validate(resource, "1.37.0", strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        yield f"{what}: {error}"


def main() -> int:
    """Every problem on standard error, a line each; 1 when there are any."""
    found = [*images(ROOT), *compose(ROOT), *manifests(ROOT), *configs(ROOT), *scripts(ROOT)]
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
