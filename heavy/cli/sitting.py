"""One sitting of a batch at a terminal: shown while it lasts, ended by Ctrl-C in two steps."""

from __future__ import annotations

import asyncio

from heavy.batch.runner import Batch, BatchEnd
from heavy.cli.batch_screen import Screen
from heavy.cli.interrupts import on_interrupt


async def sit(asking: Batch, screen: Screen) -> BatchEnd | None:
    """Run a batch. The first Ctrl-C lets what is out end; None when a second one left it."""
    task = asyncio.current_task()
    assert task is not None
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            asking.stop()
            screen.say(
                f"Asking no more; waiting for {asking.progress.out} runs. Ctrl-C again leaves them running."
            )
        else:
            task.cancel()

    with on_interrupt(interrupt), screen.showing(lambda: asking.progress):
        try:
            return await asking.run()
        except asyncio.CancelledError:
            if interrupts < 2 or task.uncancel():
                raise
            return None
