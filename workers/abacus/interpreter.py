"""Runs the arithmetic the model prints in a Python process of its own, offline and only while evaluating.

Code must be `print(...)` over whole numbers, names and operators, checked by its syntax tree before it
runs: this is for the model's own small tasks and no sandbox. The service runs model code in its real one.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from types import TracebackType

from workers.abacus import cell

_ALLOWED = (
    ast.Module, ast.Expr, ast.Call, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Add,
    ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod, ast.USub, ast.UAdd,
)  # fmt: skip
CODE_MAX = 200


class Interpreter:
    """A child process; use it as a context manager."""

    def __enter__(self) -> Interpreter:
        self._child = subprocess.Popen(
            [sys.executable, "-I", cell.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait(timeout=10)

    def run(self, code: str) -> str:
        """What the code printed or its traceback, as Heavy's tool says it; only arithmetic is run."""
        if not is_arithmetic(code):
            return "PermissionError: only print(...) of arithmetic is run here"
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(code) + "\n")
        self._child.stdin.flush()
        return str(json.loads(self._child.stdout.readline()))


def is_arithmetic(code: str) -> bool:
    """Whether code is short and prints numbers, names and operators only; a syntax error may run."""
    if len(code) > CODE_MAX:
        return False
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return True
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id == "print"):
            return False
        if isinstance(node, ast.Constant) and not isinstance(node.value, int):
            return False
    return True
