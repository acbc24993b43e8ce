"""Programs that `make test-parts` made runnable. Never skipped: without one, its tests are in error."""

from __future__ import annotations

import os
from pathlib import Path


def part(program: str) -> Path:
    """A program by its path below the cache directory, such as `redis/redis-server`."""
    home = os.environ.get("HEAVY_CACHE_DIR")
    root = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heavy"
    binary = root / program
    if not binary.exists():
        raise FileNotFoundError(f"{binary} is not there: run `make test-parts` once")
    return binary
