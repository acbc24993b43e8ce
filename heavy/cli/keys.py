"""Whoever sits at the terminal: what they type does not disturb what is drawn, and a key can be asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Final

CTRL_C: Final = "\x03"
_LOCAL_FLAGS: Final = 3
"""Their place among what `tcgetattr` gives."""


def person_there() -> bool:
    """Whether somebody at the terminal can be asked: it is standard input, and ours while in front."""
    if not sys.stdin.isatty():
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Within it, the terminal does not show what is typed: the ^C of a Ctrl-C would move what is drawn."""
    if not person_there():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[_LOCAL_FLAGS] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def one_key(into: asyncio.Queue[str]) -> Iterator[None]:
    """Within it, the next key goes `into` a queue, without Enter; the terminal is then as it was.

    Ctrl-C stays a signal. What was typed before is thrown away: it was no answer.
    """
    loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def read() -> None:
        loop.remove_reader(terminal)
        put(into, os.read(terminal, 1).decode(errors="replace"))

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def put(into: asyncio.Queue[str], word: str) -> None:
    """Into a queue, unless it is full: what it says has then been said already."""
    with contextlib.suppress(asyncio.QueueFull):
        into.put_nowait(word)
