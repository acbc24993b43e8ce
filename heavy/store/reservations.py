"""Which generations hold how much of a replica's KV memory, on Redis: `heavy.store.api.Reservations`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from heavy.store import kv_scripts as scripts
from heavy.store.api import KvClaim, KvHeld, Taken
from heavy.store.hints import Hints
from heavy.store.keys import CONTROL_CHANNEL, kv_key
from heavy.store.link import Argument, Link

_NUMBERS: Final = 9
"""Of one replica, in the answer of `KV_HELD`."""


class RedisReservations:
    """One hash a replica; every field carries its own expiry, by the server's clock."""

    def __init__(self, link: Link, hints: Hints) -> None:
        self._link = link
        self._hints = hints

    async def held(
        self, replicas: Sequence[str], *, group: str = "", report_age_s: float = 0.0
    ) -> Mapping[str, KvHeld]:
        """What is held of each replica now. Raises `StoreUnavailable`."""
        if not replicas:
            return {}
        arguments: list[Argument] = [int(report_age_s * 1000), group]
        _, *numbers = await self._link.script(
            "read KV reservations", scripts.KV_HELD, [kv_key(name) for name in replicas], arguments
        )
        rows = (numbers[at : at + _NUMBERS] for at in range(0, len(numbers), _NUMBERS))
        return {name: _held(row) for name, row in zip(replicas, rows, strict=True)}

    async def take(self, claim: KvClaim, *, kv_tokens_max: int, generations_max: int, ttl_s: float) -> Taken:
        """Reserve, or say why not. Raises `StoreUnavailable`."""
        size = (claim.shared_tokens, claim.own_tokens, claim.fresh_tokens)
        arguments: list[Argument] = [
            claim.holder,
            int(ttl_s * 1000),
            kv_tokens_max,
            generations_max,
            claim.group,
            *size,
            int(claim.leads),
        ]
        answer, *_ = await self._link.script(
            f"reserve KV of {claim.replica}", scripts.KV_TAKE, [kv_key(claim.replica)], arguments
        )
        return Taken(answer.decode())

    async def began(self, claim: KvClaim, *, warm_s: float) -> None:
        """The prompt is prefilled: whoever waits for that is told. Raises `StoreUnavailable`."""
        arguments: list[Argument] = [claim.holder, int(warm_s * 1000), CONTROL_CHANNEL, _hint(claim.group)]
        await self._link.script(
            f"say that {claim.replica} has begun", scripts.KV_BEGAN, [kv_key(claim.replica)], arguments
        )

    async def keep(self, replica: str, holders: Sequence[str], *, ttl_s: float) -> None:
        """Hold on to reservations for another while. Raises `StoreUnavailable`."""
        arguments: list[Argument] = [int(ttl_s * 1000), *holders]
        await self._link.script(
            f"keep KV reservations of {replica}", scripts.KV_KEEP, [kv_key(replica)], arguments
        )

    async def give_back(self, claim: KvClaim) -> None:
        """Return a reservation, once. Raises `StoreUnavailable`."""
        arguments: list[Argument] = [claim.holder, CONTROL_CHANNEL, _hint(claim.group)]
        await self._link.script(
            f"return KV of {claim.replica}", scripts.KV_GIVE_BACK, [kv_key(claim.replica)], arguments
        )

    @contextmanager
    def listening(self, group: str) -> Iterator[asyncio.Event]:
        """Within it, the event is set whenever somebody who led the group has begun or given up."""
        with self._hints.listening(_hint(group)) as hint:
            yield hint


def _held(row: Sequence[int]) -> KvHeld:
    *numbers, led = row
    tokens, generations, young_tokens, young_generations, gone_tokens, gone_generations, ahead, warm = numbers
    return KvHeld(
        tokens,
        generations,
        young_tokens,
        young_generations,
        gone_tokens,
        gone_generations,
        ahead,
        warm,
        bool(led),
    )


def _hint(group: str) -> str:
    return f"kv:{group}"
