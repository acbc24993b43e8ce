"""The chat template and the aggregation template render what the trainer renders."""

from __future__ import annotations

import itertools
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest

import workers.abacus as package
from workers.abacus import chat
from workers.abacus.prompting import TEMPLATE, Candidate, aggregate_prompt
from workers.abacus.tasks import LEVELS, make_problem
from workers.abacus.tasks.trace import TOOLS, gold

ROOT = Path(package.__file__).parent


@cache
def template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((ROOT / "chat_template.jinja").read_text())


def rendered(messages: list[chat.Message], tools: list[dict[str, Any]], *, prompt: bool) -> str:
    return template().render(messages=messages, tools=tools or None, add_generation_prompt=prompt)


@pytest.mark.parametrize("family", list(LEVELS))
def test_the_template_renders_every_prefix_of_a_trajectory_as_the_trainer_does(family: str) -> None:
    rng = random.Random(0)
    for index in range(10):
        problem = make_problem(family, LEVELS[family][-1], "dev", index)
        messages = [message for message, _ in gold(problem, rng)]
        for length in range(1, len(messages) + 1):
            part = messages[:length]
            for tools, prompt in itertools.product((TOOLS, []), (True, False)):
                assert rendered(part, tools, prompt=prompt) == chat.render(part, tools, prompt=prompt)


def test_arguments_as_an_object_and_content_in_parts_render_alike() -> None:
    call = {"id": "functions.python:0", "function": {"name": "python", "arguments": {"code": "print(1)"}}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": None, "reasoning_content": "t", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.python:0", "content": "1\n"},
    ]
    tools = [chat.PYTHON_TOOL]
    text = chat.render(messages, tools)
    assert rendered(messages, tools, prompt=True) == text
    assert "<think>t</think><|tool_calls_section_begin|><|tool_call_begin|>functions.python:0" in text
    assert '{"code": "print(1)"}<|tool_call_end|><|tool_calls_section_end|><|im_end|>' in text
    assert "## Return of functions.python:0\n1\n<|im_end|>" in text


def test_thinking_of_finished_answers_is_dropped() -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "reasoning_content": "secret", "content": "Answer: 1"},
        {"role": "user", "content": "r"},
    ]
    text = chat.render(messages)
    assert "secret" not in text
    assert rendered(messages, [], prompt=True) == text


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("lstrip", [True, False])
def test_the_aggregation_prompt_does_not_depend_on_whitespace_settings(trim: bool, lstrip: bool) -> None:
    made = [
        Candidate("A", "12", "5+7=12"),
        Candidate("B", None, "5+7", "cut"),
        Candidate("C", "13", "5+7=13\n"),
        Candidate("D", "12", ""),
    ]
    expected = (
        "Aggregate.\nQuestion: q\n[A]\n5+7=12\n= 12\n[B] (cut)\n5+7\n= none\n[C]\n5+7=13\n= 13\n[D]\n= 12\n"
    )
    expected += "Answers:\n12: A, D\n13: C"
    environment = jinja2.Environment(autoescape=False, trim_blocks=trim, lstrip_blocks=lstrip)
    template = environment.from_string(TEMPLATE.read_text())
    assert template.render(question="q", candidates=made) == expected == aggregate_prompt("q", made)
