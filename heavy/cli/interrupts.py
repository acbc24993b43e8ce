"""Ctrl-C and SIGTERM go to whoever asked for them last; when that one is done, to the one before."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


class Interrupted(Exception):
    """Ctrl-C or SIGTERM ended a block; what it had brought up is down again."""


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_handlers: list[Callable[[], None]] = []


@contextlib.contextmanager
def on_interrupt(handler: Callable[[], None]) -> Iterator[None]:
    """Within it, `handler` is called in the running loop at every Ctrl-C or SIGTERM."""
    _handlers.append(handler)
    _install()
    try:
        yield
    finally:
        _handlers.remove(handler)
        _install()


def _install() -> None:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if _handlers:
            loop.add_signal_handler(number, _handlers[-1])
        else:
            loop.remove_signal_handler(number)
