"""Write dashboards/ from the metric names in the code, or check that it is what they give.

python -m deploy.boards [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from deploy.boards import alerts, cost, latency, overview, replicas, tools
from deploy.boards.board import Board, to_json

DASHBOARDS: Final = Path(__file__).parents[2] / "dashboards"
BOARDS: Final[tuple[Board, ...]] = tuple(
    module.BOARD for module in (overview, cost, latency, replicas, tools)
)


def files() -> dict[str, str]:
    """What belongs into dashboards/, by name."""
    boards = {f"{board.uid}.json": to_json(board) for board in BOARDS}
    return {**boards, "alerts.yml": alerts.to_yaml()}


def drifted(directory: Path) -> list[str]:
    """The files in `directory` that are not what the code gives, or not there, or nobody's."""
    wanted = files()
    found = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*") if path.is_file()}
    found.pop("README.md", None)
    return sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))


def main() -> str | None:
    """None when written, or when nothing has drifted; else what is wrong, for stderr and status 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when dashboards/ has drifted"
    )
    check: bool = parser.parse_args().check
    if check:
        names = drifted(DASHBOARDS)
        return (
            f"dashboards/ is not what the code gives ({', '.join(names)}): run `make dashboards`"
            if names
            else None
        )
    DASHBOARDS.mkdir(exist_ok=True)
    for name, text in files().items():
        (DASHBOARDS / name).write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
