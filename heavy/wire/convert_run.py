"""Runs and what they come to, to protobuf and back. What a server sends is trusted to be complete."""

from __future__ import annotations

from heavy.core.ids import RunId, TrajectoryId
from heavy.core.ledger import Ledger, Spend
from heavy.core.runs import Agreement, AnswerGroup, Citation, Outcome, Run, RunFailure, RunResult, RunSpec
from heavy.v1 import run_pb2 as pb
from heavy.wire import enums
from heavy.wire.convert_calling import caller_tool_to_proto, caller_tools_from_proto
from heavy.wire.convert_files import file_refs_from_proto, file_refs_to_proto
from heavy.wire.convert_policy import message_from_proto, message_to_proto, policy_from_proto, policy_to_proto
from heavy.wire.times import timestamp_from_proto, timestamp_to_proto


def spend_to_proto(spend: Spend) -> pb.Spend:
    """What something cost."""
    return pb.Spend(
        tokens_prompt=spend.tokens_prompt,
        tokens_cached=spend.tokens_cached,
        tokens_reasoning=spend.tokens_reasoning,
        tokens_output=spend.tokens_output,
        tool_calls=spend.tool_calls,
        gpu_seconds=spend.gpu_seconds,
        cost_usd=spend.cost_usd,
        wall_s=spend.wall_s,
    )


def spend_from_proto(spend: pb.Spend) -> Spend:
    """What something cost."""
    return Spend(
        tokens_prompt=spend.tokens_prompt,
        tokens_cached=spend.tokens_cached,
        tokens_reasoning=spend.tokens_reasoning,
        tokens_output=spend.tokens_output,
        tool_calls=spend.tool_calls,
        gpu_seconds=spend.gpu_seconds,
        cost_usd=spend.cost_usd,
        wall_s=spend.wall_s,
    )


def ledger_to_proto(ledger: Ledger) -> pb.Ledger:
    """The spend of a run, in all and per trajectory."""
    trajectories = {name: spend_to_proto(spend) for name, spend in ledger.trajectories.items()}
    return pb.Ledger(total=spend_to_proto(ledger.total), trajectories=trajectories)


def ledger_from_proto(ledger: pb.Ledger) -> Ledger:
    """The spend of a run, in all and per trajectory."""
    trajectories = {name: spend_from_proto(spend) for name, spend in ledger.trajectories.items()}
    return Ledger(total=spend_from_proto(ledger.total), trajectories=trajectories)


def outcome_to_proto(outcome: Outcome) -> pb.Outcome:
    """How one trajectory ended."""
    return pb.Outcome(
        trajectory_id=outcome.trajectory,
        kind=enums.OUTCOME_KIND.to_proto(outcome.kind),
        reason=outcome.reason,
        detail=outcome.detail,
        answer=outcome.answer,
        steps=outcome.steps,
        spend=spend_to_proto(outcome.spend),
        profile=outcome.profile,
    )


def outcome_from_proto(outcome: pb.Outcome) -> Outcome:
    """How one trajectory ended."""
    return Outcome(
        trajectory=TrajectoryId(outcome.trajectory_id),
        kind=enums.OUTCOME_KIND.from_proto(outcome.kind),
        reason=outcome.reason,
        detail=outcome.detail,
        answer=outcome.answer,
        steps=outcome.steps,
        spend=spend_from_proto(outcome.spend),
        profile=outcome.profile,
    )


def result_to_proto(result: RunResult) -> pb.RunResult:
    """One answer and why."""
    return pb.RunResult(
        answer=result.answer,
        short_answer=result.short_answer,
        method=enums.AGGREGATION_METHOD.to_proto(result.method),
        agreement=pb.Agreement(
            groups=(
                pb.AnswerGroup(answer=group.answer, trajectory_ids=group.arms)
                for group in result.agreement.groups
            ),
            share=result.agreement.share,
        ),
        citations=(
            pb.Citation(trajectory_id=citation.trajectory, step=citation.step, note=citation.note)
            for citation in result.citations
        ),
        dissent=result.dissent,
        abstained=result.abstained,
    )


def result_from_proto(result: pb.RunResult) -> RunResult:
    """One answer and why."""
    return RunResult(
        answer=result.answer,
        short_answer=result.short_answer,
        method=enums.AGGREGATION_METHOD.from_proto(result.method),
        agreement=Agreement(
            groups=tuple(
                AnswerGroup(group.answer, tuple(map(TrajectoryId, group.trajectory_ids)))
                for group in result.agreement.groups
            ),
            share=result.agreement.share,
        ),
        citations=tuple(
            Citation(
                trajectory=TrajectoryId(citation.trajectory_id),
                step=citation.step if citation.HasField("step") else None,
                note=citation.note,
            )
            for citation in result.citations
        ),
        dissent=result.dissent,
        abstained=result.abstained,
    )


def failure_to_proto(failure: RunFailure) -> pb.RunFailure:
    """Why a run has no answer."""
    outcomes = map(outcome_to_proto, failure.outcomes)
    return pb.RunFailure(code=failure.code, message=failure.message, outcomes=outcomes)


def failure_from_proto(failure: pb.RunFailure) -> RunFailure:
    """Why a run has no answer."""
    return RunFailure(failure.code, failure.message, tuple(map(outcome_from_proto, failure.outcomes)))


def run_to_proto(run: Run) -> pb.Run:
    """The run record, less what is the server's own business: lease epoch and fingerprint."""
    spec = run.spec
    return pb.Run(
        run_id=spec.run,
        request_id=spec.request_id,
        state=enums.RUN_STATE.to_proto(run.state),
        policy=policy_to_proto(spec.policy),
        messages=map(message_to_proto, spec.messages),
        created_at=timestamp_to_proto(spec.created_ms),
        ended_at=None if run.ended_ms is None else timestamp_to_proto(run.ended_ms),
        deadline_at=timestamp_to_proto(spec.deadline_ms),
        records=run.records,
        result=None if run.result is None else result_to_proto(run.result),
        failure=None if run.failure is None else failure_to_proto(run.failure),
        ledger=None if run.ledger is None else ledger_to_proto(run.ledger),
        traceparent=spec.traceparent,
        simulated=spec.simulated,
        tenant=spec.tenant,
        attached=spec.attached,
        cancel_reason=run.cancel_reason,
        caller_tools=map(caller_tool_to_proto, spec.caller_tools),
        files=file_refs_to_proto(spec.files),
    )


def run_from_proto(run: pb.Run) -> Run:
    """The run record as a caller sees it; its epoch is 0 and its fingerprint empty."""
    return Run(
        spec=RunSpec(
            run=RunId(run.run_id),
            tenant=run.tenant,
            request_id=run.request_id,
            messages=tuple(map(message_from_proto, run.messages)),
            policy=policy_from_proto(run.policy),
            attached=run.attached,
            created_ms=timestamp_from_proto(run.created_at),
            deadline_ms=timestamp_from_proto(run.deadline_at),
            traceparent=run.traceparent,
            caller_tools=caller_tools_from_proto(run.caller_tools, []),
            simulated=run.simulated,
            files=file_refs_from_proto(run.files),
        ),
        state=enums.RUN_STATE.from_proto(run.state),
        epoch=0,
        records=run.records,
        result=result_from_proto(run.result) if run.HasField("result") else None,
        failure=failure_from_proto(run.failure) if run.HasField("failure") else None,
        ledger=ledger_from_proto(run.ledger) if run.HasField("ledger") else None,
        ended_ms=timestamp_from_proto(run.ended_at) if run.HasField("ended_at") else None,
        cancel_reason=run.cancel_reason,
    )
