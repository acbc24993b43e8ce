"""A judge model: asked with a prompt one can replace, read strictly; its silence is no verdict."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError, HeavyError, JudgeFailed
from heavy.evals.questions import Question
from heavy.evals.verdicts import Verdicts, key_of
from heavy.prompts.templates import TEMPLATE_BYTES_MAX, render_template

RESPONSE_CHARS_MAX: Final = 20_000
"""What a judge sees of a longer reply is its end: that is where answers stand."""
REPLY_BYTES_MAX: Final = 4 << 20
_VERDICT: Final = re.compile(
    r"^[\s>#*_`-]*correct[\s*_`]*:[\s*_`]*(yes|no)[\s*_`.]*$", re.IGNORECASE | re.MULTILINE
)
_PAUSE_FIRST_S: Final = 0.5
_PAUSE_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A template: a built-in one by its name, or the file "./name" in a directory."""

    directory: str = ""
    name: str = "judge.jinja"

    @classmethod
    def of_file(cls, path: Path) -> JudgePrompt:
        """A template of one's own. Raises `ConfigError` when it cannot be filled in."""
        if not path.is_file() or path.stat().st_size > TEMPLATE_BYTES_MAX:
            raise ConfigError(
                f"The judge's prompt {path} is not there, or larger than {TEMPLATE_BYTES_MAX} bytes"
            )
        prompt = cls(str(path.parent.resolve()), f"./{path.name}")
        prompt.render("question", "response", "answer", "truth")
        return prompt

    def text(self) -> str:
        """The template itself."""
        if self.directory:
            return (Path(self.directory) / self.name).read_text(encoding="utf-8")
        return resources.files("heavy.prompts").joinpath(self.name).read_text(encoding="utf-8")

    def render(self, question: str, response: str, answer: str, truth: str) -> str:
        """The prompt for one answer. Raises `ConfigError` naming the template and its fault."""
        values = {"question": question, "response": response, "answer": answer, "truth": truth}
        return render_template(self.directory, self.name, "The judge's prompt", values)


def verdict_in(text: str) -> bool:
    """What a judge's reply says: exactly one line `correct: yes` or `correct: no`, or several that agree.

    Raises `JudgeFailed` for anything else.
    """
    said = {word.lower() for word in _VERDICT.findall(text)}
    if len(said) != 1:
        found = "lines that contradict each other" if said else "none"
        raise JudgeFailed(
            f"The judge's reply must have a line `correct: yes` or `correct: no`; it has {found}"
        )
    return said == {"yes"}


class AskJudge(Protocol):
    """Asks a judge model once. `key` and `attempt` make a request its own. Raises `JudgeFailed`."""

    async def __call__(self, prompt: str, key: str, attempt: int) -> str: ...


class ServedJudge:
    """A judge behind a Heavy server: a profile of it, with one arm and no tools."""

    def __init__(self, client: HeavyClient, profile: str, deadline_s: float) -> None:
        self._client = client
        self._policy = PolicyDraft(width=1, arms=(profile,), temperature=0.0, tools=(), deadline_s=deadline_s)

    async def __call__(self, prompt: str, key: str, attempt: int) -> str:
        """Ask. The request id depends on key and attempt, so asking again after a death attaches."""
        try:
            run = await self._client.answer(prompt, self._policy, request_id=f"judge-{key[:48]}-{attempt}")
        except HeavyError as error:
            raise JudgeFailed(f"The judge cannot be asked: {error}") from error
        if run.result is None:
            reason = run.failure.message if run.failure else run.state.value
            raise JudgeFailed(f"The judge gave no reply: {reason}")
        return run.result.answer


class UrlJudge:
    """A judge behind any OpenAI-compatible address. Use it as a context manager."""

    def __init__(self, base_url: str, model: str, api_key: str, *, timeout_s: float) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> UrlJudge:
        self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def __call__(self, prompt: str, key: str, attempt: int) -> str:
        """Ask. Raises `JudgeFailed` with what the server said."""
        assert self._session is not None, "the judge is not open"
        body = {"model": self._model, "messages": [{"role": "user", "content": prompt}]}
        try:
            async with self._session.post(self._url, json=body) as response:
                said = await _bounded(response.content)
                if response.status != 200:
                    text = said[:200].decode(errors="replace")
                    raise JudgeFailed(f"The judge at {self._url} answered {response.status}: {text}")
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = str(error) or "no reply in time"
            raise JudgeFailed(f"The judge at {self._url} cannot be asked: {problem}") from error
        try:
            return str(json.loads(said)["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            raise JudgeFailed(f"The judge at {self._url} sent no chat completion") from error


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    said = bytearray()
    async for chunk in content.iter_chunked(1 << 16):
        said += chunk
        if len(said) > REPLY_BYTES_MAX:
            raise JudgeFailed(f"The judge sent more than {REPLY_BYTES_MAX} bytes")
    return bytes(said)


@dataclass(frozen=True, slots=True)
class JudgeLimits:
    """How many answers are judged at once, how often one is tried, and after how many failures in a row the
    judge is taken to be down, so that the rest are not asked in vain."""

    concurrency: int = 8
    attempts: int = 3
    failures_in_row: int = 20


LIMITS: Final = JudgeLimits()


class ModelJudge:
    """Judges answers, each once: what the verdicts have is not asked again.

    `identity` says which model judges; with the filled-in prompt it makes the key of a verdict. Without
    `ask`, only kept verdicts are given: that is how a report is made without generating.
    """

    def __init__(
        self,
        identity: str,
        prompt: JudgePrompt,
        verdicts: Verdicts,
        ask: AskJudge | None = None,
        limits: JudgeLimits = LIMITS,
    ) -> None:
        self._identity = identity
        self._prompt = prompt
        self._verdicts = verdicts
        self._ask = ask
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.concurrency)
        self._in_row = 0

    async def __call__(self, question: Question, response: str, answer: str) -> bool:
        """The verdict. Raises `JudgeFailed` where there is none, after `attempts` tries."""
        tail = response[-RESPONSE_CHARS_MAX:]
        prompt = self._prompt.render(question.prompt, tail, answer, question.answer)
        key = key_of("judge", self._identity, prompt)
        kept = self._verdicts.get(key)
        if kept is not None:
            return kept
        if self._ask is None:
            raise JudgeFailed("This answer has not been judged")
        async with self._turns:
            return await self._sought(self._ask, question, prompt, key)

    async def _sought(self, ask: AskJudge, question: Question, prompt: str, key: str) -> bool:
        pause_s = _PAUSE_FIRST_S
        for attempt in range(1, self._limits.attempts + 1):
            if self._in_row >= self._limits.failures_in_row:
                raise JudgeFailed(f"The judge failed {self._in_row} times in a row; no more is asked of it")
            try:
                said = await ask(prompt, key, self._verdicts.failures(key))
                right = verdict_in(said)
            except JudgeFailed as error:
                self._in_row += 1
                self._verdicts.put_failure(key, str(error))
                if attempt == self._limits.attempts:
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(_PAUSE_MAX_S, 2 * pause_s)
            else:
                self._in_row = 0
                self._verdicts.put(key, right, by=self._identity, question=question.id, said=said)
                return right
        raise AssertionError("a judge is asked at least once")
