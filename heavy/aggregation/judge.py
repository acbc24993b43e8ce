"""The helper process of `heavy.aggregation.equivalence`: a JSON pair a line in, a verdict a line out."""

from __future__ import annotations

import json
import resource
import sys

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

MEMORY_BYTES_MAX = 2 << 30


def verdict(a: str, b: str) -> bool:
    """Whether the library finds two answers mathematically equal."""
    configs = (LatexExtractionConfig(), ExprExtractionConfig())
    first, second = (
        parse(text if "$" in text else f"${text}$", configs, parsing_timeout=0, raise_on_error=False)
        for text in (a, b)
    )
    return bool(first and second and verify(first, second, timeout_seconds=0, raise_on_error=False))


def main() -> None:
    """Answer until the other side closes the pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        a, b = json.loads(line)
        try:
            answer = verdict(a, b)
        except Exception:  # whatever a symbolic engine does with untrusted text means: not shown to be equal
            answer = False
        sys.stdout.write("true\n" if answer else "false\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
