"""What a simulated generation says: a seeded plan, one piece a token, made as it is played."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from workers.engines.api.generation import TextDelta, ToolCallDelta
from workers.engines.api.request import ChatRequest
from workers.engines.simulated.mistakes import OF_CALLS, Mistake
from workers.engines.simulated.profile import Habits
from workers.engines.simulated.script import ScriptedCall, ScriptedStep

MARK = "[simulated]"
WORDS = (
    "perhaps",
    "then",
    "check",
    "the",
    "sum",
    "of",
    "both",
    "parts",
    "again",
    "so",
    "it",
    "follows",
    "that",
)
ARGUMENT_CHARACTERS = 6
ANSWER = re.compile(r"Answer:\s*(-?\d+)")

Piece = TextDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class Turn:
    """One generation, decided but not yet played."""

    calls: tuple[ScriptedCall, ...]
    answer: str
    reasoning_tokens: int


def rng_for(*keys: object) -> random.Random:
    """A generator that depends on these keys alone, in every process."""
    digest = hashlib.blake2b(repr(keys).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


def steps_taken(messages: Sequence[Mapping[str, Any]]) -> int:
    """Assistant turns with tool calls since the last user message."""
    since = itertools.takewhile(lambda message: message["role"] != "user", reversed(messages))
    return sum(1 for message in since if message.get("tool_calls"))


def question(messages: Sequence[Mapping[str, Any]]) -> str:
    """The last user message."""
    return next((str(message["content"]) for message in reversed(messages) if message["role"] == "user"), "")


def decide(
    request: ChatRequest, seed: int, habits: Habits, script: Sequence[ScriptedStep], mistake: Mistake | None
) -> Turn:
    """What this generation will do: the script's step or the habits', as `tool_choice` allows."""
    rng = rng_for(seed, request.sampling.seed, question(request.messages))
    taken = steps_taken(request.messages)
    turn = _scripted(request, script, taken) if script else _habitual(request, rng, seed, habits, taken)
    if request.must_call and not turn.calls:
        turn = Turn((_call_of(request, rng),), "", turn.reasoning_tokens)
    elif not request.tools and turn.calls:
        turn = Turn((), _answer(request, rng, seed, habits), turn.reasoning_tokens)
    if request.json_schema is not None and not turn.calls:
        turn = Turn((), orjson.dumps(_instance(orjson.loads(request.json_schema), rng)).decode(), 0)
    return _spoiled(turn, mistake) if mistake in OF_CALLS else turn


def pieces(turn: Turn, mistake: Mistake | None, first_index: int) -> Iterator[Piece]:
    """The turn, token by token. Call ids follow K2's rule, counting on from `first_index`."""
    for number in range(turn.reasoning_tokens):
        yield TextDelta(reasoning=f"{MARK} " if number == 0 else WORDS[number % len(WORDS)] + " ")
    if mistake is Mistake.MARKERS_IN_REASONING and turn.calls:
        yield from (TextDelta(reasoning=part) for part in _marked(turn.calls, first_index))
        return
    for number, call in enumerate(turn.calls):
        yield ToolCallDelta(number, f"functions.{call.tool}:{first_index + number}", call.tool)
        text = call.arguments if isinstance(call.arguments, str) else orjson.dumps(call.arguments).decode()
        for at in range(0, len(text), ARGUMENT_CHARACTERS):
            yield ToolCallDelta(number, arguments=text[at : at + ARGUMENT_CHARACTERS])
    for word in re.findall(r"\S+\s*|\s+", turn.answer):
        yield TextDelta(content=word)


def after(pieces: Iterator[Piece], said: str) -> Iterator[Piece]:
    """What is left of a turn whose beginning was said elsewhere, markers of thinking and all."""
    thought, _, visible = said.removeprefix("<think>").partition("</think>")
    if not said.startswith("<think>"):
        thought, visible = "", said
    left = {"reasoning": len(thought), "content": len(visible)}
    for piece in pieces:
        if isinstance(piece, TextDelta):
            kind = "reasoning" if piece.reasoning else "content"
            text = piece.reasoning or piece.content
            rest = text[left[kind] :]
            left[kind] = max(0, left[kind] - len(text))
            if not rest:
                continue
            piece = TextDelta(reasoning=rest) if kind == "reasoning" else TextDelta(content=rest)
        yield piece


def calls_so_far(messages: Sequence[Mapping[str, Any]]) -> int:
    """Tool calls in the whole conversation: the next one's number."""
    return sum(len(message.get("tool_calls") or ()) for message in messages)


