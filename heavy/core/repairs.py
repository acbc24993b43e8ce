"""What models get wrong in tool calls, and what becomes of it: the names in records and metrics."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Repair(StrEnum):
    """One thing that was not as it should be in a generation's tool calls."""

    SALVAGED_FROM_REASONING = "salvaged_from_reasoning"
    SALVAGED_FROM_CONTENT = "salvaged_from_content"
    MARKERS_REMOVED = "markers_removed"
    ID_REPLACED = "id_replaced"
    NAME_CLEANED = "name_cleaned"
    ARGUMENTS_FILLED = "arguments_filled"
    CONTROL_CHARACTERS = "control_characters"
    JSON_REPAIR = "json_repair"
    UNWRAPPED = "unwrapped"
    COERCED = "coerced"
    TRUNCATED_SECTION = "truncated_section"
    TRUNCATED_CALL_DROPPED = "truncated_call_dropped"
    UNREADABLE_CALL_DROPPED = "unreadable_call_dropped"
    CALLS_DROPPED = "calls_dropped"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_JSON = "invalid_json"
    SCHEMA_MISMATCH = "schema_mismatch"
    CONSTRAINED = "constrained"


class Handling(StrEnum):
    """What became of it, as the retry ladder's rungs: free, a step, or a step under a grammar."""

    CLEAN = "clean"
    """Nothing was wrong."""
    MENDED = "mended"
    """It was put right without asking, and the call was carried out as it was meant."""
    TOLD = "told"
    """The call could not be used; the model was told why and may write it again."""
    CONSTRAINED = "constrained"
    """The generation was asked for under a grammar, because the ones before it could not be used."""


_TOLD: Final = frozenset(
    {
        Repair.TRUNCATED_CALL_DROPPED,
        Repair.UNREADABLE_CALL_DROPPED,
        Repair.CALLS_DROPPED,
        Repair.UNKNOWN_TOOL,
        Repair.INVALID_JSON,
        Repair.SCHEMA_MISMATCH,
    }
)
LOST_CALLS: Final = frozenset({Repair.TRUNCATED_CALL_DROPPED, Repair.UNREADABLE_CALL_DROPPED})
"""A call was begun that could not be read at all: nothing of it is left in the message."""


def handling_of(repair: Repair) -> Handling:
    """What becomes of a thing of this kind."""
    if repair is Repair.CONSTRAINED:
        return Handling.CONSTRAINED
    return Handling.TOLD if repair in _TOLD else Handling.MENDED
