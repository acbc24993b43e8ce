"""What Heavy ships to run without a GPU, and with which question it shows itself."""

from __future__ import annotations

from pathlib import Path

PROFILE_DIRECTORIES = (str(Path(__file__).parent / "abacus"),)
"""Directories of profiles that come with the workers."""
LOCAL_PROFILE = "abacus"
"""What is served where nothing else was asked for."""
DEMO_QUESTION = "Use python: multiply 4821 by 37, subtract 512, then divide by 5, rounding down."


def demo_tools(question: str) -> tuple[str, ...]:
    """The tools that Abacus is given in the demo: python, where the question asks for it (see FORMAT.md)."""
    return ("python",) if "python" in question.lower() else ()