def _scripted(request: ChatRequest, script: Sequence[ScriptedStep], taken: int) -> Turn:
    step = script[min(taken, len(script) - 1)]
    if taken >= len(script):
        step = next((one for one in reversed(script) if not one.calls), step)
    filled = {"{step}": str(taken), "{seed}": str(request.sampling.seed)}
    calls = tuple(ScriptedCall(call.tool, _filled(call.arguments, filled)) for call in step.calls)
    answer = _filled(step.answer, filled)
    marked = answer if calls or MARK in answer else f"{MARK} {answer}"
    return Turn(calls, marked if not calls else "", step.reasoning_tokens)


def _filled(value: Any, replacements: Mapping[str, str]) -> Any:
    """The value with every placeholder in its strings replaced."""
    if isinstance(value, str):
        for placeholder, text in replacements.items():
            value = value.replace(placeholder, text)
        return value
    if isinstance(value, dict):
        return {key: _filled(item, replacements) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, replacements) for item in value]
    return value


def _habitual(request: ChatRequest, rng: random.Random, seed: int, habits: Habits, taken: int) -> Turn:
    steps = rng.randint(habits.steps_min, max(habits.steps_min, habits.steps_max))
    thinking = rng.randint(habits.reasoning_tokens // 2, max(habits.reasoning_tokens, 1))
    if request.tools and taken < steps:
        return Turn((_call_of(request, rng_for(seed, request.sampling.seed, taken)),), "", thinking)
    return Turn((), _answer(request, rng, seed, habits), thinking)


def _call_of(request: ChatRequest, rng: random.Random) -> ScriptedCall:
    """A well-formed call of the forced tool, else of the first one."""
    named = [tool for tool in request.tools if tool["function"]["name"] == request.forced_tool]
    function = (named or list(request.tools))[0]["function"]
    arguments = _instance(function.get("parameters") or {"type": "object"}, rng)
    return ScriptedCall(function["name"], arguments if isinstance(arguments, dict) else {})


def _answer(request: ChatRequest, rng: random.Random, seed: int, habits: Habits) -> str:
    """`Answer: N`. Where the conversation holds several already, the most frequent one."""
    seen = [
        number
        for message in request.messages
        if message["role"] in ("user", "tool")
        for number in ANSWER.findall(message["content"])
    ]
    if len(seen) > 1:
        number = Counter(seen).most_common(1)[0][0]
    else:
        usual = rng_for(seed, question(request.messages)).randint(10, 999)
        rival = 1 + rng.randrange(max(habits.rivals, 1))
        number = str(usual if rng.random() < habits.agreement else usual + rival)
    filler = " ".join(WORDS[at % len(WORDS)] for at in range(max(habits.answer_tokens - 3, 0)))
    return f"{MARK} {filler}\nAnswer: {number}"


def _instance(schema: Mapping[str, Any], rng: random.Random, key: str = "") -> Any:
    """A value that a plain JSON schema accepts: required properties only, first choice of every enum."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            return _instance(schema[choice][0], rng, key)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        wanted = schema.get("required") or list(properties)[:1]
        return {name: _instance(properties.get(name, {}), rng, name) for name in wanted}
    if kind == "array":
        return [_instance(schema.get("items", {}), rng)] * max(int(schema.get("minItems", 1)), 0)
    if kind in ("integer", "number"):
        low = int(schema.get("minimum", 0))
        return rng.randint(low, int(schema.get("maximum", low + 99)))
    if kind in ("boolean", "null"):
        return kind == "boolean" or None
    if key == "code":
        return f"print({rng.randint(1, 99)} * {rng.randint(1, 99)})  # {MARK}"
    return f"{MARK} {rng.choice(WORDS)} {rng.randint(0, 99)}"


def _spoiled(turn: Turn, mistake: Mistake | None) -> Turn:
    """The turn with its first call broken. Turns without calls stay as they are."""
    if not turn.calls or mistake is Mistake.MARKERS_IN_REASONING:
        return turn
    first = turn.calls[0]
    spoiled = {
        Mistake.MALFORMED_TOOL_CALL: ScriptedCall(first.tool, '{"code": "print(1)'),
        Mistake.WRONG_SCHEMA: ScriptedCall(first.tool, {f"{MARK}_not_a_parameter": 1}),
        Mistake.UNKNOWN_TOOL: ScriptedCall("simulated_no_such_tool", first.arguments),
    }
    assert mistake is not None
    return Turn((spoiled[mistake], *turn.calls[1:]), turn.answer, turn.reasoning_tokens)


def _marked(calls: Sequence[ScriptedCall], first_index: int) -> Iterator[str]:
    """The calls in K2's markers, as the model sometimes writes them inside its reasoning."""
    yield "<|tool_calls_section_begin|>"
    for number, call in enumerate(calls):
        text = call.arguments if isinstance(call.arguments, str) else orjson.dumps(call.arguments).decode()
        yield "<|tool_call_begin|>"
        yield f"functions.{call.tool}:{first_index + number}"
        yield "<|tool_call_argument_begin|>"
        yield text
        yield "<|tool_call_end|>"
    yield "<|tool_calls_section_end|>"
