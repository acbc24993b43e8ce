"""A run's tool traffic, frozen to a file: every call that was executed, and what it gave.

JSON lines: a header, then one call a line, in the order of the log. Made from a log, which has everything;
served again by `heavy.tools.replay`, whatever trajectory asks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from heavy.core.errors import ConfigError
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.records import Record, ToolIntentRecord, ToolResultRecord
from heavy.tools.arguments import BadArguments, Schema, read
from heavy.tools.cache_key import canonical, chained

FORMAT: Final = "heavy-tool-recording"
VERSION: Final = 1
FILE_BYTES_MAX: Final = 1 << 30
CALLS_MAX: Final = 1_000_000
_ANYTHING: Final = Schema("any", {"type": "object"})


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call and its result. `arguments` are canonical JSON text."""

    tool: str
    arguments: str
    trajectory: str
    step: int
    effects: str
    content: str
    is_error: bool
    unknown: bool
    cache: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Recording:
    """The calls of one run."""

    run: str
    calls: tuple[RecordedCall, ...]

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools that were called."""
        return tuple(dict.fromkeys(call.tool for call in self.calls))

    def of(self, tool: str) -> tuple[RecordedCall, ...]:
        """The calls of one tool."""
        return tuple(call for call in self.calls if call.tool == tool)

    def lines(self) -> Iterator[str]:
        """The file, line by line."""
        yield json.dumps({"format": FORMAT, "version": VERSION, "run": self.run, "calls": len(self.calls)})
        for call in self.calls:
            yield json.dumps(asdict(call), ensure_ascii=False)


async def recorded(run: RunId, records: AsyncIterable[Record]) -> Recording:
    """The calls in a run's records. Those that never reached a tool or have no result are left out."""
    open_calls: dict[tuple[TrajectoryId, str], ToolIntentRecord] = {}
    calls: list[RecordedCall] = []
    async for record in records:
        match record.body:
            case ToolIntentRecord(call=call) as intent:
                open_calls[record.trajectory, call.id] = intent
            case ToolResultRecord(call_id=call_id) as result:
                intended = open_calls.pop((record.trajectory, call_id), None)
                if intended is not None and (made := await _call(record, intended, result)) is not None:
                    calls.append(made)
    return Recording(run, tuple(calls))


async def _call(record: Record, intent: ToolIntentRecord, result: ToolResultRecord) -> RecordedCall | None:
    try:
        given = await read(intent.call.arguments, _ANYTHING)
    except BadArguments:
        return None
    return RecordedCall(
        tool=result.name,
        arguments=canonical(given.values),
        trajectory=record.trajectory,
        step=record.step,
        effects=intent.effects.value,
        content=result.content,
        is_error=result.is_error,
        unknown=result.unknown,
        cache=result.cache.value,
        duration_s=result.duration_s,
    )


def load_recording(file: str | Path) -> Recording:
    """The recording in a file. Raises `ConfigError` with the number of the line that is wrong."""
    path = Path(file).expanduser()
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{path}: has more than {FILE_BYTES_MAX} bytes; that is no recording.")
        with path.open(encoding="utf-8") as text:
            return _read(path, text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recording {path} cannot be read: {error}.") from error


def _read(path: Path, lines: Iterator[str] | Any) -> Recording:
    first = next(iter(lines), "")
    try:
        header = json.loads(first)
        run, version = str(header["run"]), header["version"]
        known = header["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        known, run, version = False, "", 0
    if not known:
        raise ConfigError(f"{path}, line 1: this is no recording; `heavy record RUN --out FILE` makes one.")
    if version != VERSION:
        raise ConfigError(f"{path}: has version {version}; this server reads version {VERSION}.")
    calls: list[RecordedCall] = []
    for number, line in enumerate(lines, start=2):
        if len(calls) == CALLS_MAX:
            raise ConfigError(f"{path}: has more than {CALLS_MAX} calls.")
        try:
            calls.append(_CALL.validate_json(line))
        except ValidationError as error:
            raise ConfigError(f"{path}, line {number}: {error.errors()[0]['msg']}.") from error
    return Recording(run, tuple(calls))


_CALL: TypeAdapter[RecordedCall] = TypeAdapter(RecordedCall)


class RecordedResults:
    """What a recording says to one tool's calls, by their arguments alone, or with the calls before them.

    Where the same call gave different results, they come in the order in which they were recorded.
    """

    def __init__(self, calls: Sequence[RecordedCall]) -> None:
        self._plain: dict[str, list[RecordedCall]] = {}
        self._chained: dict[tuple[str, str], list[RecordedCall]] = {}
        before: dict[str, list[dict[str, Any]]] = {}
        for call in calls:
            history = before.setdefault(call.trajectory, [])
            self._plain.setdefault(call.arguments, []).append(call)
            self._chained.setdefault((chained(history), call.arguments), []).append(call)
            history.append(json.loads(call.arguments))

    def __len__(self) -> int:
        return sum(map(len, self._plain.values()))

    def find(self, arguments: str, nth: int, history: str | None) -> RecordedCall | None:
        """The `nth` result of a call, the last one for any beyond; `history` where the tool keeps a state."""
        found = self._plain.get(arguments) if history is None else self._chained.get((history, arguments))
        return found[min(nth, len(found) - 1)] if found else None
