"""This process's KV reservations: taken before a generation, kept while it lasts, returned after it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from heavy.core import clock
from heavy.core.errors import StoreUnavailable
from heavy.store.api import KvClaim, KvHeld, Reservations, Taken

logger = logging.getLogger(__name__)

TTL_S: Final = 15.0
KEEPS_PER_TTL: Final = 3
WARM_S: Final = 120.0
"""For so long other processes take an opening to be where it was prefilled."""
GRANTED: Final = (Taken.HELD, Taken.WARM)
OUTAGE_S: Final = 5.0
"""A store that did not answer is not asked again for so long."""


class KvHolds:
    """Reservations over `heavy.store.api.Reservations`, or none at all: then everything is granted.

    They decide where a generation goes, not whether it may be: while the store is silent, routing goes by
    load reports and by what this process has in flight. Only reading and taking is waited for. The rest is
    done by one task, which lives while there is something to keep or to say; what it cannot say expires.
    """

    def __init__(self, reservations: Reservations | None = None, ttl_s: float = TTL_S) -> None:
        self._reservations = reservations
        self._ttl_s = ttl_s
        self._held: dict[str, KvClaim] = {}
        self._to_say: list[Callable[[Reservations], Awaitable[None]]] = []
        self._news = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._silent_until_s = 0.0

    async def seen(self, replicas: Sequence[str], group: str, report_age_s: float) -> Mapping[str, KvHeld]:
        """What is held of each replica; of none where nobody can tell."""
        store = self._asked()
        if store is None:
            return {}
        try:
            return await store.held(replicas, group=group, report_age_s=report_age_s)
        except StoreUnavailable as error:
            self._fell_silent(error)
            return {}

    async def take(self, claim: KvClaim, *, kv_tokens_max: int, generations_max: int) -> Taken:
        """Reserve. What could not be asked for is granted."""
        store = self._asked()
        if store is None:
            return Taken.HELD
        self._held[claim.holder] = claim  # also while the answer is out: it may be lost, and the claim held
        taken = None
        try:
            taken = await store.take(
                claim, kv_tokens_max=kv_tokens_max, generations_max=generations_max, ttl_s=self._ttl_s
            )
        except StoreUnavailable as error:
            self._fell_silent(error)
            taken = Taken.HELD
        finally:
            if taken is None:
                self.give_back(claim)
        if taken in GRANTED:
            self._wake()
        else:
            del self._held[claim.holder]
        return taken

    def began(self, claim: KvClaim) -> None:
        """Its prompt is prefilled. Whoever waits for the opening is told, if it led."""
        if claim.leads and claim.holder in self._held:
            self._say(lambda store: store.began(claim, warm_s=WARM_S))

    def give_back(self, claim: KvClaim) -> None:
        """Return a reservation; never waits."""
        if self._held.pop(claim.holder, None) is not None:
            self._say(lambda store: store.give_back(claim))

    @contextmanager
    def listening(self, group: str) -> Iterator[asyncio.Event]:
        """Within it, the event is set whenever who led the group has begun or given up."""
        if self._reservations is None or not group:
            yield asyncio.Event()
            return
        with self._reservations.listening(group) as news:
            yield news

    async def close(self) -> None:
        """Return everything, say what is left to say, and end. Safe to call twice."""
        for claim in tuple(self._held.values()):
            self.give_back(claim)
        if self._keeper is not None:
            await asyncio.gather(self._keeper, return_exceptions=True)

    def _asked(self) -> Reservations | None:
        return self._reservations if clock.monotonic_s() >= self._silent_until_s else None

    def _fell_silent(self, error: StoreUnavailable) -> None:
        logger.warning("routing goes on without KV reservations: %s", error)
        self._silent_until_s = clock.monotonic_s() + OUTAGE_S

    def _say(self, what: Callable[[Reservations], Awaitable[None]]) -> None:
        self._to_say.append(what)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="kv-holds")

    async def _keep(self) -> None:
        """Say what there is to say at once, and hold on to the rest in time."""
        kept_s = clock.monotonic_s()
        while self._held or self._to_say:
            self._news.clear()
            to_say, self._to_say = self._to_say, []
            due = clock.monotonic_s() - kept_s >= self._ttl_s / KEEPS_PER_TTL
            if due:
                kept_s = clock.monotonic_s()
            store = self._asked()
            try:
                for say in to_say if store else ():
                    assert store is not None
                    await say(store)
                if due and store is not None:
                    await self._keep_all(store)
            except StoreUnavailable as error:
                self._fell_silent(error)
            if self._held or self._to_say:
                await self._rest(kept_s + self._ttl_s / KEEPS_PER_TTL - clock.monotonic_s())

    async def _keep_all(self, store: Reservations) -> None:
        holders: dict[str, list[str]] = defaultdict(list)
        for claim in self._held.values():
            holders[claim.replica].append(claim.holder)
        for replica, held in holders.items():
            await store.keep(replica, held, ttl_s=self._ttl_s)

    async def _rest(self, longest_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, longest_s)):
                await self._news.wait()
        except TimeoutError:
            pass
