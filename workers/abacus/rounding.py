"""INT4 while training: the forward pass sees the weights as the export will round them, the step does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

GROUP = 32
LEVELS = 8  # symmetric INT4 holds -8..7


def as_int4(weight: Tensor) -> Tensor:
    """A matrix rounded as `export.QUANTISE` says: a signed scale for each 32 numbers of a row (NNCF's)."""
    groups = weight.unflatten(-1, (-1, GROUP))
    low, high = groups.amin(-1, keepdim=True).abs(), groups.amax(-1, keepdim=True)
    scale = torch.where(low >= high, low, -high) / LEVELS
    scale = torch.where(scale.abs() < 1e-12, torch.full_like(scale, 1e-12), scale)
    return ((groups / scale).round().clamp(-LEVELS, LEVELS - 1) * scale).flatten(-2)


@contextmanager
def rounded(matrices: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Within, the matrices hold what INT4 makes of them; the gradients taken there are for the exact ones."""
    exact = [matrix.data for matrix in matrices]
    try:
        for matrix in matrices:
            matrix.data = as_int4(matrix.data)
        yield
    finally:
        for matrix, data in zip(matrices, exact, strict=True):
            matrix.data = data
