"""What is wanted, who is a member and who leads the fleet, on Redis: `heavy.store.api.FleetStore`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from heavy.core.codec import dump, load
from heavy.core.errors import LeaseLost, NotFound, RequestConflict
from heavy.core.fleet import Failures, Member, Wanted
from heavy.store import scripts
from heavy.store.keys import FLEET_EPOCH, FLEET_FAILURES, FLEET_LEAD, FLEET_MEMBERS, FLEET_WANTED, fleet_log
from heavy.store.link import Argument, Link, new_token

T = TypeVar("T", Wanted, Member, Failures)

LOG_LINES_KEPT: Final = 200
LOG_LINE_CHARS_MAX: Final = 2_000
LOG_KEPT_S: Final = 24 * 3600
CHANGE_ATTEMPTS: Final = 16


class RedisFleet:
    """Hashes by profile or replica; whatever the leader writes is fenced by its epoch."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def identity(self) -> str:
        """What tells this fleet's actors and groups from another fleet's on the same Ray cluster."""

        async def read(client: Any) -> str:
            await client.hsetnx(FLEET_EPOCH, "identity", secrets.token_hex(4))
            found: bytes = await client.hget(FLEET_EPOCH, "identity")
            return found.decode()

        return await self._link.call("name the fleet", read)

    async def lead(self, *, owner: str, lease_s: float) -> int | None:
        """Become the leader if there is none; the epoch, or None while somebody else leads."""
        keys, token = [FLEET_LEAD, FLEET_EPOCH], f"{owner} {new_token()}"
        answer, *rest = await self._link.script(
            "lead the fleet", scripts.LEAD, keys, [token, int(lease_s * 1000)]
        )
        return int(rest[0]) if answer == b"ok" else None

    async def renew(self, *, epoch: int, lease_s: float) -> None:
        """Stay the leader. Raises `LeaseLost`."""
        await self._fenced("stay the leader", scripts.LEAD_ON, [], epoch, [int(lease_s * 1000)])

    async def resign(self, *, epoch: int) -> None:
        """Let somebody else lead at once; no error when that has happened already."""
        try:
            await self._fenced("resign", scripts.RESIGN, [], epoch, [])
        except LeaseLost:
            return

    async def wanted(self) -> tuple[Wanted, ...]:
        """What is to be served, by profile."""
        return tuple(sorted(await self._all(FLEET_WANTED, Wanted), key=lambda one: one.profile))

    async def want(self, wanted: Wanted) -> None:
        """Note what is to be served of a profile, whatever was noted before."""

        async def write(client: Any) -> None:
            await client.hset(FLEET_WANTED, wanted.profile, dump(wanted))

        await self._link.call(f"note what is wanted of {wanted.profile}", write)

    async def unwant(self, profile: str) -> None:
        """Serve a profile no more."""

        async def write(client: Any) -> None:
            await client.hdel(FLEET_WANTED, profile)

        await self._link.call(f"no longer want {profile}", write)

    async def change(self, profile: str, change: Callable[[Wanted], Wanted]) -> Wanted:
        """Change what is wanted of a profile, atomically; as it is afterwards. Raises `NotFound`."""
        for _ in range(CHANGE_ATTEMPTS):
            before = await self._one(FLEET_WANTED, profile)
            if before is None:
                served = ", ".join(one.profile for one in await self.wanted()) or "none"
                raise NotFound(f"No profile {profile!r:.80} is served here; served are: {served}.")
            after = change(load(Wanted, before))
            answer, *_ = await self._link.script(
                f"change what is wanted of {profile}",
                scripts.SWAP,
                [FLEET_WANTED],
                [profile, before, dump(after)],
            )
            if answer == b"ok":
                return after
        raise RequestConflict(f"What is wanted of {profile} changes all the time; try again.")

    async def members(self) -> tuple[Member, ...]:
        """Every replica that is meant to exist, by name."""
        return tuple(sorted(await self._all(FLEET_MEMBERS, Member), key=lambda one: one.replica))

    async def number(self, profile: str) -> int:
        """A number that no replica of the profile has had."""

        async def count(client: Any) -> int:
            return int(await client.hincrby(FLEET_EPOCH, f"replica:{profile}", 1)) - 1

        return await self._link.call(f"number a replica of {profile}", count)

    async def put_member(self, member: Member, *, epoch: int) -> None:
        """Note or change a member. Raises `LeaseLost`."""
        doing = f"note the replica {member.replica}"
        await self._fenced(doing, scripts.LEAD_PUT, [FLEET_MEMBERS], epoch, [member.replica, dump(member)])

    async def erase_member(self, replica: str, *, epoch: int) -> None:
        """Forget a member of which nothing is left. Raises `LeaseLost`."""
        await self._fenced(f"forget {replica}", scripts.LEAD_PUT, [FLEET_MEMBERS], epoch, [replica, ""])

    async def failures(self) -> tuple[Failures, ...]:
        """The failures in a row, by profile."""
        return tuple(sorted(await self._all(FLEET_FAILURES, Failures), key=lambda one: one.profile))

    async def put_failures(self, failures: Failures, *, epoch: int) -> None:
        """Note failures. Raises `LeaseLost`."""
        arguments: list[Argument] = [failures.profile, dump(failures)]
        await self._fenced("note a failure", scripts.LEAD_PUT, [FLEET_FAILURES], epoch, arguments)

    async def forget_failures(self, profile: str, *, epoch: int) -> None:
        """The streak is over. Raises `LeaseLost`."""
        await self._fenced("forget failures", scripts.LEAD_PUT, [FLEET_FAILURES], epoch, [profile, ""])

    async def keep_log(self, replica: str, lines: Sequence[str]) -> None:
        """Keep the last lines of a replica's engine for a day, whatever becomes of the replica."""
        kept = "\n".join(line[:LOG_LINE_CHARS_MAX] for line in lines[-LOG_LINES_KEPT:])

        async def write(client: Any) -> None:
            await client.set(fleet_log(replica), kept, ex=LOG_KEPT_S)

        await self._link.call(f"keep the log of {replica}", write)

    async def log(self, replica: str) -> tuple[str, ...]:
        """The last lines that were kept. Raises `NotFound`."""

        async def read(client: Any) -> bytes | None:
            found: bytes | None = await client.get(fleet_log(replica))
            return found

        kept = await self._link.call(f"read the log of {replica}", read)
        if kept is None:
            raise NotFound(f"There is no log of a replica {replica!r:.80}; logs are kept for a day.")
        return tuple(kept.decode().splitlines())

    async def _fenced(
        self, doing: str, script: str, keys: list[str], epoch: int, arguments: list[Argument]
    ) -> None:
        answer, *_ = await self._link.script(doing, script, [FLEET_LEAD, *keys], [epoch, *arguments])
        if answer == b"lost":
            raise LeaseLost(f"Another controller leads the fleet (epoch {epoch} is over); stop acting.")

    async def _all(self, key: str, of: type[T]) -> list[T]:
        async def read(client: Any) -> dict[bytes, bytes]:
            found: dict[bytes, bytes] = await client.hgetall(key)
            return found

        found = await self._link.call(f"read {key}", read)
        return [load(of, value) for value in found.values()]

    async def _one(self, key: str, field: str) -> bytes | None:
        async def read(client: Any) -> bytes | None:
            found: bytes | None = await client.hget(key, field)
            return found

        return await self._link.call(f"read {field} of {key}", read)
