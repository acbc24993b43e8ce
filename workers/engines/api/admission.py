"""A bounded queue in front of an engine: so many run, so many wait, so many KV tokens are promised."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from workers.engines.api.errors import QueueFull

RETRY_AFTER_S = 1


@dataclass(slots=True)
class Ticket:
    """A place in the queue, later a place among the running. `tokens` is what it may occupy of the KV."""

    tokens: int
    start: Callable[[], None]
    state: str = "waiting"
    entered_s: float = field(default_factory=time.monotonic)
    admitted_s: float | None = None

    @property
    def queued_s(self) -> float:
        """Seconds until it was let in; so far, while it waits."""
        return (self.admitted_s or time.monotonic()) - self.entered_s


class Admission:
    """First come, first served, over two limits: running generations and promised KV tokens.

    A generation larger than the whole capacity is let in alone. Loop thread only.
    """

    def __init__(self, running_max: int, waiting_max: int, tokens_max: int) -> None:
        self.running_max = running_max
        self.waiting_max = waiting_max
        self.tokens_max = tokens_max
        self.running = 0
        self.promised = 0
        self._waiting: deque[Ticket] = deque()

    @property
    def waiting(self) -> int:
        """Generations that have not started."""
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """KV tokens that the waiting ones will ask for."""
        return sum(ticket.tokens for ticket in self._waiting)

    def enter(self, tokens: int, start: Callable[[], None]) -> Ticket:
        """Queue up; `start` is called when there is room, perhaps at once. Raises QueueFull."""
        ticket = Ticket(min(tokens, self.tokens_max), start)
        if not self._fits(ticket) or self._waiting:
            if len(self._waiting) >= self.waiting_max:
                raise QueueFull(
                    f"{self.running} generations run and {len(self._waiting)} of {self.waiting_max} wait. "
                    f"Retry after {RETRY_AFTER_S} s or ask another replica.",
                    retry_after_s=RETRY_AFTER_S,
                )
            self._waiting.append(ticket)
        else:
            self._admit(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the place back, running or waiting, and start whoever fits now. Idempotent."""
        if ticket.state == "running":
            self.running -= 1
            self.promised -= ticket.tokens
        elif ticket.state == "waiting":
            self._waiting.remove(ticket)
        ticket.state = "gone"
        while self._waiting and self._fits(self._waiting[0]):
            self._admit(self._waiting.popleft())

    def _fits(self, ticket: Ticket) -> bool:
        return self.running < self.running_max and self.promised + ticket.tokens <= self.tokens_max

    def _admit(self, ticket: Ticket) -> None:
        ticket.state = "running"
        ticket.admitted_s = time.monotonic()
        self.running += 1
        self.promised += ticket.tokens
        ticket.start()
