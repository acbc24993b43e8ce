"""Traces of real runs: `heavy up` sends them to a real OTLP receiver, and they are read as a person would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.ids import AGGREGATOR, arm
from heavy.core.policy import AggregationMode
from heavy.core.records import Delta, GenerationRecord, Record, ToolIntentRecord
from heavy.core.runs import Run
from heavy.telemetry import names
from heavy.telemetry.tracing import CANCELLED, trace_id_of

from tests_support.otlp import ReceivedSpan, TraceReceiver
from tests_support.up import Up
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

QUESTION = "What is 6 times 7, and where is the zanzibarite?"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WIDTH = 8
ASK = "heavy.v1.HeavyService/Ask"
RUN = "invoke_workflow heavy"
HEAVY, ENGINE = "heavy", "heavy-engine"


@pytest.fixture(scope="module")
def receiver() -> Iterator[TraceReceiver]:
    """Where the traces of this module go."""
    server = TraceReceiver()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def traced_up(receiver: TraceReceiver) -> Iterator[Up]:
    """A `heavy up` that sends its traces."""
    running = Up(["brisk"], env={"HEAVY_OTLP_ENDPOINT": receiver.endpoint})
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def traced(traced_up: Up) -> AsyncIterator[HeavyClient]:
    """A client of it."""
    async with HeavyClient(traced_up.address) as connected:
        yield connected


async def spans_of(
    receiver: TraceReceiver, run: Run, *wanted: str, ours: int = 0, engines: int = 0
) -> list[ReceivedSpan]:
    """The spans of a run, once the named ones, so many of ours and so many engines' are among them."""
    trace = trace_id_of(run.spec.traceparent)

    async def read() -> list[ReceivedSpan]:
        return receiver.spans(trace)

    def complete(spans: list[ReceivedSpan]) -> bool:
        own = [span for span in spans if span.service == HEAVY]
        served = of([span for span in spans if span.service == ENGINE], names.CHAT)
        named = set(wanted) <= {span.name for span in spans}
        return named and len(own) >= ours and len(served) >= engines

    return await until(read, complete)


def operation(span: ReceivedSpan) -> str:
    return str(span.attributes.get(names.OPERATION, ""))


def of(spans: list[ReceivedSpan], wanted: str) -> list[ReceivedSpan]:
    return [span for span in spans if operation(span) == wanted]


async def test_one_run_is_one_tree_below_its_call_and_arrives_while_it_goes_on(
    traced: HeavyClient, receiver: TraceReceiver
) -> None:
    records: list[Record] = []
    draft = PolicyDraft(width=WIDTH, early_stop=False, aggregation=AggregationMode.REFLECTIVE)
    async with traced.ask(QUESTION, draft, traceparent=CALLER) as stream:
        async for event in stream:
            if isinstance(event, Record):
                records.append(event)  # noqa: PERF401
    assert stream.run is not None
    run = await traced.get(stream.run)
    generations = [r for r in records if isinstance(r.body, GenerationRecord)]
    calls = [r for r in records if isinstance(r.body, ToolIntentRecord)]
    assert calls
    # The call, the run, the arms and the aggregator, their generations, their tool calls; and, of each
    # generation, what its engine says: itself, its prefill, its decode (a queue only where there was one).
    ours = 2 + WIDTH + 1 + len(generations) + len(calls)
    spans = await spans_of(receiver, run, ASK, ours=ours, engines=len(generations))
    engines = [span for span in spans if span.service == ENGINE]
    spans = [span for span in spans if span.service == HEAVY]
    assert len(spans) == ours
    by_id = {span.span: span for span in spans}

    # One trace: the caller's.
    assert trace_id_of(run.spec.traceparent) == trace_id_of(CALLER)
    assert {span.trace for span in spans} == {trace_id_of(CALLER)}

    # Server span -> run -> trajectories -> generations and tool calls.
    (call,) = [span for span in spans if span.name == ASK]
    assert call.parent == CALLER.split("-")[2]
    (workflow,) = of(spans, names.INVOKE_WORKFLOW)
    assert (workflow.name, workflow.parent) == (RUN, call.span)
    assert workflow.span == run.spec.traceparent.split("-")[2]
    agents = of(spans, names.INVOKE_AGENT)
    assert {a.name for a in agents} == {f"invoke_agent {t}" for t in (*map(arm, range(WIDTH)), AGGREGATOR)}
    assert {a.parent for a in agents} == {workflow.span}
    chats, tools = of(spans, names.CHAT), of(spans, names.EXECUTE_TOOL)
    assert len(chats) == len(generations)
    assert len(tools) == len(calls)
    for span in (*chats, *tools):
        assert operation(by_id[span.parent]) == names.INVOKE_AGENT
    aggregator = next(a for a in agents if a.name.endswith(AGGREGATOR))
    assert any(chat.parent == aggregator.span for chat in chats)

    # The engines' own spans continue those of the generations, stage by stage.
    served = of(engines, names.CHAT)
    assert {span.parent for span in served} == {chat.span for chat in chats}
    assert len(served) == len(chats)
    for span in served:
        below = [stage for stage in engines if stage.parent == span.span]
        assert {names.STAGE_PREFILL, names.STAGE_DECODE} <= {stage.name for stage in below}
        chat = by_id[span.parent]
        assert span.attributes[names.OUTPUT_TOKENS] == chat.attributes[names.OUTPUT_TOKENS]
        assert span.attributes[names.ENGINE_REQUEST_ID] == chat.attributes[names.ENGINE_REQUEST_ID]

    # What went well is no error.
    assert [(span.name, span.error) for span in spans if span.error] == []

    # Generations tell what the log tells.
    told = sorted((c.attributes[names.INPUT_TOKENS], c.attributes[names.OUTPUT_TOKENS]) for c in chats)
    spends = [g.body.spend for g in generations if isinstance(g.body, GenerationRecord)]
    assert told == sorted((s.tokens_prompt, s.tokens_output) for s in spends)

    # Steps arrive while the run goes on.
    assert min(chat.arrived_ns for chat in chats) < workflow.end_ns

    only_known_names_and_no_texts([*spans, *engines])


