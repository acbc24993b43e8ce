"""SGLang's own spans: below the generation that asked, stage by stage, few, and without texts."""

from __future__ import annotations

import secrets

import aiohttp
import pytest

from tests_support.otlp import ReceivedSpan, TraceReceiver
from tests_support.waiting import until

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(600)]

STAGES = {"tokenize", "prefill_waiting", "prefill_forward", "decode_forward"}
TOKENS = 40


async def test_its_spans_continue_the_trace_of_whoever_asked(url: str, receiver: TraceReceiver) -> None:
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    body = {
        "messages": [{"role": "user", "content": "where is the zanzibarite"}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    headers = {"traceparent": f"00-{trace}-{caller}-01"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        assert response.status == 200
        await response.read()

    async def read() -> list[ReceivedSpan]:
        return receiver.spans(trace)

    def complete(spans: list[ReceivedSpan]) -> bool:
        return {span.name for span in spans} >= STAGES and any(span.parent == caller for span in spans)

    spans = await until(read, complete, within_s=60.0)
    (root,) = [span for span in spans if span.parent == caller]
    assert {span.service for span in spans} == {"heavy-engine"}
    assert root.attributes["gen_ai.usage.completion_tokens"] == TOKENS
    by_id = {span.span: span for span in spans}
    for span in spans:
        assert span is root or span.parent in by_id
        assert "zanzibarite" not in span.text
    # One for each stage, not one for each token.
    assert len(spans) < TOKENS / 2
