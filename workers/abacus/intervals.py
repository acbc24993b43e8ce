"""95% intervals: Wilson's for shares of problems, a bootstrap over problems for means. Standard library
only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import sqrt

Z = 1.959964
RESAMPLES = 2000


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    centre = share + Z * Z / (2 * total)
    spread = Z * sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The percentile interval of the mean of per-problem values."""
    if not values:
        return 0.0, 1.0
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]
