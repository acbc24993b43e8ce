"""What a generation had said when its replica was lost, and how another one's continuation joins it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest, TextDelta, TokenUsage
from heavy.replicas.openai_json import estimated_tokens


@dataclass(slots=True)
class Said:
    """The text of one generation so far, over all replicas it has been on."""

    reasoning: str = ""
    content: str = ""
    _before: TextDelta = field(default_factory=TextDelta)
    """What had been said when the present attempt began."""

    @property
    def anything(self) -> bool:
        """Whether there is text that must not be said again."""
        return bool(self.reasoning or self.content)

    def begin(self, request: GenerationRequest) -> GenerationRequest:
        """The request of the next attempt: it goes on from what was said, which counts towards its cap."""
        self._before = TextDelta(self.reasoning, self.content)
        left = request.tokens_max - estimated_tokens(self.reasoning) - estimated_tokens(self.content)
        return replace(
            request,
            said_reasoning=self.reasoning,
            said_content=self.content,
            tokens_max=max(1, left),
        )

    def hear(self, event: GenerationEvent) -> GenerationEvent:
        """Take an event in. The last one is given the whole text, and what all attempts cost."""
        if isinstance(event, Finished):
            return self._whole(event)
        self.reasoning += event.reasoning
        self.content += event.content
        return event

    def _whole(self, finished: Finished) -> Finished:
        before = self._before
        if not before.reasoning and not before.content:
            return finished
        return replace(
            finished,
            reasoning=before.reasoning + finished.reasoning,
            content=before.content + finished.content,
            usage=_paid(finished.usage, before),
        )


def _paid(usage: TokenUsage, before: TextDelta) -> TokenUsage:
    """The tokens of both attempts: the lost one's prompt was paid for too, and what it said.

    The lost server counted nothing, so its output is estimated from its text; its prompt is the second
    one's without that text.
    """
    reasoning, content = estimated_tokens(before.reasoning), estimated_tokens(before.content)
    said = reasoning + content
    return TokenUsage(
        prompt=usage.prompt + max(0, usage.prompt - said),
        cached=usage.cached,
        reasoning=usage.reasoning + reasoning,
        output=usage.output + said,
    )
