"""Ctrl-C and SIGTERM go to whoever asked for them last; when that one is done, to the one before."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


class Interrupted(Exception):
    """Ctrl-C or SIGTERM ended a block; what it had brought up is down again."""


Handler = Callable[[], None]

_handlers: list[tuple[Handler, Handler]] = []
"""For Ctrl-C and for SIGTERM."""


@contextlib.contextmanager
def on_interrupt(handler: Handler, *, on_terminate: Handler | None = None) -> Iterator[None]:
    """Within it, `handler` is called in the running loop at every Ctrl-C; at every SIGTERM, too, unless that
    has one of its own: a person may be asked back, a supervisor means it."""
    handlers = (handler, on_terminate or handler)
    _handlers.append(handlers)
    _install()
    try:
        yield
    finally:
        _handlers.remove(handlers)
        _install()


def _install() -> None:
    loop = asyncio.get_running_loop()
    for index, number in enumerate((signal.SIGINT, signal.SIGTERM)):
        if _handlers:
            loop.add_signal_handler(number, _handlers[-1][index])
        else:
            loop.remove_signal_handler(number)
