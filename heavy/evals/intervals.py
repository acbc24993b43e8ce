"""95% intervals: Wilson's for shares, a seeded bootstrap over questions for everything else.

The bootstrap draws questions, and draws the same questions for every quantity: differences and ratios
between ways of answering are paired by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

Z: Final = 1.959963984540054
RESAMPLES: Final = 2_000
RESAMPLES_MIN: Final = 200
_WEIGHTS_MAX: Final = 40_000_000
"""Bounds the memory of a bootstrap over very many questions."""
_BLOCK: Final = 1 << 22
"""Weights drawn at once, in double their final width."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95% interval; the interval is None where there is too little to say one."""

    value: float
    low: float | None
    high: float | None


def wilson(hits: int, total: int) -> Estimate:
    """A share of `total` with Wilson's score interval (Wilson 1927). `total` must be positive."""
    share = hits / total
    centre = share + Z * Z / (2 * total)
    spread = Z * sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return Estimate(share, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


class Bootstrap:
    """Draws of n questions, as the weight each question has in each draw: fewer draws for very large n."""

    def __init__(self, n: int, seed: int) -> None:
        resamples = max(RESAMPLES_MIN, min(RESAMPLES, _WEIGHTS_MAX // max(1, n)))
        rng = np.random.default_rng(seed)
        step = max(1, _BLOCK // max(1, n))
        blocks = [
            rng.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - start)).astype(np.float32)
            for start in range(0, resamples, step)
        ]
        self._weights = np.concatenate(blocks)
        self._n = n

    def mean(self, values: Sequence[float]) -> Estimate:
        """The mean over questions."""
        return self._estimate(float(np.mean(values)), self._means(values))

    def difference(self, left: Sequence[float], right: Sequence[float]) -> Estimate:
        """The mean of `left` less that of `right`, paired."""
        return self.mean([a - b for a, b in zip(left, right, strict=True)])

    def ratio(self, above: Sequence[float], below: Sequence[float]) -> Estimate | None:
        """The ratio of two means, paired; None where the lower one is zero.

        Draws in which it is zero say nothing and are left out; where that is more than 5% of them there is
        no interval.
        """
        bottom = float(np.mean(below))
        if bottom == 0:
            return None
        tops, bottoms = self._means(above), self._means(below)
        said = np.abs(bottoms) > 1e-9
        value = float(np.mean(above)) / bottom
        if said.mean() < 0.95:
            return Estimate(value, None, None)
        return self._estimate(value, tops[said] / bottoms[said])

    def _means(self, values: Sequence[float]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.matmul(self._weights, np.asarray(values, dtype=np.float64)) / self._n
        return found

    @staticmethod
    def _estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
        low, high = np.quantile(drawn, (0.025, 0.975))
        return Estimate(value, float(low), float(high))
