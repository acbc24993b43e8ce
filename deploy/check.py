"""Check deploy/: Dockerfiles by hadolint, the compose file and every manifest by their schemas.

A RayCluster's own fields are held to `kubernetes/ray-cluster.schema.json`, its pod templates to Kubernetes'.
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
    services = yaml.safe_load(file.read_text())["services"]
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            source = str(volume).partition(":")[0]
            if source.startswith(("./compose", "../")) and not (root / source).exists():
                found.append(f"{file.name}: {name} mounts {source}, which is not there")
    return found


def manifests(root: Path) -> list[str]:
    """What the schemas of Kubernetes find in every manifest."""
    found = []
    for file in sorted((root / "kubernetes").glob("*.yaml")):
        for resource in yaml.safe_load_all(file.read_text()):
            found += [f"{file.name}: {problem}" for problem in _problems(resource)]
    return found


def _problems(resource: dict[str, Any]) -> Iterator[str]:
    if resource["kind"] != "RayCluster":
        yield from _kubernetes(resource, resource["kind"])
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
    found = [*images(ROOT), *compose(ROOT), *manifests(ROOT)]
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
