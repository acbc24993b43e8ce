r"""Whether two short answers say the same.

Cheap first: normalised text, then exact rational numbers. What is left and looks like mathematics goes to
the `math-verify` library, in a process of its own with a time limit: answers are untrusted text, and a
symbolic engine can be made to run for ever (`9**9**9**9`).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import unicodedata
from fractions import Fraction

from heavy.core.errors import HeavyError

VERDICT_TIMEOUT_S = 3.0
START_TIMEOUT_S = 30.0
_MATHS = re.compile(r"[0-9\\^=+*/(){}]")
_NUMBER = re.compile(r"^[+-]?(\d{1,60}(\.\d{0,60})?|\.\d{1,60})(/\d{1,60})?%?$")
_TRAILING = " .,;:!"


def normalise(answer: str) -> str:
    """Text two equal answers share: compatibility forms, case, spaces, quotes, units of style gone."""
    text = unicodedata.normalize("NFKC", answer).casefold()
    text = text.replace("\u2212", "-").replace("\\,", "").replace("\\!", "").strip()
    text = re.sub(r"^\$+|\$+$|^\\\(|\\\)$|^[\"'“”]+|[\"'“”]+$", "", text).strip(_TRAILING)
    text = re.sub(r"(?<=\d),(?=\d{3}(\D|$))", "", text)
    return re.sub(r"\s+", " ", text)


def as_number(normalised: str) -> Fraction | None:
    """The exact value of a plain number, fraction or percentage; None for anything else."""
    compact = normalised.replace(" ", "")
    if not _NUMBER.match(compact):
        return None
    percent = compact.endswith("%")
    top, _, bottom = compact.rstrip("%").partition("/")
    if bottom and int(bottom) == 0:
        return None
    value = Fraction(top) / (Fraction(bottom) if bottom else 1)
    return value / 100 if percent else value


def plainly_same(left: str, right: str) -> bool | None:
    """Whether two answers are equivalent, where text and exact numbers tell; None where mathematics must."""
    a, b = normalise(left), normalise(right)
    if a == b:
        return True
    first, second = as_number(a), as_number(b)
    if first is not None and second is not None:
        return first == second
    return None if _MATHS.search(a) and _MATHS.search(b) else False


class Equivalence:
    """Judges pairs of answers. Owns one helper process, started when first needed; close it when done."""

    def __init__(
        self, timeout_s: float = VERDICT_TIMEOUT_S, start_timeout_s: float = START_TIMEOUT_S
    ) -> None:
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._verdicts: dict[tuple[str, str], bool] = {}
        self._lock = asyncio.Lock()

    async def same(self, left: str, right: str) -> bool:
        """Whether two answers are equivalent. What cannot be decided in time counts as different."""
        plain = plainly_same(left, right)
        return await self._judged(*sorted((normalise(left), normalise(right)))) if plain is None else plain

    async def close(self) -> None:
        """End the helper process; safe to call twice."""
        async with self._lock:
            await self._stop()

    async def _judged(self, a: str, b: str) -> bool:
        async with self._lock:
            if (a, b) not in self._verdicts:
                if len(self._verdicts) >= 4096:
                    self._verdicts.clear()
                self._verdicts[a, b] = await self._ask(a, b)
            return self._verdicts[a, b]

    async def _ask(self, a: str, b: str) -> bool:
        try:
            process = self._process or await self._start()
            assert process.stdin is not None
            process.stdin.write(json.dumps([a, b]).encode() + b"\n")
            return await self._line(process, self._timeout_s) == b"true\n"
        except (TimeoutError, OSError):
            await self._stop()
            return False
        except asyncio.CancelledError:
            await self._stop()
            raise

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "heavy.aggregation.judge",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._process = process
        if await self._line(process, self._start_timeout_s) != b"ready\n":
            await self._stop()
            raise HeavyError(
                "The answer judge did not start; run `python -m heavy.aggregation.judge` to see why."
            )
        return process

    @staticmethod
    async def _line(process: asyncio.subprocess.Process, timeout_s: float) -> bytes:
        assert process.stdout is not None
        async with asyncio.timeout(timeout_s):
            return await process.stdout.readline()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
