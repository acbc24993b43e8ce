"""Every benchmark, or those named: `python -m tests.bench [NAME ...]`, from the repository's root.

A benchmark is a module `bench_NAME.py` beside this one with a `main()` that prints figures, as ratios where
it can, and asserts nothing. They run one after the other, each within bounds of its own; all of them take
about a quarter of an hour. What was measured so far is in docs/measurements.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py")))


def main() -> int:
    """Run them; the number of those that crashed."""
    flags = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Prints ratios, asserts nothing."
    )
    flags.add_argument("names", nargs="*", metavar="NAME", help=f"which of: {', '.join(NAMES)}")
    given = flags.parse_args()
    if unknown := sorted(set(given.names) - set(NAMES)):
        flags.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    sys.path.insert(0, str(HERE.parent / "support"))
    crashed = [name for name in given.names or NAMES if not _runs(name)]
    if crashed:
        print(f"\ncrashed: {', '.join(crashed)}", file=sys.stderr)
    return len(crashed)


def _runs(name: str) -> bool:
    """Whether a benchmark came to its end."""
    print(f"\n== {name}", flush=True)
    started_s = time.perf_counter()
    try:
        importlib.import_module(f"tests.bench.bench_{name}").main()
    except Exception:
        traceback.print_exc()
        return False
    print(f"-- {time.perf_counter() - started_s:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
