"""Whether a question is one Abacus was made for. Standard library only.

Abacus knows templates, not language: a question is in scope when its words are the words of its tasks, it
holds at least two numbers of a size that was trained, and it is not much longer than what was trained.
"""

from __future__ import annotations

import re
from functools import lru_cache

from workers.abacus.tasks import LEVELS, TRAINED, make_problem

WORDS_KNOWN_MIN = 0.9
NUMBERS_MIN, NUMBERS_MAX = 2, 16
NUMBER_LIMIT = 999
CHARACTERS_MAX = 420
_WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"\d+")
_STRANGE = re.compile(r"[^A-Za-z0-9 .,:;?!=+\-*/'\n]")
_SAMPLES = 120


@lru_cache(maxsize=1)
def lexicon() -> frozenset[str]:
    """Every word of the training templates, read off generated problems."""
    words: set[str] = set()
    for family in TRAINED:
        for level in LEVELS[family]:
            for index in range(_SAMPLES):
                words.update(_words(make_problem(family, level, "dev", index).question))
    return frozenset(words)


def in_scope(question: str) -> bool:
    """Whether Abacus may be asked this at all; True is no promise that it answers right."""
    numbers = [int(number) for number in _NUMBER.findall(question[: CHARACTERS_MAX + 1])]
    if len(question) > CHARACTERS_MAX or _STRANGE.search(question):
        return False
    if not NUMBERS_MIN <= len(numbers) <= NUMBERS_MAX or max(numbers) > NUMBER_LIMIT:
        return False
    words = _words(question)
    return sum(word in lexicon() for word in words) >= WORDS_KNOWN_MIN * len(words)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
