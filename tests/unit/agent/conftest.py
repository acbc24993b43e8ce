"""A trajectory on a bench: real toolset and meter, a scripted replica, a journal that remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from heavy.agent.journal import Journal
from heavy.agent.limits import AgentLimits
from heavy.agent.progress import Progress
from heavy.agent.step import StepResult, StepScope, step
from heavy.agent.trajectory import Trajectory
from heavy.core import clock
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.messages import Message, Role, ToolCall
from heavy.core.policy import ContextPolicy, Sampling
from heavy.core.runs import TrajectoryRole, TrajectorySpec
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.profiles.schema import LimitsSection, PricesSection, Profile
from heavy.replicas.api import GenerationRequest, Replica
from heavy.runner.meter import ProfileMeter
from heavy.testing.journal import RecordingJournal
from heavy.testing.replicas import Scripted, ScriptedReplica
from heavy.tools.toolset import Toolset

RUN = RunId("run-0123456789abcdef01234567")


@dataclass
class Probe:
    """A tool that does what a test says and remembers who called."""

    name: str = "probe"
    effects: Effects = Effects.PURE
    answer: Callable[[Mapping[str, Any]], Awaitable[ToolOutput]] | None = None
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    contexts: list[ToolContext] = field(default_factory=list)
    under_way: int = 0
    peak: int = 0

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(self.name, "A probe.", {"type": "object"}, "1", self.effects, cacheable=False)

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        self.calls.append(arguments)
        self.contexts.append(context)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            await asyncio.sleep(0)
            if self.answer is not None:
                return await self.answer(arguments)
            return ToolOutput(f"result {len(self.calls)} for {json.dumps(dict(arguments))}")
        finally:
            self.under_way -= 1


PROFILE = Profile(
    name="bench",
    title="Bench",
    engine="simulated",
    model="bench",
    context_tokens=100_000,
    tool_call_dialect="kimi_k2",
    prices=PricesSection(usd_per_million_prompt_tokens=1.0, usd_per_million_output_tokens=10.0),
    limits=LimitsSection(output_tokens_per_step_max=4_000, answer_tokens_reserved=500),
)


@dataclass
class Bench:
    """What a trajectory is made of. Change what a test is about, then `trajectory()` or `step()`."""

    probe: Probe = field(default_factory=Probe)
    tools: tuple[Any, ...] = ()
    profile: Profile = PROFILE
    journal: RecordingJournal = field(default_factory=RecordingJournal)
    limits: AgentLimits = field(default_factory=lambda: AgentLimits(backoff_s=0.0))
    replica: Replica | None = None
    spec: TrajectorySpec = field(
        default_factory=lambda: TrajectorySpec(
            run=RUN,
            trajectory=TrajectoryId("arm-0"),
            role=TrajectoryRole.ARM,
            tenant="tenant",
            profile="bench",
            messages=(Message(Role.USER, "What is 6 times 7?"),),
            tools=("probe",),
            sampling=Sampling(seed=1),
            context_policy=ContextPolicy.HIDE_TOOL_OUTPUTS,
            steps_max=20,
            tool_calls_max=None,
            reasoning_tokens_per_step_max=4_000,
            deadline_ms=clock.now_ms() + 60_000,
            epoch=1,
        )
    )

    def plays(self, *script: Scripted) -> ScriptedReplica:
        """The replica plays this script."""
        scripted = ScriptedReplica(script)
        self.replica = scripted
        return scripted

    def chooses(self, choose: Callable[[GenerationRequest], Scripted]) -> ScriptedReplica:
        """The replica answers each request as `choose` says."""
        scripted = ScriptedReplica(choose)
        self.replica = scripted
        return scripted

    def sets(self, **changes: Any) -> None:
        """Change the trajectory's spec."""
        self.spec = replace(self.spec, **changes)

    def limit(self, **changes: Any) -> None:
        """Change the loop's limits."""
        self.limits = replace(self.limits, **changes)

    def trajectory(self) -> Trajectory:
        """The trajectory, not yet running."""
        assert self.replica is not None
        return Trajectory(
            self.spec,
            self.profile,
            self.replica,
            Toolset([self.probe, *self.tools]),
            self.journal,
            ProfileMeter(self.profile),
            self.limits,
        )

    async def step(self, progress: Progress | None = None, **changes: Any) -> StepResult:
        """One step of its own."""
        assert self.replica is not None
        toolset = Toolset([self.probe, *self.tools])
        request = GenerationRequest(
            request_id="request",
            profile="bench",
            messages=self.spec.messages,
            tools=toolset.specs,
            sampling=self.spec.sampling,
            tokens_max=1_000,
            deadline_ms=self.spec.deadline_ms,
        )
        scope = StepScope(self.spec, self.profile, ProfileMeter(self.profile), self.limits, number=0)
        journal: Journal = self.journal
        return await step(
            self.replica, request, toolset, journal, replace(scope, **changes), progress or Progress()
        )


@pytest.fixture
def bench() -> Bench:
    """A bench with nothing scripted."""
    return Bench()


def asks(*arguments: str, name: str = "probe", content: str = "") -> Scripted:
    """A generation that asks for calls with these arguments."""
    calls = tuple(ToolCall(f"call-{i}", name, text) for i, text in enumerate(arguments))
    return Scripted(content=content, reasoning="Let me see.", tool_calls=calls)


@pytest.fixture(name="asks")
def asks_fixture() -> Callable[..., Scripted]:
    """Builds generations that ask for tool calls."""
    return asks


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go on until something is so, bounded."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came about")


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits for a condition."""
    return until
