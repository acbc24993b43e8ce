"""A profile: how a model is served and spoken to. Written as TOML, validated whole, frozen afterwards."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from heavy.core.policy import KEEP_LAST, KEEP_LAST_MAX, ContextPolicy

Engine = Literal["sglang", "openvino", "remote", "simulated"]
Positive = Annotated[int, Field(strict=True, gt=0)]
Count = Annotated[int, Field(strict=True, ge=0)]
Price = Annotated[float, Field(strict=True, ge=0)]
Seconds = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, gt=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScaleSection(_Part):
    """When replicas are added or taken away between `serve.replicas` and `serve.replicas_max`."""

    kv_high: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.8
    """Mean use of the KV cache above which one is added."""
    kv_low: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.3
    """Mean use that the remaining ones would have to stay below, for one to be taken away."""
    queue_wait_high_s: Seconds = 5.0
    """A generation that has waited so long for a replica asks for one more."""
    rise_after_s: Seconds = 15.0
    """How long the need must last."""
    fall_after_s: Seconds = 300.0
    """How long there must have been one too many; also the pause after any change."""


class ServeSection(_Part):
    """How replicas of the profile are brought up. Unused for `remote`."""

    replicas: Annotated[int, Field(strict=True, ge=0, le=64)] = 1
    """How many there are, or at least are where `replicas_max` is more."""
    replicas_max: Annotated[int, Field(strict=True, ge=0, le=64)] = 0
    """How many there may be under load; 0: never more than `replicas`."""
    scale: ScaleSection = ScaleSection()
    nodes: Annotated[int, Field(strict=True, ge=1, le=16)] = 1
    """Nodes of one replica: a gang with `gpus / nodes` GPUs on each, started and ended together."""
    resources: dict[str, Annotated[float, Field(strict=True, gt=0)]] = {}
    """More of Ray's resources that each node of a replica must have, such as { H200 = 8 }."""
    model_path: str = ""
    """A directory or hub id; relative paths start at the profile's own directory."""
    engine_python: str = ""
    """The interpreter of the engine's environment; empty: the one Heavy builds or runs in."""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    gpus: Annotated[int, Field(strict=True, ge=0)] = 0
    """GPUs of one replica, over all its nodes; also what GPU-seconds are counted by."""
    start_timeout_s: Seconds = 600.0
    drain_timeout_s: Seconds = 900.0
    """How long a draining replica may finish what it has in flight."""
    hung_restart_s: Seconds = 30.0
    """How long a server may fail every health check before it is ended and started anew."""
    in_flight_max: Positive = 64


class RemoteSection(_Part):
    """Where an OpenAI-compatible endpoint is, for `engine = "remote"`."""

    base_url: str
    """With its version path, such as http://127.0.0.1:30000/v1."""
    api_key_env: str = ""
    """The environment variable that holds the key. The key itself is never written into a profile."""
    dialect: Literal["openai", "sglang"] = "openai"
    """`sglang`: the endpoint also takes request ids, aborts, load reports and reasoning content."""


