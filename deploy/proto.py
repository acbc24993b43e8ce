"""Generate heavy/v1 from protos/heavy/v1, or with --check say where the committed code has drifted.

Messages and type stubs for every proto; service stubs only where a service is defined.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROTOS: Final = ROOT / "protos"
PACKAGE: Final = Path("heavy/v1")
INIT: Final = '"""Generated from protos/heavy/v1 by `make proto`."""\n'


def generate(into: Path) -> None:
    """Write the whole package below `into`. Raises CalledProcessError when protoc refuses a proto."""
    every = sorted((PROTOS / PACKAGE).glob("*.proto"))
    services = [path for path in every if "\nservice " in path.read_text()]
    _protoc(f"--python_out={into}", f"--pyi_out={into}", *map(_name, every))
    _protoc(f"--grpc_python_out={into}", *map(_name, services))
    (into / PACKAGE / "__init__.py").write_text(INIT)


def drift(fresh: Path, committed: Path) -> list[str]:
    """One line for each file that is missing, left over or different."""
    compared = filecmp.dircmp(fresh, committed, ignore=["__pycache__"])
    differing = [
        name for name in compared.common_files if not filecmp.cmp(fresh / name, committed / name, False)
    ]
    return [
        *(f"missing: {PACKAGE / name}" for name in compared.left_only),
        *(f"left over: {PACKAGE / name}" for name in compared.right_only),
        *(f"out of date: {PACKAGE / name}" for name in differing),
    ]


def _name(path: Path) -> str:
    return path.relative_to(PROTOS).as_posix()


def _protoc(*arguments: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> str | None:
    """None when generated, or when nothing has drifted; else what is wrong, for stderr and status 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail when heavy/v1 has drifted")
    check: bool = parser.parse_args().check
    committed = ROOT / PACKAGE
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / PACKAGE
        try:
            generate(Path(scratch))
        except subprocess.CalledProcessError as error:
            return f"protoc failed with status {error.returncode}; what it said is above"
        if not check:
            shutil.rmtree(committed, ignore_errors=True)
            shutil.copytree(fresh, committed)
            return None
        lines = drift(fresh, committed)
    return (
        "\n".join([*lines, "heavy/v1 is not what protos/heavy/v1 generates: run `make proto`"])
        if lines
        else None
    )


if __name__ == "__main__":
    sys.exit(main())
