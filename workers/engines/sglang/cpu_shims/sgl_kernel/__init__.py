"""Stands in for SGLang's GPU kernels where there is no GPU, so that its modules can be imported.

Every name is there and raises when it is called: a kernel that is really needed is an error,
never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

__version__ = "0.4.10"
"""The release of the kernels that SGLang 0.5.23 asks for."""


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_arguments: object, **_options: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} needs a GPU; this SGLang runs on the CPU")

    missing.__name__ = missing.__qualname__ = name
    return missing
