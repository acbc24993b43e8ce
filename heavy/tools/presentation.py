"""What a tool said, made fit for a transcript: no secrets, nothing that acts, bounded, marked if foreign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from heavy.core.redaction import NOTHING, Redactor
from heavy.core.tools import ToolOutput, ToolSpec
from heavy.tools.text import clip, encodable, inert, untrusted

LABEL_CHARS_MAX: Final = 300
FENCE_CHARS: Final = 600
"""Room for the marks around foreign text, its source included."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """How outputs are shown to one model. `fence`: whether text by others is marked and fenced as data."""

    chars_max: int = 32_000
    fence: bool = True
    redact: Redactor = NOTHING

    def shown(self, spec: ToolSpec | None, output: ToolOutput) -> str:
        """The content as it enters the transcript.

        What an untrusted tool passes on names its source in `meta`; its own words, such as that there is no
        such page, do not, and are not fenced.
        """
        text = inert(encodable(self.redact(output.content)))
        source = output.meta.get("source", "")
        if not (self.fence and source and spec is not None and spec.untrusted):
            return clip(text, self.chars_max)
        label = " ".join(clip(inert(encodable(source)), LABEL_CHARS_MAX).split())
        return untrusted(label, clip(text, max(1, self.chars_max - FENCE_CHARS)))
