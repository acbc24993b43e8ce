"""The OpenVINO engine's parts that need no model: prefix bookkeeping, detokenising, templates, grammars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engines.api.errors import BadRequest
from workers.engines.formats.markers import HERMES_CALLS, K2_CALLS
from workers.engines.openvino.detokenizer import Detokenizer
from workers.engines.openvino.grammar import checked, one_call, well_formed_calls
from workers.engines.openvino.link import Frames, pack
from workers.engines.openvino.model import ModelDirectory
from workers.engines.openvino.prefix import BLOCK_TOKENS, PrefixBlocks
from workers.engines.openvino.template import ChatTemplate, TemplateRefusal

FIXTURES = Path(__file__).parents[2] / "fixtures" / "models"
TOOL = {"function": {"name": "python", "parameters": {"type": "object"}}}


def test_a_repeated_prompt_is_cached_up_to_its_last_whole_block() -> None:
    prefix, prompt = PrefixBlocks(blocks_max=10), list(range(BLOCK_TOKENS * 3 + 5))
    assert prefix.match(prompt) == 0
    prefix.insert(prompt)
    assert prefix.match(prompt) == BLOCK_TOKENS * 3
    assert prefix.match(prompt[: BLOCK_TOKENS * 2]) == BLOCK_TOKENS * 2 - 1  # one token is always computed
    assert prefix.match([7, *prompt]) == 0


def test_the_end_of_an_old_prompt_is_overwritten_first() -> None:
    prefix, old, new = PrefixBlocks(3), list(range(BLOCK_TOKENS * 3)), list(range(900, 900 + BLOCK_TOKENS))
    prefix.insert(old)
    prefix.insert(new)
    assert prefix.match([*old, 1]) == BLOCK_TOKENS * 2
    assert prefix.match([*new, 1]) == BLOCK_TOKENS


class Spelled:
    """A tokenizer whose tokens are fixed bytes; `strips` makes one that drops the first space, as some do."""

    def __init__(self, strips: bool = False) -> None:
        self.words = [bytes([byte]) for byte in range(256)] + [b" the", b" sum", b"<|end|>", b"<think>"]
        self.strips = strips

    def get_vocab(self) -> dict[bytes, int]:
        return {word: token for token, word in enumerate(self.words)}

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        kept = [token for token in tokens if not (skip_special_tokens and token >= 258)]
        text = b"".join(self.words[token] for token in kept).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.strips else text


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40), sizes=st.lists(st.integers(1, 5), min_size=1))
def test_text_is_never_shown_with_half_a_character(text: str, sizes: list[int]) -> None:
    stream, ids, shown, turn = Detokenizer(Spelled()).stream(), list(text.encode()), "", 0
    while ids:
        size = sizes[turn % len(sizes)]
        piece = stream.feed(ids[:size])
        assert "\ufffd" not in piece or "\ufffd" in text
        shown, ids, turn = shown + piece, ids[size:], turn + 1
    assert shown + stream.finish() == text


@pytest.mark.parametrize("strips", [False, True])
def test_both_ways_of_detokenising_give_the_text(strips: bool) -> None:
    detokenizer = Detokenizer(Spelled(strips))
    assert detokenizer.by_table is not strips
    stream = detokenizer.stream()
    ids = [*b"so", 256, 257, *"é".encode(), *b" is done now"]
    assert "".join(stream.feed([token]) for token in ids) + stream.finish() == "so the sumé is done now"


def test_special_tokens_are_hidden_unless_a_parser_needs_them() -> None:
    stream = Detokenizer(Spelled(), visible=["<think>"]).stream()
    assert stream.feed([259, *b"hm", 258]) == "<think>hm"


def test_a_template_sees_the_conversation_as_hugging_face_would_give_it() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}\n{{ m.role }}:{{ m.content }}{% endfor %}{{ tools | tojson }}"
    )
    template = ChatTemplate(source, {"bos_token": "<s>"})
    text = template.render([{"role": "user", "content": "é<"}], [TOOL], add_generation_prompt=True, extra={})
    assert text == '<s>user:é<[{"function": {"name": "python", "parameters": {"type": "object"}}}]'


def test_arguments_are_text_or_an_object_as_the_template_wants_them() -> None:
    call = {"function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    loop = "{% for c in messages[0].tool_calls %}{% set arguments = c.function.arguments %}"
    either = loop + "{% if arguments is string %}{{ arguments }}{% endif %}{% endfor %}"
    objects = "{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}"
    for source, expected in ((either, '{"a":1}'), (objects, '{"a": 1}')):
        rendered = ChatTemplate(source, {}).render([message], [], add_generation_prompt=False, extra={})
        assert rendered == expected


def test_a_template_can_refuse_and_cannot_reach_outside() -> None:
    for source in ("{{ raise_exception('no system') }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}"):
        with pytest.raises(TemplateRefusal):
            ChatTemplate(source, {}).render([], [], add_generation_prompt=True, extra={})
    with pytest.raises(ValueError, match="does not compile"):
        ChatTemplate("{% if %}", {})


def test_a_schema_that_is_none_is_refused_before_it_reaches_the_pipeline() -> None:
    with pytest.raises(BadRequest, match="is not a JSON schema"):
        checked({"type": "wrongtype"}, "response_format")


def test_a_forced_call_is_written_in_the_models_own_format() -> None:
    k2 = one_call(K2_CALLS, [TOOL], None, index=4, prefix="</think>")
    assert k2["all"][0] == {"text": "</think><|tool_calls_section_begin|>"}
    assert {"text": "4"} in k2["all"][1]["any"][0]["all"]
    hermes = one_call(HERMES_CALLS, [TOOL], "python", index=0, prefix="")
    assert hermes["all"][0]["any"][0]["all"][0] == {"text": '<tool_call>\n{"name": "python", "arguments": '}
    assert well_formed_calls(HERMES_CALLS, [TOOL])["triggers"] == ["<tool_call>"]
    with pytest.raises(BadRequest, match="cannot be constrained"):
        one_call(K2_CALLS, [{"function": {"name": 'a"b'}}], None, 0, "")


def test_a_directory_that_is_no_model_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks openvino_model\.xml"):
        ModelDirectory.read(tmp_path)


def test_a_model_directory_tells_its_context_its_stops_and_its_template() -> None:
    directory = ModelDirectory.read(FIXTURES / "tiny-k2-int4")
    assert directory.context_tokens == 2_048
    assert directory.kv_bytes_per_token == 2 * 2 * 2 * 16
    assert directory.stop_token_ids
    assert "<|tool_call_begin|>" in (directory.chat_template() or "")


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=2), max_size=5),
    st.integers(1, 9),
)
def test_messages_survive_any_cut_of_the_byte_stream(messages: list[dict[str, Any]], size: int) -> None:
    data, frames, got = b"".join(pack(message) for message in messages), Frames(), []
    for at in range(0, len(data), size):
        got += frames.feed(data[at : at + size])
    assert got == messages