def only_known_names_and_no_texts(spans: list[ReceivedSpan]) -> None:
    """Attribute names are those of one module; questions, answers, code and arguments are nowhere."""
    known = {value for name, value in vars(names).items() if name.isupper()}
    used = {key for span in spans for key in span.attributes}
    assert used <= known
    for span in spans:
        for told in ("zanzibarite", "print(", "Answer", '"code"'):
            assert told not in span.text


async def test_without_a_caller_the_trace_begins_with_the_call(
    traced: HeavyClient, receiver: TraceReceiver
) -> None:
    run = await traced.answer(QUESTION, PolicyDraft(width=1))
    spans = await spans_of(receiver, run, ASK, RUN, "invoke_agent arm-0")
    assert trace_id_of(run.spec.traceparent) not in ("", trace_id_of(CALLER))
    (root,) = [span for span in spans if not span.parent]
    assert root.name == ASK
    assert {span.service for span in spans} <= {HEAVY, ENGINE}


async def test_a_caller_who_does_not_sample_is_not_traced_but_keeps_its_trace_id(
    traced: HeavyClient, receiver: TraceReceiver
) -> None:
    unsampled = f"00-{'5' * 32}-b7ad6b7169203331-00"
    run = await traced.answer(QUESTION, PolicyDraft(width=1), traceparent=unsampled)
    later = await traced.answer(QUESTION, PolicyDraft(width=1))
    assert trace_id_of(run.spec.traceparent) == "5" * 32
    await spans_of(receiver, later, ASK)
    assert receiver.spans("5" * 32) == []


async def test_a_garbled_trace_context_begins_a_trace_of_its_own(traced: HeavyClient) -> None:
    run = await traced.answer(QUESTION, PolicyDraft(width=1), traceparent="00-zz-")
    assert len(trace_id_of(run.spec.traceparent)) == 32


async def test_a_cancelled_runs_spans_end_and_say_so(traced: HeavyClient, receiver: TraceReceiver) -> None:
    run = (await traced.create(QUESTION, PolicyDraft(width=4))).spec.run
    async with traced.watch(run, deltas=True) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                await traced.cancel(run, "enough of the zanzibarite")
                break
    async with traced.watch(run, deltas=False) as stream:
        async for _ in stream:
            pass
    ended = await traced.get(run)
    spans = await spans_of(receiver, ended, RUN, *(f"invoke_agent {arm(i)}" for i in range(4)))
    agents = of(spans, names.INVOKE_AGENT)
    assert len(agents) == 4
    assert {a.attributes[names.OUTCOME_REASON] for a in agents} == {"cancelled"}
    assert {span.error for span in of(spans, names.CHAT)} <= {"", CANCELLED}
    only_known_names_and_no_texts(spans)


async def test_runs_do_not_share_traces(traced: HeavyClient) -> None:
    answered = await asyncio.gather(*(traced.answer(QUESTION, PolicyDraft(width=1)) for _ in range(3)))
    assert len({trace_id_of(run.spec.traceparent) for run in answered}) == 3
