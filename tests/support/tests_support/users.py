"""What the tests do as another user than the one that runs them."""

from __future__ import annotations

import sys
from pathlib import Path

from heavy.tools.sandbox import jail


def as_ordinary_user() -> list[str]:
    """A command prefix that drops root to nobody. Folders that only root may enter are replaced."""
    closed = {path for path in Path(sys.base_prefix).parents if path.stat().st_mode & 0o001 == 0}
    prefix = [jail._bwrap(), "--dev-bind", "/", "/", "--cap-add", "ALL"]
    for path in sorted(closed):
        inside = Path(sys.base_prefix).relative_to(path)
        prefix += ["--perms", "0755", "--tmpfs", str(path)]
        for depth in range(len(inside.parts)):
            prefix += ["--perms", "0755", "--dir", str(path.joinpath(*inside.parts[: depth + 1]))]
        prefix += ["--bind", sys.base_prefix, sys.base_prefix]
    return [*prefix, "--", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/tmp"]
