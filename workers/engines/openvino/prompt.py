"""From a chat request to token ids: the template, the guard against control tokens in text, the tokenizer."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openvino_genai as genai

from workers.engines.api.errors import BadRequest
from workers.engines.api.request import ChatRequest, TokenizeRequest
from workers.engines.formats import markers
from workers.engines.formats.markers import OutputFormat
from workers.engines.openvino.detokenizer import Detokenizer
from workers.engines.openvino.model import ModelDirectory
from workers.engines.openvino.template import ChatTemplate, TemplateRefusal

TEXT_FIELDS = ("content", "reasoning_content", "name", "tool_call_id")


class GuardedTokenizer:
    """openvino_genai's tokenizer, one call at a time.

    Two threads inside it can wait for each other: one has its inference slot and wants the interpreter lock,
    the other the reverse. A Python lock around every call gives the interpreter up while it waits.
    """

    def __init__(self, path: str) -> None:
        self._tokenizer: Any = genai.Tokenizer(path)
        self._lock = threading.Lock()

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Ids of a text."""
        with self._lock:
            encoded = self._tokenizer.encode([text], add_special_tokens=add_special_tokens)
            ids: list[int] = encoded.input_ids.data[0].tolist()
            del encoded
            return ids

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        """Text of ids."""
        with self._lock:
            return str(self._tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens))

    def get_vocab(self) -> dict[bytes, int]:
        """Bytes of every token."""
        with self._lock:
            return dict(self._tokenizer.get_vocab())

    def named(self) -> tuple[str, str, str, int]:
        """The model's own chat template, its first and last token's texts, and the last one's id."""
        with self._lock:
            own = self._tokenizer
            return (
                str(own.get_original_chat_template()),
                str(own.get_bos_token()),
                str(own.get_eos_token()),
                int(own.get_eos_token_id()),
            )


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, tokenised. `in_reasoning`: generation goes on inside the reasoning."""

    ids: list[int]
    in_reasoning: bool


class PromptMaker:
    """Everything about text that a model directory defines. Blocking calls: use it in a thread."""

    def __init__(self, directory: ModelDirectory, reasoning_parser: str, tool_call_parser: str) -> None:
        self._tokenizer = GuardedTokenizer(str(directory.path))
        template, bos_token, eos_token, self.eos_token_id = self._tokenizer.named()
        source = directory.chat_template() or template
        if not source:
            raise ValueError(f"{directory.path} has no chat template; add a chat_template.jinja")
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        tokens = {name: directory.token(name) for name in names}
        tokens["bos_token"] = tokens["bos_token"] or bos_token
        tokens["eos_token"] = tokens["eos_token"] or eos_token
        self.template = ChatTemplate(source, tokens)
        self.format: OutputFormat = markers.choose(source, reasoning_parser, tool_call_parser)
        self.detokenizer = Detokenizer(self._tokenizer, self.format.markers)
        control = sorted({*self.detokenizer.special_texts(), *self.format.markers}, key=len, reverse=True)
        self._control = re.compile("|".join(re.escape(text) for text in control)) if control else None

    def prompt(self, request: ChatRequest) -> Prompt:
        """The ids that a generation starts from. Raises BadRequest."""
        text = self._render(request)
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        return Prompt(ids, self.format.opens_reasoning(text))

    def tokens(self, request: TokenizeRequest) -> list[int]:
        """The ids of a text or a conversation. Raises BadRequest."""
        if request.chat is not None:
            return self.prompt(request.chat).ids
        return self._tokenizer.encode(request.prompt or "", request.add_special_tokens)

    def _render(self, request: ChatRequest) -> str:
        given = request.messages[:-1] if request.continue_final else request.messages
        messages = [self._guarded(message) for message in given]
        try:
            text = self.template.render(
                messages,
                request.tools,
                add_generation_prompt=request.add_generation_prompt or request.continue_final,
                extra=request.template_kwargs,
            )
        except TemplateRefusal as error:
            raise BadRequest(f"The model's chat template refuses this: {error}.", param="messages") from error
        return text + self._as_written(request.messages[-1]) if request.continue_final else text

    def _as_written(self, last: Mapping[str, Any]) -> str:
        """Half an answer as the model had written it: its content, markers of thinking and all.

        As in SGLang, the content alone counts, and it follows the generation prompt.
        """
        said = str(last.get("content") or "")
        if not said:
            raise BadRequest(
                "The last assistant message has no content to go on from.", param="continue_final_message"
            )
        if self.format.reasoning is None:
            return self._apart(said)
        begin, end = self.format.reasoning.begin, self.format.reasoning.end
        thought, closed, visible = said.partition(end)
        opened = begin if thought.startswith(begin) else ""
        return opened + self._apart(thought.removeprefix(begin)) + closed + self._apart(visible)

    def _guarded(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message with every control token inside its texts spelled apart, so that text stays text."""
        guarded = dict(message)
        for name in TEXT_FIELDS:
            if guarded.get(name):
                guarded[name] = self._apart(guarded[name])
        if guarded.get("tool_calls"):
            guarded["tool_calls"] = [
                {**call, "function": {name: self._apart(text) for name, text in call["function"].items()}}
                for call in guarded["tool_calls"]
            ]
        return guarded

    def _apart(self, text: str) -> str:
        """`<|im_end|>` becomes `< |im_end|>`: readable, and no control token any more."""
        if self._control is None:
            return text
        return self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
