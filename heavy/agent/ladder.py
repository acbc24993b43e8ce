"""Calls that cannot be used: how often the model is told, when a grammar is asked for, when it is over.

The rungs, from the cheapest: a call is mended (free); the model is told what is wrong (a step); the
generation is asked for under a grammar (a step that cannot fail the same way); an answer is forced. A state
machine without IO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from heavy.agent.limits import LadderLimits
from heavy.core.repairs import Repair


@dataclass(slots=True)
class Ladder:
    """One trajectory's way up and down. `can_constrain`: whether the engine may be asked for a grammar."""

    limits: LadderLimits
    can_constrain: bool
    repairs: Counter[str] = field(default_factory=Counter)
    """How often each repair was made, by name; at most as many as there are names."""
    _in_a_row: int = 0
    _broken: int = 0
    _constrained: int = 0
    _rescued: bool = False

    @property
    def constrains(self) -> bool:
        """Whether the next generation is to be asked for under a grammar."""
        # A model that needed it once is told once only from then on.
        told = min(self.limits.told_max, 1) if self._rescued else self.limits.told_max
        left = self._constrained < self.limits.constrained_per_trajectory_max
        return self.can_constrain and left and self._in_a_row >= max(told, 1)

    def refused(self) -> None:
        """The engine takes no grammar: it is not asked again."""
        self.can_constrain = False

    def observe(self, repairs: Iterable[str], *, broken: bool) -> str:
        """Take in a step that has ended; why it is over, or empty.

        `broken`: it wrote calls and none of them could be used.
        """
        names = tuple(repairs)
        self.repairs.update(names)
        under_grammar = Repair.CONSTRAINED in names
        self._constrained += under_grammar
        if not broken:
            self._rescued = self._rescued or under_grammar
            self._in_a_row = 0
            return ""
        self._in_a_row += 1
        self._broken += 1
        if self._in_a_row >= self.limits.told_max + self.limits.constrained_max:
            return f"{self._in_a_row} generations in a row wrote tool calls that cannot be used"
        if self._broken >= self.limits.broken_per_trajectory_max:
            return f"{self._broken} generations wrote tool calls that cannot be used"
        return ""

    def summary(self) -> str:
        """What there was to repair, most frequent first; empty where there was nothing."""
        return ", ".join(f"{name} {count}" for name, count in self.repairs.most_common())