class RequestSection(_Part):
    """What this server wants differently in a request for a completion."""

    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How it calls the cap on generated tokens."""
    omit: tuple[Literal["temperature", "top_p", "seed", "stop", "tool_choice"], ...] = ()
    """Fields that it refuses."""
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    """Where it reads the reasoning of earlier messages: `reasoning` for vLLM from 0.16 on, which drops the
    other without a word (its issue 38488), and for OpenRouter. What it sends is read from either."""
    continues: bool = True
    """Whether a server of the `sglang` dialect can go on from half an answer (`continue_final_message`)."""
    thinking_markers: tuple[str, str] = ("<think>", "</think>")
    """What the model writes around its reasoning: half an answer is sent as the model had written it."""
    extra: dict[str, Any] = {}
    """More fields, such as chat_template_kwargs = { thinking = true }."""


class RoutingSection(_Part):
    """What routing assumes of this model on its hardware, until generations have shown it better."""

    prefill_tokens_per_s: Annotated[float, Field(strict=True, gt=0)] = 10_000.0
    tokens_per_s: Annotated[float, Field(strict=True, gt=0)] = 100.0
    """What one stream alone is generated at."""
    output_tokens: Positive = 500
    """How long a usual generation is."""
    crowding: Annotated[float, Field(strict=True, ge=0)] = 1.0
    """How much longer a token takes on a full replica: 1.0 is twice as long as on an idle one."""
    output_tokens_reserved: Positive = 4_096
    """KV memory that is reserved for what a generation may say, where its cap is not lower."""
    kv_tokens_max: Annotated[int, Field(strict=True, ge=0)] = 0
    """KV memory of one replica that generations may reserve. 0: what its engine reports."""


class SamplingPreset(_Part):
    """Sampling of one role."""

    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0


class SamplingSection(_Part):
    """Presets per role."""

    arm: SamplingPreset = SamplingPreset()
    aggregator: SamplingPreset = SamplingPreset()


class LimitsSection(_Part):
    """What a trajectory on this profile may do where the policy does not say less."""

    steps_max: Positive = 120
    output_tokens_per_step_max: Positive = 48_000
    answer_tokens_reserved: Positive = 2_048
    """Kept free in the context for a forced final answer."""
    tool_output_chars_max: Positive = 32_000


class StuckSection(_Part):
    """When repetition counts as being stuck; see `heavy.agent.limits.StuckLimits`."""

    same_call_remind_at: tuple[Positive, ...] | None = None
    same_call_stop_at: Positive | None = None
    same_action_stop_at: Positive | None = None
    same_error_stop_at: Positive | None = None
    alternating_stop_at: Annotated[int, Field(strict=True, ge=4)] | None = None


class LadderSection(_Part):
    """How far calls that cannot be used are followed up; see `heavy.agent.limits.LadderLimits`."""

    told_max: Positive | None = None
    constrained_max: Count | None = None
    constrained_per_trajectory_max: Count | None = None
    broken_per_trajectory_max: Positive | None = None


class AgentSection(_Part):
    """Bounds of the loop that this model needs other than `heavy.agent.limits.AgentLimits` has them."""

    calls_per_step_max: Positive | None = None
    calls_at_once_max: Positive | None = None
    engine_attempts_max: Annotated[int, Field(strict=True, ge=1, le=16)] | None = None
    backoff_s: Seconds | None = None
    backoff_max_s: Seconds | None = None
    empty_retries_max: Count | None = None
    answer_reserve_s: Seconds | None = None
    answer_reserve_share: Share | None = None
    deadline_margin_s: Seconds | None = None
    completion_tokens_min: Positive | None = None
    context_headroom_share: Share | None = None
    summaries_max: Count | None = None
    summary_tokens_max: Positive | None = None
    failures_kept_max: Positive | None = None
    flush_s: Seconds | None = None
    stuck: StuckSection = StuckSection()
    ladder: LadderSection = LadderSection()


class PresetSection(_Part):
    """A protocol that a caller may name: what it sets holds where the caller does not say otherwise."""

    description: str = ""
    """Where it comes from and what it is for."""
    steps_max: Positive | None = None
    output_tokens_per_step_max: Positive | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    context_policy: ContextPolicy | None = None
    context_keep_last: Annotated[int, Field(strict=True, ge=1, le=KEEP_LAST_MAX)] | None = None


class PromptsSection(_Part):
    """Template names: built-in ones from heavy/prompts, or files beside the profile ("./name.jinja")."""

    system: str = ""
    """Empty: no system message is added."""
    aggregate: str = "aggregate.jinja"
    force_answer: str = "force_answer.jinja"
    repeat_reminder: str = "repeat_reminder.jinja"
    broken_call: str = "broken_call.jinja"
    context_dropped: str = "context_dropped.jinja"
    summarise: str = "summarise.jinja"
    files: str = "files.jinja"


class AggregationSection(_Part):
    """How much of each candidate the aggregator is shown at first, and whether it may open transcripts."""

    reasoning_tail_chars: Annotated[int, Field(strict=True, ge=0)] = 4_000
    show_tools: bool = True
    """Whether tool calls and results stand between the reasoning that is shown."""
    trace_tools: bool = True


class PricesSection(_Part):
    """What tokens or GPU time cost. Both may be given; the ledger shows both."""

    usd_per_million_prompt_tokens: Price = 0.0
    usd_per_million_cached_tokens: Price | None = None
    """None: cached tokens cost what prompt tokens cost."""
    usd_per_million_output_tokens: Price = 0.0
    usd_per_gpu_hour: Price = 0.0


class Profile(_Part):
    """One model, served one way."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    title: str
    """What people see: the model's name and size, such as "Kimi K2 Thinking (1T, INT4)"."""
    engine: Engine
    model: str
    """The served model name, as requests name it."""
    context_tokens: Annotated[int, Field(strict=True, ge=256)]
    tool_call_dialect: Literal["kimi_k2", "openai"] = "openai"
    """`kimi_k2`: ids are renumbered to functions.name:index and calls inside reasoning are salvaged."""
    constrained_calls: Literal["never", "on_failure", "always"] = "on_failure"
    """Whether calls may be asked for under a grammar: after generations whose calls could not be used, or
    always. A server that refuses it is not asked again in that trajectory."""
    send_reasoning_back: bool = True
    fence_tool_outputs: bool = True
    """Whether text that tools bring from outside is marked and fenced as data. Turn it off for a model that
    knows only the bare texts it was trained on."""
    context_policy: ContextPolicy = ContextPolicy.HIDE_TOOL_OUTPUTS
    context_keep_last: Annotated[int, Field(strict=True, ge=1, le=KEEP_LAST_MAX)] = KEEP_LAST
    """How many tool outputs the policy `keep_last` keeps."""
    default_tools: tuple[str, ...] = ()
    serve: ServeSection = ServeSection()
    remote: RemoteSection | None = None
    request: RequestSection = RequestSection()
    routing: RoutingSection = RoutingSection()
    sampling: SamplingSection = SamplingSection()
    limits: LimitsSection = LimitsSection()
    agent: AgentSection = AgentSection()
    presets: dict[str, PresetSection] = {}
    prompts: PromptsSection = PromptsSection()
    aggregation: AggregationSection = AggregationSection()
    prices: PricesSection = PricesSection()
    directory: str = ""
    """Where the profile was read from; relative paths in it start here. Set by the loader."""
    file: str = ""
    """The file itself, to show faults in; empty where the text came without one. Set by the loader."""

    @property
    def simulated(self) -> bool:
        """Whether what it says is made up; people are told wherever they see it."""
        return self.engine == "simulated"

    @property
    def provider(self) -> str:
        """Who serves it, in telemetry: its engine, or whose API a remote endpoint speaks."""
        return self.remote.dialect if self.remote else self.engine
