"""The simulated engine: admission, a prefix cache and a timing wheel; no task per generation."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence

from workers.engines.api.admission import Admission, Ticket
from workers.engines.api.errors import ContextOverflow, EngineFailed
from workers.engines.api.generation import (
    HEALTH_RID,
    ConnectionLoss,
    Event,
    Finished,
    FinishReason,
    Inbox,
    Load,
    ModelInfo,
    Pulse,
    TextDelta,
    Usage,
)
from workers.engines.api.request import ChatRequest, TokenizeRequest
from workers.engines.simulated import behaviour
from workers.engines.simulated.mistakes import OF_CALLS, Mistake, draw
from workers.engines.simulated.prefills import Prefills
from workers.engines.simulated.profile import SimulatedProfile
from workers.engines.simulated.prompt import PrefixCache, SimulatedPrompt, prompt_ids, render, token_ids
from workers.engines.simulated.ranks import Ranks
from workers.engines.simulated.script import ScriptedStep
from workers.engines.simulated.wheel import Wheel

ATTEMPTS_REMEMBERED = 4_096
PREFILL_STEP_TOKENS = 8_192
"""A longer prompt is prefilled in several steps, as by SGLang."""
THROUGHPUT_WINDOW_S = 5.0
HALF_AN_EVENT = b'data: {"id":"simulated","object":"chat.completion.chunk","choi'
BREAKING = {Mistake.HANG, Mistake.DISCONNECT, Mistake.TRUNCATED_SSE}


class SimulatedEngine:
    """Serves the API without a model. Equal seeds and requests give equal tokens."""

    def __init__(
        self,
        profile: SimulatedProfile,
        *,
        seed: int = 0,
        name: str = "simulated",
        script: Sequence[ScriptedStep] = (),
        mistakes: Mapping[Mistake, float] | None = None,
    ) -> None:
        self.profile = profile
        self.seed = seed
        self.script = script
        self.mistakes = dict(mistakes or {})
        limits = profile.limits
        self.admission = Admission(limits.running_max, limits.waiting_max, limits.kv_tokens)
        self.cache = PrefixCache(limits.kv_tokens)
        self.wheel = Wheel()
        self.pulse = Pulse()
        self.prefills = Prefills()
        self.ranks: Ranks | None = None
        """The other ranks, where this is the first of a gang."""
        self.load_s = 0.0
        self._running: set[SimulatedGeneration] = set()
        self._attempts: OrderedDict[object, int] = OrderedDict()
        self._emitted: deque[tuple[float, int]] = deque()
        self._info = ModelInfo(
            "simulated",
            name,
            "simulated",
            limits.context_tokens,
            {
                "profile": profile.name,
                "seed": seed,
                "time_scale": profile.timing.time_scale,
                "simulated": True,
            },
        )

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        return self._info

    async def start(self) -> None:
        """Wait for the other ranks, then for as long as loading takes, saying so as SGLang does."""
        if self.ranks is not None:
            await self.ranks.gather()
        for percent in range(0, 101, 10) if self.load_s else ():
            said = f"Loading safetensors checkpoint shards: {percent:3d}% Completed | simulated\n"
            sys.stdout.write(said)
            sys.stdout.flush()
            await asyncio.sleep(self.load_s / 11)

    async def stop(self) -> None:
        """Abort what runs."""
        for generation in tuple(self._running):
            generation.abort()
        self.wheel.stop()
        if self.ranks is not None:
            await self.ranks.close()

    async def submit(self, request: ChatRequest) -> SimulatedGeneration:
        """Queue a generation. Raises ContextOverflow, QueueFull, EngineFailed."""
        prompt = render(request)
        tokens_max = self._completion_limit(prompt, request)
        mistake = self._mistake(prompt, request)
        if mistake is Mistake.ERROR_500:
            raise EngineFailed(f"{behaviour.MARK} internal error, drawn from the seed.")
        return SimulatedGeneration(self, request, prompt, tokens_max, mistake)

    async def tokenize(self, request: TokenizeRequest) -> list[int]:
        """Ids whose number equals what `submit` would count."""
        if request.chat is not None:
            return prompt_ids(render(request.chat))
        return token_ids(request.prompt or "")

    def load(self) -> Load:
        """The load at this moment."""
        limits, cache = self.profile.limits, self.cache
        return Load(
            running=self.admission.running,
            waiting=self.admission.waiting,
            running_max=limits.running_max,
            waiting_max=limits.waiting_max,
            tokens=sum(generation.kv_tokens for generation in self._running),
            tokens_max=limits.kv_tokens,
            waiting_tokens=self.admission.waiting_tokens,
            tokens_per_s=self._throughput(),
            cache_hit_rate=cache.hit / cache.asked if cache.asked else 0.0,
        )

    def failure(self) -> str | None:
        """It breaks as a whole only when it has lost a rank."""
        lost = self.ranks is not None and self.ranks.lost
        return f"{behaviour.MARK} a rank of the gang is gone." if lost else None

    # -- for generations

    def began(self, generation: SimulatedGeneration) -> None:
        """A generation holds KV from now on."""
        self._running.add(generation)

    def ended(self, generation: SimulatedGeneration) -> None:
        """A generation holds nothing any more."""
        self._running.discard(generation)

    def emitted(self, now: float, tokens: int) -> None:
        """Tokens left, for the throughput."""
        self.pulse.beat()
        self._emitted.append((now, tokens))
        while self._emitted and self._emitted[0][0] < now - THROUGHPUT_WINDOW_S:
            self._emitted.popleft()

    def _throughput(self) -> float:
        since = asyncio.get_running_loop().time() - THROUGHPUT_WINDOW_S
        return sum(tokens for when, tokens in self._emitted if when >= since) / THROUGHPUT_WINDOW_S

    def _completion_limit(self, prompt: SimulatedPrompt, request: ChatRequest) -> int:
        context = self.profile.limits.context_tokens
        left = context - prompt.tokens
        if left < 1 or (request.tokens_max or 1) > left:
            raise ContextOverflow(
                f"The prompt has {prompt.tokens} tokens and max_tokens is {request.tokens_max}; "
                f"the context holds {context}. Shorten the messages or lower max_tokens.",
                param="messages" if left < 1 else "max_tokens",
            )
        return request.tokens_max or left

    def _mistake(self, prompt: SimulatedPrompt, request: ChatRequest) -> Mistake | None:
        """Drawn from the seed, the conversation and the attempt: a retry draws anew."""
        if not self.mistakes or request.rid.startswith(HEALTH_RID):
            return None
        key = (prompt.segments[-1].digest, request.sampling.seed)
        attempt = self._attempts.pop(key, 0)
        self._attempts[key] = attempt + 1
        if len(self._attempts) > ATTEMPTS_REMEMBERED:
            self._attempts.popitem(last=False)
        drawn = draw(self.mistakes, behaviour.rng_for("mistake", self.seed, key, attempt))
        # Under a grammar no call comes out wrong, whatever the model would have liked to write.
        return None if drawn in OF_CALLS and (request.must_call or request.strict_calls) else drawn


class SimulatedGeneration:
    """One generation on the wheel: waits for its place, then for its prefill, then plays its pieces."""

    def __init__(
        self,
        engine: SimulatedEngine,
        request: ChatRequest,
        prompt: SimulatedPrompt,
        tokens_max: int,
        mistake: Mistake | None,
    ) -> None:
        self._engine = engine
        self._request = request
        self._prompt = prompt
        self._tokens_max = tokens_max
        self._mistake = mistake
        self._inbox = Inbox()
        self._turn = behaviour.decide(request, engine.seed, engine.profile.habits, engine.script, mistake)
        self._pieces = self._planned()
        self._rng: random.Random = behaviour.rng_for("timing", engine.seed, request.rid)
        self._said = ""
        self._cached = self._completion = self._reasoning = 0
        self._due = 0.0
        self._hung = False
        self._ticket: Ticket = engine.admission.enter(prompt.tokens + min(tokens_max, 1_024), self._begin)

    @property
    def kv_tokens(self) -> int:
        """KV tokens that it occupies."""
        return self._prompt.tokens + self._completion

    @property
    def queued_s(self) -> float:
        """See `Generation.queued_s`."""
        return self._ticket.queued_s

    async def events(self) -> list[Event]:
        """See `Generation.events`."""
        return await self._inbox.take()

    def abort(self) -> None:
        """See `Generation.abort`."""
        self._finish("abort")

    def _planned(self) -> Iterator[behaviour.Piece]:
        first_index = behaviour.calls_so_far(self._request.messages)
        pieces = behaviour.pieces(self._turn, self._mistake, first_index)
        if self._request.continue_final:
            return behaviour.after(pieces, str(self._request.messages[-1]["content"]))
        return pieces

    def _begin(self) -> None:
        """There is room: prefill, in turn where one does so alone."""
        self._engine.began(self)
        now = asyncio.get_running_loop().time()
        if self._engine.profile.timing.prefill_alone:
            self._engine.prefills.enter(self, self._prefill, now)
        else:
            self._prefill(now)

    def _prefill(self, now: float) -> None:
        """Look the prefix up, prefill the rest."""
        timing = self._engine.profile.timing
        self._cached = self._engine.cache.match(self._prompt)
        pace = self._wobble() / timing.time_scale
        prefilled = now + timing.prefill_s(self._prompt.tokens - self._cached) * pace
        step_s = timing.prefill_s(PREFILL_STEP_TOKENS) * pace
        for step in range(1, (self._prompt.tokens - self._cached) // PREFILL_STEP_TOKENS + 1):
            self._engine.wheel.at(now + step * step_s, self._engine.pulse.beat)
        self._due = prefilled + timing.ttft_s * pace
        if timing.prefill_alone:
            self._engine.prefills.takes(prefilled)
            self._engine.wheel.at(prefilled, self._prefilled)
        else:
            self._engine.wheel.at(self._due, self._play)

    def _prefilled(self) -> None:
        """It has had its turn; the next one finds in the cache what it has left there."""
        if self._silent():
            return
        now = asyncio.get_running_loop().time()
        self._engine.cache.insert(self._prompt.segments)
        self._engine.prefills.leave(self, now)
        self._due -= self._engine.prefills.stood_still_s(now)
        self._wait(now)

    def _play(self) -> None:
        """Say every piece that is due, then wait for the next one."""
        if self._silent():
            return
        now = asyncio.get_running_loop().time()
        timing, still_s = self._engine.profile.timing, self._engine.prefills.stood_still_s(now)
        if self._completion == 0:
            self._engine.cache.insert(self._prompt.segments)
        said = 0
        while self._due <= now - still_s and not self._silent():
            self._say(next(self._pieces, None))
            said += 1
            token_s = timing.token_s(self._engine.admission.running, self._engine.admission.running_max)
            self._due += token_s * self._wobble() / timing.time_scale
        self._engine.emitted(now, said)
        if not self._silent():
            self._wait(now)

    def _wait(self, now: float) -> None:
        """Until the next piece is due, by a clock that stands still while others prefill alone."""
        prefills = self._engine.prefills
        left_s = self._due - (now - prefills.stood_still_s(now))
        self._engine.wheel.at(prefills.goes_on(now) + left_s, self._play)

    def _say(self, piece: behaviour.Piece | None) -> None:
        if piece is None:
            self._finish("tool_calls" if self._turn.calls and not self._salvageable() else "stop")
            return
        self._completion += 1
        if self._mistake in BREAKING and self._completion > 3:
            self._break()
            return
        if isinstance(piece, TextDelta):
            self._reasoning += bool(piece.reasoning)
            piece = self._until_stop(piece)
        if piece is not None:
            self._inbox.push(piece)
        if self._completion >= self._tokens_max:
            self._finish("length")

    def _silent(self) -> bool:
        return self._inbox.closed or self._hung

    def _salvageable(self) -> bool:
        return self._mistake is Mistake.MARKERS_IN_REASONING

    def _until_stop(self, piece: TextDelta) -> TextDelta | None:
        """The piece up to a stop string, if one ends in it. What was sent of an earlier piece stays."""
        if not self._request.stop or not piece.content:
            return piece
        start = len(self._said)
        self._said += piece.content
        found = [at for stop in self._request.stop if (at := self._said.find(stop)) >= 0]
        if not found:
            return piece
        self._inbox.push(TextDelta(content=piece.content[: max(min(found) - start, 0)]))
        self._finish("stop")
        return None

    def _break(self) -> None:
        """The server's own mistakes; a hang stays silent until it is aborted."""
        if self._mistake is Mistake.HANG:
            self._hung = True
            return
        self._inbox.push(ConnectionLoss(HALF_AN_EVENT if self._mistake is Mistake.TRUNCATED_SSE else b""))
        self._leave()

    def _finish(self, reason: FinishReason) -> None:
        if self._inbox.closed:
            return
        usage = Usage(self._prompt.tokens, self._cached, self._completion, self._reasoning)
        self._inbox.push(Finished(reason, usage))
        self._leave()

    def _leave(self) -> None:
        self._engine.ended(self)
        self._engine.prefills.leave(self, asyncio.get_running_loop().time())
        self._engine.admission.leave(self._ticket)

    def _wobble(self) -> float:
        jitter = self._engine.profile.timing.jitter
        return 1.0 + self._rng.uniform(-jitter, jitter)
