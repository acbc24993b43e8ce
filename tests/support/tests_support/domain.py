"""Domain objects for tests: complete, ordinary, and changed by keyword."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heavy.core import clock
from heavy.core.ids import new_run_id
from heavy.core.messages import Message, Role
from heavy.core.policy import AggregationMode, Budget, ContextPolicy, Members, Policy
from heavy.core.runs import RunSpec

PROFILE = "simulated"


def policy(width: int = 8, **changes: Any) -> Policy:
    """An ordinary policy of `width` arms on the simulated profile."""
    ordinary = Policy(
        width=width,
        members=Members((PROFILE,) * width, PROFILE),
        quorum=max(1, width * 3 // 4),
        straggler_grace_s=30.0,
        deadline_s=60.0,
        budget=Budget(),
        aggregation=AggregationMode.AUTO,
        vote_threshold=0.75,
        early_stop=True,
        tools=(),
        context_policy=ContextPolicy.HIDE_TOOL_OUTPUTS,
        sampling=None,
        seed=7,
    )
    return replace(ordinary, **changes)


def run_spec(text: str = "What is 6 times 7?", **changes: Any) -> RunSpec:
    """A run just accepted."""
    now_ms = clock.now_ms()
    contract = changes.pop("policy", None) or policy()
    ordinary = RunSpec(
        run=new_run_id(),
        tenant="default",
        request_id="",
        messages=(Message(Role.USER, text),),
        policy=contract,
        attached=False,
        created_ms=now_ms,
        deadline_ms=now_ms + int(contract.deadline_s * 1000),
    )
    return replace(ordinary, **changes)
