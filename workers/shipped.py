"""What Heavy ships to run without a GPU, and with which questions it shows itself."""

from __future__ import annotations

from pathlib import Path

from workers.abacus.scope import in_scope

PROFILE_DIRECTORIES = (str(Path(__file__).parent / "abacus"),)
"""Directories of profiles that come with the workers."""
LOCAL_PROFILE = "abacus"
"""What is served where nothing else was asked for."""
DEMO_QUESTIONS = (
    "Use python: start with 787, multiply by 11, subtract 512.",
    "Which number below 30 leaves 1 when divided by 5 and 2 when divided by 6?",
)
"""What the demo asks: one that is answered by calling a tool, one that checking differing answers decides."""
OUT_OF_SCOPE = f"""\
Abacus knows small arithmetic told in a few dozen sentence templates, and nothing else: an answer of its
to this question would be noise. Ask it something like:

    heavy demo "{DEMO_QUESTIONS[0]}"
    heavy demo "{DEMO_QUESTIONS[1]}"
    heavy demo "Two numbers add to 23 and multiply to 126. What is the smaller one?"
    heavy demo "There are 23 figs, 35 pears and 12 nuts. How many in all?"

For real questions attach a real model. Write a profile (a remote API, an INT4 OpenVINO model on disk, or
SGLang on your GPUs; the README has one of each), then:

    heavy up --profiles-dir DIR --profile NAME"""


def out_of_scope(profile: str, question: str) -> str:
    """What to say instead of asking, where Abacus does not know what is asked; else empty."""
    return "" if profile != LOCAL_PROFILE or in_scope(question) else OUT_OF_SCOPE
