"""The marker strings of each output format, and which of them a chat template uses.

Sources: Kimi K2's tool-call guidance (`functions.{name}:{idx}` ids between section markers) and the Hermes
function-calling format (one JSON object between `<tool_call>` tags), as Qwen's templates use it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """Thinking between two markers. `trims_newlines`: line breaks next to them belong to the format."""

    name: str
    begin: str = "<think>"
    end: str = "</think>"
    trims_newlines: bool = False


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """Calls between markers.

    `style` "marked": a section of calls, each an id, a marker, the arguments. `style` "json": each call one
    JSON object with name and arguments; `section_*` and `arguments_begin` are empty then. `ends_reasoning`: a
    call that begins inside the reasoning counts as a call; otherwise it is a thought about calls.
    """

    name: str
    style: Literal["marked", "json"]
    call_begin: str
    call_end: str
    section_begin: str = ""
    section_end: str = ""
    arguments_begin: str = ""
    ends_reasoning: bool = False


K2_CALLS = ToolFormat(
    name="kimi_k2",
    style="marked",
    section_begin="<|tool_calls_section_begin|>",
    section_end="<|tool_calls_section_end|>",
    call_begin="<|tool_call_begin|>",
    arguments_begin="<|tool_call_argument_begin|>",
    call_end="<|tool_call_end|>",
    ends_reasoning=True,
)
HERMES_CALLS = ToolFormat(name="hermes", style="json", call_begin="<tool_call>", call_end="</tool_call>")
K2_REASONING = ReasoningFormat("kimi_k2")
QWEN_REASONING = ReasoningFormat("qwen", trims_newlines=True)

REASONING_PARSERS: dict[str, ReasoningFormat | None] = {
    "kimi_k2": K2_REASONING,
    "qwen": QWEN_REASONING,
    "hermes": QWEN_REASONING,
    "none": None,
}
TOOL_CALL_PARSERS: dict[str, ToolFormat | None] = {
    "kimi_k2": K2_CALLS,
    "hermes": HERMES_CALLS,
    "qwen": HERMES_CALLS,
    "none": None,
}


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What to look for in a model's text; None means: such text does not occur."""

    reasoning: ReasoningFormat | None
    calls: ToolFormat | None

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker of the format."""
        own = [self.reasoning.begin, self.reasoning.end] if self.reasoning else []
        if self.calls:
            calls = self.calls
            own += [
                calls.section_begin,
                calls.section_end,
                calls.call_begin,
                calls.call_end,
                calls.arguments_begin,
            ]
        return tuple(marker for marker in own if marker)

    def opens_reasoning(self, prompt: str) -> bool:
        """Whether generation starts inside the reasoning: its last begin marker has no end after it."""
        if self.reasoning is None:
            return False
        return prompt.rfind(self.reasoning.begin) > prompt.rfind(self.reasoning.end)


def detect(chat_template: str) -> OutputFormat:
    """The formats that a chat template writes history in."""
    calls = next((one for one in (K2_CALLS, HERMES_CALLS) if one.call_begin in chat_template), None)
    thinks = QWEN_REASONING.end in chat_template
    reasoning = (K2_REASONING if calls is K2_CALLS else QWEN_REASONING) if thinks else None
    return OutputFormat(reasoning, calls)


def choose(chat_template: str, reasoning_parser: str, tool_call_parser: str) -> OutputFormat:
    """`detect`, each half overridden by a parser's name unless that is "auto". Raises ValueError."""
    found = detect(chat_template)
    for given, known in ((reasoning_parser, REASONING_PARSERS), (tool_call_parser, TOOL_CALL_PARSERS)):
        if given != "auto" and given not in known:
            raise ValueError(f"no parser {given!r}; there are auto, {', '.join(known)}")
    return OutputFormat(
        found.reasoning if reasoning_parser == "auto" else REASONING_PARSERS[reasoning_parser],
        found.calls if tool_call_parser == "auto" else TOOL_CALL_PARSERS[tool_call_parser],
    )
