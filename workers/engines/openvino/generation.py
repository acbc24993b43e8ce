"""One generation on the HTTP side: token ids come in from the core, deltas go out to the reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from workers.engines.api.admission import Ticket
from workers.engines.api.errors import ApiError, BadRequest, EngineFailed
from workers.engines.api.generation import Event, Failed, Finished, FinishReason, Inbox, Usage
from workers.engines.api.request import ChatRequest
from workers.engines.formats.scan import StopMatcher
from workers.engines.formats.splitter import Splitter
from workers.engines.openvino.detokenizer import TextStream
from workers.engines.openvino.prompt import Prompt


class OpenVinoGeneration:
    """Text out of ids: detokenise, look for stop strings, split. Loop thread only.

    It ends for its reader at once (abort, stop string) but leaves the engine when the core has let go of it.
    """

    def __init__(
        self,
        number: int,
        request: ChatRequest,
        prompt: Prompt,
        config: dict[str, Any],
        text: TextStream,
        splitter: Splitter,
        cancel: Callable[[OpenVinoGeneration], None],
    ) -> None:
        self.number = number
        self.prompt = prompt
        self.config = config
        self.ids: list[int] = []
        self.cached = 0
        self.ticket: Ticket | None = None
        self._offered = bool(request.tools)
        self._text = text
        self._stops = StopMatcher(request.stop)
        self._splitter = splitter
        self._cancel = cancel
        self._reasoning = 0
        self._inbox = Inbox()

    @property
    def ended(self) -> bool:
        """Whether its reader has been told the end."""
        return self._inbox.closed

    @property
    def kv_tokens(self) -> int:
        """KV tokens it occupies."""
        return len(self.prompt.ids) + len(self.ids)

    @property
    def queued_s(self) -> float:
        """See `Generation.queued_s`."""
        return self.ticket.queued_s if self.ticket else 0.0

    async def events(self) -> list[Event]:
        """See `Generation.events`."""
        return await self._inbox.take()

    def abort(self) -> None:
        """See `Generation.abort`."""
        if not self.ended:
            self._inbox.push(Finished("abort", self._usage()))
            self._cancel(self)

    def take(self, ids: Sequence[int]) -> None:
        """New tokens from the core."""
        for token in ids:
            if self.ended:
                return
            self.ids.append(token)
            thought = self._splitter.reasoning
            self._show(self._text.feed((token,)))
            self._reasoning += thought or self._splitter.reasoning
            if self._stops.matched:
                self._finish("stop")
                self._cancel(self)

    def end(self, why: str, message: str) -> None:
        """The core is done with it: `stop`, `length`, `refused`, `ignored` or `lost`."""
        if self.ended:
            return
        if why in ("stop", "length"):
            self._show(self._text.finish())
            self._show_rest()
            self._finish("length" if why == "length" else "stop")
        else:
            self._inbox.push(Failed(self._failure(why, message)))

    def _show(self, text: str) -> None:
        """Deltas of a text, past the stop matcher."""
        if text:
            self._push(self._stops.feed(text))

    def _show_rest(self) -> None:
        self._push(self._stops.finish())

    def _push(self, text: str) -> None:
        for delta in self._splitter.feed(text) if text else ():
            self._inbox.push(delta)

    def _finish(self, reason: FinishReason) -> None:
        for delta in self._splitter.finish():
            self._inbox.push(delta)
        if reason == "stop" and self._splitter.calls and self._offered:
            reason = "tool_calls"
        self._inbox.push(Finished(reason, self._usage()))

    def _usage(self) -> Usage:
        return Usage(len(self.prompt.ids), self.cached, len(self.ids), self._reasoning)

    def _failure(self, why: str, message: str) -> ApiError:
        if why == "refused":
            return BadRequest(f"The pipeline refused this generation: {message}.")
        if why == "ignored":
            return EngineFailed(
                "The KV cache has no room for this generation even alone. Shorten it, or start the server "
                "with a larger --max-total-tokens."
            )
        return EngineFailed(f"The pipeline broke and was restarted ({message}). Send the request again.")
