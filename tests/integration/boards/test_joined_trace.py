"""The trace of a run, from the call down to the stages inside the engine, as an OTLP backend receives it."""

from __future__ import annotations

import pytest

from heavy.core.ids import AGGREGATOR, arm
from heavy.telemetry import names
from heavy.telemetry.tracing import trace_id_of

from .conftest import Watched
from tests_support.otlp import ReceivedSpan, TraceReceiver
from tests_support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

HEAVY, ENGINE = "heavy", "heavy-engine"


def operation(spans: list[ReceivedSpan], wanted: str, service: str = HEAVY) -> list[ReceivedSpan]:
    return [s for s in spans if s.attributes.get(names.OPERATION) == wanted and s.service == service]


async def test_the_engines_spans_are_below_the_generations_of_the_run(
    watched: Watched, receiver: TraceReceiver
) -> None:
    trace = trace_id_of(watched.runs[0].spec.traceparent)

    async def read() -> list[ReceivedSpan]:
        return receiver.spans(trace)

    def complete(spans: list[ReceivedSpan]) -> bool:
        chats, served = operation(spans, names.CHAT), operation(spans, names.CHAT, ENGINE)
        workflow = operation(spans, names.INVOKE_WORKFLOW)
        return bool(workflow) and len(chats) == len(served) >= 8

    spans = await until(read, complete, within_s=60.0)
    by_id = {span.span: span for span in spans}
    (workflow,) = operation(spans, names.INVOKE_WORKFLOW)
    agents = operation(spans, names.INVOKE_AGENT)
    assert {span.name for span in agents} == {f"invoke_agent {t}" for t in (*map(arm, range(3)), AGGREGATOR)}
    assert {span.parent for span in agents} == {workflow.span}
    assert (workflow.name, workflow.attributes[names.AGENT_NAME]) == ("invoke_workflow heavy", "heavy")
    told = [span for span in spans if span.service == HEAVY and names.OPERATION in span.attributes]
    assert {span.attributes[names.CONVERSATION_ID] for span in told} == {watched.runs[0].spec.run}
    for served in operation(spans, names.CHAT, ENGINE):
        chat = by_id[served.parent]
        assert (chat.service, chat.attributes[names.OPERATION]) == (HEAVY, names.CHAT)
        assert by_id[chat.parent] in agents
        for shared in (names.ENGINE_REQUEST_ID, names.INPUT_TOKENS, names.OUTPUT_TOKENS):
            assert served.attributes[shared] == chat.attributes[shared]
        stages = {span.name for span in spans if span.parent == served.span}
        assert {names.STAGE_PREFILL, names.STAGE_DECODE} <= stages
        assert chat.start_ns <= served.start_ns <= served.end_ns <= chat.end_ns
    assert [(span.name, span.error) for span in spans if span.error] == []


async def test_no_span_of_heavy_or_its_engine_has_a_word_of_the_conversation(
    watched: Watched, receiver: TraceReceiver
) -> None:
    assert watched.runs
    known = {value for name, value in vars(names).items() if name.isupper()}
    for span in receiver.spans():
        assert set(span.attributes) <= known
        for told in ("zanzibarite", "print(", "Answer", '"code"'):
            assert told not in span.text
