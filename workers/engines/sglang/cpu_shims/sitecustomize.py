"""Lets torchvision be imported beside a CPU build of torch, whose binary operators it then lacks.

Torchvision registers meta kernels for two of its operators at import and fails where they were never
declared. SGLang imports it for images only, so declaring them is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[object] = []
"""A library's operators disappear with the object that declared them."""


class _BeforeTorchvision:
    """A finder that finds nothing; asked for torchvision, it declares the operators first."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            _declare_operators()
        return None


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(operator + _SIGNATURE)
    _kept.append(library)


sys.meta_path.insert(0, _BeforeTorchvision())
