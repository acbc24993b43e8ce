"""Calls of the caller's tools and their results, on Redis: `heavy.store.api.Exchange`.

A call stands in the run's hash until its runner has taken the result or given up; hints wake the runner that
waits for one result, and whoever sends calls on. Nothing is kept of a run that has no such tools.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from heavy.core.calling import CallerCall, CallerResult, Receipt, Withdrawn
from heavy.core.clock import monotonic_s
from heavy.core.codec import dump, load
from heavy.core.errors import StoreUnavailable
from heavy.core.ids import RunId
from heavy.store import scripts
from heavy.store.hints import Hints, hinted
from heavy.store.keys import CONTROL_CHANNEL, RunKeys
from heavy.store.link import Link
from heavy.store.refusals import lease_lost, not_found

PATIENCE_S: Final = 60.0
"""How long one who waits puts up with a store that does not answer; every lease has run out by then."""
_SENT: Final = "sent:"


class RedisExchange:
    """What runs ask of their callers, and what these answer."""

    def __init__(self, link: Link, hints: Hints) -> None:
        self._link = link
        self._hints = hints

    async def ask(self, run: RunId, *, epoch: int, call: CallerCall) -> None:
        """Note a call for whoever is attached. Raises `LeaseLost`, `NotFound`."""
        keys = RunKeys(run)
        answer, *_ = await self._link.script(
            f"ask the caller of {run}",
            scripts.ASK_CALLER,
            [keys.run, keys.lease, keys.calls, keys.calls_over],
            [epoch, call.id, dump(call), CONTROL_CHANNEL, _calls_of(run)],
        )
        if answer == b"gone":
            raise not_found(run)
        if answer == b"lost":
            raise lease_lost(run, epoch)

    async def result(self, run: RunId, call_id: str) -> CallerResult:
        """The result of a call, once it is there."""
        key = RunKeys(run).results

        async def read(client: Any) -> bytes | None:
            found: bytes | None = await client.hget(key, call_id)
            return found

        answered_s = monotonic_s()
        try:
            with self._hints.listening(_result_of(run, call_id)) as hint:
                while True:
                    await hinted(hint)
                    try:
                        found = await self._link.call(f"read a result of {run}", read)
                    except StoreUnavailable:
                        if monotonic_s() - answered_s > PATIENCE_S:
                            raise
                        continue
                    answered_s = monotonic_s()
                    if found is not None:
                        return load(CallerResult, found)
        finally:
            await self._hints.rest()

    async def end(self, run: RunId, call_id: str) -> None:
        """Nobody waits for a call any more."""
        keys = RunKeys(run)
        await self._link.script(
            f"end a call of {run}",
            scripts.END_CALL,
            [keys.run, keys.calls, keys.results, keys.calls_over],
            [call_id, CONTROL_CHANNEL, _calls_of(run)],
        )

    @asynccontextmanager
    async def calls(self, run: RunId) -> AsyncIterator[AsyncIterator[CallerCall | Withdrawn]]:
        """Calls without a result, as they come, and those withdrawn."""
        try:
            with self._hints.listening(_calls_of(run)) as hint:
                yield self._calls(run, hint)
        finally:
            await self._hints.rest()

    async def send_once(self, run: RunId, call_id: str, token: str) -> bool:
        """Whether the sender `token` may send a call that must not be delivered twice."""
        _, may = await self._link.script(
            f"send a call of {run}", scripts.SEND_ONCE, [RunKeys(run).calls], [call_id, token]
        )
        return bool(may)

    async def answer(self, run: RunId, result: CallerResult) -> Receipt:
        """Give a call its result, once. Raises `NotFound`."""
        keys = RunKeys(run)
        answer, *_ = await self._link.script(
            f"take a result for {run}",
            scripts.ANSWER_CALLER,
            [keys.run, keys.calls, keys.results, keys.calls_over],
            [result.id, dump(result), CONTROL_CHANNEL, _result_of(run, result.id)],
        )
        if answer == b"gone":
            raise not_found(run)
        return Receipt.TAKEN if answer == b"ok" else Receipt(answer.decode())

    async def attached(self, run: RunId, *, ttl_s: float) -> None:
        """Say that a caller is attached through this process."""
        key = RunKeys(run).callers

        async def write(client: Any) -> None:
            await client.set(key, "1", px=int(ttl_s * 1000))

        await self._link.call(f"say that the caller of {run} is there", write)

    async def is_attached(self, run: RunId) -> bool:
        """Whether some process says that a caller is attached."""
        key = RunKeys(run).callers

        async def read(client: Any) -> bool:
            return bool(await client.exists(key))

        return await self._link.call(f"ask whether the caller of {run} is there", read)

    async def _calls(self, run: RunId, hint: Any) -> AsyncGenerator[CallerCall | Withdrawn]:
        open_calls: dict[str, bool] = {}
        answered_s = monotonic_s()
        while True:
            await hinted(hint)
            try:
                found = await self._open(run)
            except StoreUnavailable:
                if monotonic_s() - answered_s > PATIENCE_S:
                    raise
                continue
            answered_s = monotonic_s()
            for call_id in open_calls.keys() - found.keys():
                del open_calls[call_id]
                yield Withdrawn(call_id)
            for call_id, call in found.items():
                if call_id not in open_calls:
                    open_calls[call_id] = True
                    yield call

    async def _open(self, run: RunId) -> dict[str, CallerCall]:
        """The calls somebody waits for that have no result yet, by id."""
        keys = RunKeys(run)

        async def read(client: Any) -> tuple[dict[bytes, bytes], list[bytes]]:
            pipeline = client.pipeline(transaction=False)
            pipeline.hgetall(keys.calls)
            pipeline.hkeys(keys.results)
            calls, results = await pipeline.execute()
            return calls, results

        calls, results = await self._link.call(f"read the calls of {run}", read)
        return {
            name.decode(): load(CallerCall, text)
            for name, text in calls.items()
            if name not in results and not name.startswith(_SENT.encode())
        }


def _calls_of(run: RunId) -> str:
    """Under which name hints about a run's calls go."""
    return f"{run}/calls"


def _result_of(run: RunId, call_id: str) -> str:
    """Under which name hints about one call's result go."""
    return f"{run}/result/{call_id}"
