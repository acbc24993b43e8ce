"""What every engine server must do over HTTP. A check takes a base URL and how the engine may differ.

What may differ is a field of `Capabilities`, and nothing else is: a check never skips itself, it asks for the
other behaviour. `table` prints the differences side by side.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from dataclasses import dataclass, fields
from typing import Any

import jsonschema

from .client import QUESTION, Client, Said, client, idle, until

CONTROL = re.compile(r"<\|[a-z_]+\|>|</?think>|</?tool_call>")
PYTHON = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs code.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"enum": ["print(1)", "print(2 + 2)"]}},
            "required": ["code"],
            "additionalProperties": False,
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {"type": "object", "properties": {"count": {"enum": [1, 2]}}, "required": ["count"]},
    },
}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """How an engine may differ from the others. The defaults are what most do."""

    cached_tokens: str = "measured"  # or "calculated", or "by message"
    cache_granule_tokens: int = 1  # a repeated prompt may miss so many tokens at its end
    seeds_hold_in_a_crowd: bool = True  # a seeded generation says the same beside seven others
    has_control_tokens: bool = True  # <|im_end|> is one token
    control_tokens_are_text: bool = True  # ... but not where it comes in a message
    tokenizes_messages: bool = True  # /v1/tokenize takes messages, not only a prompt
    aborted_metric: str = "heavy_engine:num_aborted_requests_total"
    aborted_finish: bool = True  # an aborted stream ends with finish_reason "abort"
    call_ids_count_on: bool = True  # ids of new calls go on counting where the history ends
    malformed_status: tuple[int, ...] = (400,)
    names_the_field: bool = True  # a 400 says which field is wrong, in `param`
    queue_full_status: int = 503
    retry_after: bool = True  # a full queue says when to come again
    honours_json_schema: bool = True
    sampled_seeds_differ: bool = True  # two seeds give two texts
    continues_exactly: bool = True  # greedily, half an answer is gone on from as if it had not been cut


def table(engines: dict[str, Capabilities]) -> str:
    """The capabilities of several engines side by side."""
    rows = [["", *engines]]
    rows += [
        [one.name, *(str(getattr(caps, one.name)) for caps in engines.values())]
        for one in fields(Capabilities)
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


# -- the checks


async def check_information_endpoints_answer(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        models = await http.get("/v1/models")
        assert models["data"][0]["id"]
        assert models["data"][0]["max_model_len"] > 0
        assert (await http.get("/model_info"))["model_path"]
        assert await http.get("/server_info")
        for path in ("/health", "/health_generate"):
            async with http.session.get(url + path) as response:
                assert response.status == 200, path


async def check_streaming_equals_not_streaming(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        how = {"temperature": 0, "seed": 11, "max_tokens": 48}
        streamed, whole = await http.stream(**how), await http.say(**how)
        assert streamed.words == whole.words
        assert streamed.finish == whole.finish
        assert streamed.usage["completion_tokens"] == whole.usage["completion_tokens"]


async def check_usage_adds_up(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        said = await http.stream(max_tokens=24, seed=1)
        usage = said.usage
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert 0 < usage["completion_tokens"] <= 24
        details = usage.get("completion_tokens_details") or {}
        thought = details.get("reasoning_tokens", usage.get("reasoning_tokens", 0))
        assert 0 <= thought <= usage["completion_tokens"]
        assert bool(said.reasoning) <= bool(thought)


async def check_a_repeated_prompt_is_cached(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        fresh = [{"role": "user", "content": uuid.uuid4().hex + " counts the steps of the sum. " * 12}]
        first = await http.say(messages=fresh, max_tokens=2)
        await until(lambda: idle(http), "the first generation is over")
        again = await http.say(messages=fresh, max_tokens=2)
        prompt = again.usage["prompt_tokens"]
        before = (first.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        after = (again.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        assert before < prompt / 2
        assert prompt - 1 - caps.cache_granule_tokens <= after < prompt


async def check_a_required_call_is_parsed(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        for ask in (http.say, http.stream):
            said = await ask(tools=[PYTHON, SEARCH], tool_choice="required", max_tokens=400, seed=5)
            assert said.finish == "tool_calls"
            assert said.calls
            parameters = {
                tool["function"]["name"]: tool["function"]["parameters"] for tool in (PYTHON, SEARCH)
            }
            for number, call in enumerate(said.calls):
                name = call["function"]["name"]
                jsonschema.validate(json.loads(call["function"]["arguments"]), parameters[name])
                assert re.fullmatch(rf"functions\.{name}:{number}", call["id"]), call["id"]
            assert not CONTROL.search(said.content + said.reasoning)


async def check_a_named_call_is_of_that_tool(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        choice = {"type": "function", "function": {"name": "search"}}
        said = await http.say(tools=[PYTHON, SEARCH], tool_choice=choice, max_tokens=400, seed=5)
        assert {call["function"]["name"] for call in said.calls} == {"search"}


async def check_calls_in_the_history_are_understood(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        call = {
            "id": "functions.python:0",
            "type": "function",
            "function": {"name": "python", "arguments": '{"code": "print(1)"}'},
        }
        history = [
            *QUESTION,
            {"role": "assistant", "content": "", "reasoning_content": "I compute.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "1\n"},
        ]
        said = await http.say(
            messages=history, tools=[PYTHON], tool_choice="required", max_tokens=400, seed=2
        )
        number = int(said.calls[0]["id"].rsplit(":", 1)[1])
        assert number == (1 if caps.call_ids_count_on else 0)


async def check_a_stop_string_ends_the_text(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        how = {"temperature": 0, "seed": 3, "max_tokens": 120}
        # What runs beside it, and whether its prompt is cached, may change the last bits, and then the text.
        await until(lambda: idle(http), "nothing else runs")
        await http.say(**how)
        free = await http.say(**how)
        text = free.content or free.reasoning
        words = re.findall(r"[a-z]{2,}", text[len(text) // 3 :])
        assert words, f"nothing to stop at in {text!r}"
        stop = words[0]
        for ask in (http.say, http.stream):
            cut = await ask(stop=[stop], **how)
            assert cut.finish == "stop"
            said = cut.content or cut.reasoning
            assert said.rstrip() == text[: text.index(stop)].rstrip()


async def check_max_tokens_means_length(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        said = await http.say(max_tokens=7, seed=4, ignore_eos=True)
        assert said.finish == "length"
        assert said.usage["completion_tokens"] == 7


async def check_an_abort_ends_the_generation(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        before = await http.metric(caps.aborted_metric)
        rid = f"conformance-{uuid.uuid4().hex}-end"
        chunks = http.chunks(rid=rid, max_tokens=1_200, ignore_eos=True)
        await anext(chunks)
        await until(lambda: _runs(http), "the generation runs")
        status, _, _ = await http.post("/abort_request", {"rid": rid.removesuffix("-end")})
        assert status == 200
        finish = [choice["finish_reason"] async for chunk in chunks for choice in chunk.get("choices") or ()]
        if caps.aborted_finish:
            assert finish[-1] == "abort"
        await until(lambda: idle(http), "the load is zero after an abort")
        await until(lambda: _counted(http, caps, before), "the aborted one is counted")


async def _runs(http: Client) -> bool:
    return bool((await http.load())["num_running_reqs"] == 1)


async def _counted(http: Client, caps: Capabilities, before: float) -> bool:
    return await http.metric(caps.aborted_metric) > before


async def check_abort_all_ends_everything(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        streams = [http.chunks(max_tokens=1_200, seed=seed, ignore_eos=True) for seed in range(3)]
        for one in streams:
            await anext(one)
        assert (await http.post("/abort_request", {"abort_all": True}))[0] == 200
        await until(lambda: idle(http), "the load is zero after abort_all")
        for one in streams:
            await one.aclose()


async def check_a_reader_that_goes_away_ends_the_generation(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        before = await http.metric(caps.aborted_metric)
        chunks = http.chunks(max_tokens=1_200, ignore_eos=True)
        await anext(chunks)
        await chunks.aclose()
        await until(lambda: idle(http), "the load is zero after a disconnect")
        await until(lambda: _counted(http, caps, before), "the disconnected one is counted as aborted")


async def check_seeds_are_reproducible(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        how = {"temperature": 1.0, "max_tokens": 40}
        one, same, other = [await http.say(seed=seed, **how) for seed in (7, 7, 8)]
        assert one.words == same.words
        if caps.sampled_seeds_differ:
            assert one.words != other.words


async def check_half_an_answer_is_gone_on_from(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        body: dict[str, Any] = {"temperature": 0, "max_tokens": 48}
        whole, half = await http.stream(**body), Said()
        async for chunk in http.chunks(**{**body, "max_tokens": 24}):
            for choice in chunk.get("choices") or ():
                half.content += choice["delta"].get("content") or ""
                half.reasoning += choice["delta"].get("reasoning_content") or ""
        written = half.content
        if half.reasoning:
            written = f"<think>{half.reasoning}" + (f"</think>{half.content}" if half.content else "")
        messages = [*QUESTION, {"role": "assistant", "content": written}]
        rest = await http.stream(**body, messages=messages, continue_final_message=True)
        assert rest.usage["prompt_tokens"] > whole.usage["prompt_tokens"]
        assert rest.reasoning or rest.content
        if not half.content:
            assert not half.reasoning or rest.reasoning, "it goes on thinking"
        if caps.continues_exactly:
            assert (half.reasoning + rest.reasoning).startswith(whole.reasoning.rstrip())
            assert (half.content + rest.content).startswith(whole.content.rstrip())


async def check_eight_streams_at_once(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        how = {"temperature": 1.0, "max_tokens": 40}
        alone = await http.stream(seed=103, **how)
        crowd = await asyncio.gather(*(http.stream(seed=100 + seed, **how) for seed in range(8)))
        assert all(said.finish in ("stop", "length", "tool_calls") for said in crowd)
        assert all(said.usage["completion_tokens"] > 0 for said in crowd)
        if caps.seeds_hold_in_a_crowd:
            assert crowd[3].words == alone.words


async def check_too_long_a_prompt_is_refused(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        longest = (await http.get("/v1/models"))["data"][0]["max_model_len"]
        text = "sum of numbers " * longest
        status, answer, _ = await http.post(
            "/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}
        )
        assert status == 400
        assert str(longest) in json.dumps(answer)
        status, _, _ = await http.post("/v1/chat/completions", {"messages": QUESTION, "max_tokens": longest})
        assert status == 400


MALFORMED: dict[str, dict[str, Any]] = {
    "messages": {"messages": []},
    "messages.0.role": {"messages": [{"role": "narrator", "content": "x"}]},
    "temperature": {"messages": QUESTION, "temperature": -1},
    "top_p": {"messages": QUESTION, "top_p": 2},
    "max_tokens": {"messages": QUESTION, "max_tokens": 0},
    "tool_choice": {"messages": QUESTION, "tools": [PYTHON], "tool_choice": "sometimes"},
}


async def check_malformed_bodies_are_refused(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        status, _, _ = await http.post("/v1/chat/completions", b'{"messages": [')
        assert status in caps.malformed_status
        for name, body in MALFORMED.items():
            status, answer, _ = await http.post("/v1/chat/completions", body)
            assert status in caps.malformed_status, (name, status, answer)
            if caps.names_the_field:
                assert answer["error"]["param"] == name, answer
                assert name in answer["error"]["message"], answer


async def check_the_load_has_its_shape(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        chunks = http.chunks(max_tokens=1_200, ignore_eos=True)
        await anext(chunks)
        await until(lambda: _runs(http), "the generation runs")
        load = await http.load()
        await chunks.aclose()
        assert load["num_waiting_reqs"] == 0
        assert 0 < load["num_used_tokens"] <= load["max_total_num_tokens"]
        assert 0 < load["token_usage"] <= 1
        await until(lambda: idle(http), "the load is zero again")


async def check_tokenize_counts_what_is_prefilled(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        status, plain, _ = await http.post("/v1/tokenize", {"prompt": "the sum of two numbers"})
        assert status == 200
        assert plain["count"] == len(plain["tokens"]) > 0
        assert plain["max_model_len"] == (await http.get("/v1/models"))["data"][0]["max_model_len"]
        if caps.tokenizes_messages:
            _, counted, _ = await http.post("/v1/tokenize", {"messages": QUESTION, "tools": [PYTHON]})
            said = await http.say(tools=[PYTHON], max_tokens=1)
            assert counted["count"] == said.usage["prompt_tokens"]


async def check_json_schema_shapes_the_answer(url: str, caps: Capabilities) -> None:
    if not caps.honours_json_schema:
        return
    async with client(url) as http:
        schema = {
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "size": {"type": "boolean"}},
            "required": ["kind", "size"],
            "additionalProperties": False,
        }
        wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}
        said = await http.say(response_format=wanted, max_tokens=200, seed=6)
        jsonschema.validate(json.loads(said.content), schema)


async def check_a_control_token_in_the_question_is_only_text(url: str, caps: Capabilities) -> None:
    async with client(url) as http:
        end = (await http.post("/v1/tokenize", {"prompt": "<|im_end|>", "add_special_tokens": False}))[1][
            "tokens"
        ]
        assert (len(end) == 1) == caps.has_control_tokens
        counts = []
        for text in ("obey", "<|im_end|> obey <|im_end|>"):
            message = {"role": "user", "content": text}
            tokens = (await http.post("/v1/tokenize", {"messages": [message]}))[1]["tokens"]
            counts.append(tokens.count(end[0]))
        if caps.has_control_tokens:
            assert (counts[0] == counts[1]) == caps.control_tokens_are_text


async def check_a_full_queue_says_so(url: str, caps: Capabilities) -> None:
    """Against a server that runs one generation and lets one wait."""
    async with client(url) as http:
        running = http.chunks(max_tokens=1_200, ignore_eos=True)
        await anext(running)
        waiting = asyncio.ensure_future(http.say(max_tokens=1))
        await until(lambda: _waits(http), "the second one waits")
        status, answer, headers = await http.post("/v1/chat/completions", {"messages": QUESTION})
        assert status == caps.queue_full_status, answer
        if caps.retry_after:
            assert int(headers["Retry-After"]) >= 1
        await running.aclose()
        assert (await waiting).finish == "length"
        await until(lambda: idle(http), "the load is zero again")


async def _waits(http: Client) -> bool:
    return bool((await http.load())["num_waiting_reqs"] == 1)


CHECKS = tuple(
    check
    for name, check in sorted(globals().items())
    if name.startswith("check_") and name != "check_a_full_queue_says_so"
)
