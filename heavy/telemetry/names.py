"""Every span, attribute and metric name Heavy uses, in one place.

Span operations and `gen_ai.*` attributes follow the OpenTelemetry GenAI semantic conventions, v0.1.0 of their
own repository, still marked "Development": when they move, this file moves and nothing else does.
"""

from __future__ import annotations

from typing import Final

# Operations (gen_ai.operation.name); a span is named "<operation> <what>".
INVOKE_WORKFLOW: Final = "invoke_workflow"
INVOKE_AGENT: Final = "invoke_agent"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"

# Stages of a generation in an engine of ours: spans below the engine's own.
STAGE_QUEUE: Final = "queue"
STAGE_PREFILL: Final = "prefill"
STAGE_DECODE: Final = "decode"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_TOKENS_MAX: Final = "gen_ai.request.max_tokens"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK_S: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
ERROR_TYPE: Final = "error.type"

RUN_STATE: Final = "heavy.run.state"
TENANT: Final = "heavy.tenant"
TRAJECTORY: Final = "heavy.trajectory"
STEP: Final = "heavy.step"
OUTCOME: Final = "heavy.outcome"
OUTCOME_REASON: Final = "heavy.outcome.reason"
PROFILE: Final = "heavy.profile"
REPLICA: Final = "heavy.replica"
ENGINE_REQUEST_ID: Final = "heavy.engine.request_id"
CACHE_STATE: Final = "heavy.tool.cache"
AGGREGATION_METHOD: Final = "heavy.aggregation.method"
AGREEMENT_SHARE: Final = "heavy.agreement.share"
COST_USD: Final = "heavy.cost_usd"
PLACED: Final = "heavy.placed"
QUEUE_S: Final = "heavy.queue_s"

# Prometheus metrics. Counters get `_total` appended, histograms `_bucket`, `_sum` and `_count`.
# Runs: each coordinator counts those it ended, so sums over coordinators are right.
METRIC_RUNS: Final = "heavy_runs"
METRIC_RUNS_ACTIVE: Final = "heavy_runs_active"
METRIC_RUN_SECONDS: Final = "heavy_run_duration_seconds"
METRIC_RUN_QUEUE_SECONDS: Final = "heavy_run_queue_seconds"
METRIC_RUN_PATH_SECONDS: Final = "heavy_run_path_seconds"
METRIC_RUN_COST_USD: Final = "heavy_run_cost_usd"
METRIC_PREMIUM: Final = "heavy_run_premium_ratio"
METRIC_AGREEMENT: Final = "heavy_run_agreement_ratio"
METRIC_FANOUTS: Final = "heavy_fanouts"
METRIC_REFUSED: Final = "heavy_requests_refused"
METRIC_TRAJECTORIES: Final = "heavy_trajectories"
METRIC_STEP_SECONDS: Final = "heavy_step_duration_seconds"
METRIC_GENERATION_SECONDS: Final = "heavy_generation_duration_seconds"
METRIC_FIRST_TOKEN_SECONDS: Final = "heavy_generation_first_token_seconds"
METRIC_TOKEN_SECONDS: Final = "heavy_generation_token_seconds"
METRIC_QUEUE_SECONDS: Final = "heavy_generation_queue_seconds"
METRIC_PLACEMENTS: Final = "heavy_placements"
METRIC_TOKENS: Final = "heavy_tokens"
METRIC_COST_USD: Final = "heavy_cost_usd"
METRIC_GPU_SECONDS: Final = "heavy_gpu_seconds"
METRIC_TOOL_CALLS: Final = "heavy_tool_calls"
METRIC_TOOL_SECONDS: Final = "heavy_tool_duration_seconds"
METRIC_CALL_REPAIRS: Final = "heavy_call_repairs"

# The fleet and the store, as each coordinator sees them: the same things seen several times, so take the
# maximum over coordinators (`max by (replica)`), never the sum.
METRIC_PROFILE: Final = "heavy_profile_info"
METRIC_REPLICAS: Final = "heavy_replicas"
METRIC_REPLICA_STATE: Final = "heavy_replica_state"
METRIC_REPLICA_RUNNING: Final = "heavy_replica_running"
METRIC_REPLICA_WAITING: Final = "heavy_replica_waiting"
METRIC_REPLICA_SLOTS: Final = "heavy_replica_slots"
METRIC_REPLICA_KV_USED: Final = "heavy_replica_kv_tokens_used"
METRIC_REPLICA_KV_RESERVED: Final = "heavy_replica_kv_tokens_reserved"
METRIC_REPLICA_KV_MAX: Final = "heavy_replica_kv_tokens_max"
METRIC_REPLICA_GPUS: Final = "heavy_replica_gpus"
METRIC_REPLICA_USD: Final = "heavy_replica_usd_per_hour"
METRIC_RUNNERS: Final = "heavy_runners"
METRIC_RUNNER_BUSY: Final = "heavy_runner_trajectories"
METRIC_RUNNER_SLOTS: Final = "heavy_runner_slots"
METRIC_QUEUE_NOW: Final = "heavy_queue_wait_seconds"
METRIC_STORE_UP: Final = "heavy_store_up"
METRIC_STORE_SECONDS: Final = "heavy_store_answer_seconds"
