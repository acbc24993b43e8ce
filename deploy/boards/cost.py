"""What heavy mode costs, who spends it, and what it costs more than a single arm."""

from __future__ import annotations

from deploy.boards.board import Board, Panel, Query, Row, Variable
from deploy.boards.promql import increase, mean, quantile, rate, seen
from heavy.telemetry import names

CHOSEN = {"tenant": "~$tenant", "profile": "~$profile"}
LIMITS = "~budget|tool_calls_max|steps_max"
PROVIDED_USD = f"sum({seen(names.METRIC_REPLICA_USD, 'replica, profile')})"
PROVIDED_GPUS = f"sum({seen(names.METRIC_REPLICA_GPUS, 'replica, profile')})"
BILLED_GPUS = rate(names.METRIC_GPU_SECONDS)

MONEY = Row(
    "Money",
    (
        Panel(
            "Spent",
            "Money spent in the time shown, by the ledgers of the runs that ended in it: cut and failed "
            "generations, and those of runners that died, included.",
            "currencyUSD",
            (Query(increase(names.METRIC_COST_USD, **CHOSEN)),),
            "number",
            width=6,
        ),
        Panel(
            "A run",
            "What the mean run costs.",
            "currencyUSD",
            (Query(mean(names.METRIC_RUN_COST_USD)),),
            "number",
            width=6,
        ),
        Panel(
            "Heavy premium",
            "What the mean run costs over what its median arm costs: the price of heavy mode against a "
            "single answer. Width and aggregation are its levers, early stop lowers it.",
            "suffix:x",
            (Query(mean(names.METRIC_PREMIUM)),),
            "number",
            width=6,
        ),
        Panel(
            "Prompt tokens from the cache",
            "Share of prompt tokens that the engines did not prefill again. Low with many steps: steps "
            "change replicas, or the KV cache is too small for the runs under way.",
            "percentunit",
            (
                Query(
                    f"{rate(names.METRIC_TOKENS, kind='cached', **CHOSEN)}"
                    f" / {rate(names.METRIC_TOKENS, kind='prompt', **CHOSEN)}"
                ),
            ),
            "number",
            width=6,
        ),
        Panel(
            "Money an hour, by tenant",
            "Who spends it. Counted when runs end, so a long run shows at its end.",
            "currencyUSD",
            (Query(f"3600 * {rate(names.METRIC_COST_USD, 'tenant', **CHOSEN)}", "{{tenant}}"),),
            "stack",
        ),
        Panel(
            "Money an hour, by profile",
            "Which model it is spent on. An aggregator on a profile of its own is seen here.",
            "currencyUSD",
            (Query(f"3600 * {rate(names.METRIC_COST_USD, 'profile', **CHOSEN)}", "{{profile}}"),),
            "stack",
        ),
        Panel(
            "What a run costs",
            "The median run, and what 95 of 100 cost at most. A budget in the policy caps it.",
            "currencyUSD",
            tuple(Query(quantile(q, names.METRIC_RUN_COST_USD), f"p{q * 100:g}") for q in (0.5, 0.95)),
        ),
        Panel(
            "Heavy premium",
            "Cost of a run over its median arm, by money; by tokens where tokens are free.",
            "suffix:x",
            tuple(
                Query(quantile(q, names.METRIC_PREMIUM, "basis"), f"p{q * 100:g} by {{{{basis}}}}")
                for q in (0.5, 0.95)
            ),
        ),
    ),
)

TOKENS = Row(
    "Tokens",
    (
        Panel(
            "Tokens, by kind",
            "cached is part of prompt, reasoning part of output.",
            "suffix:tok/s",
            (Query(rate(names.METRIC_TOKENS, "kind", **CHOSEN), "{{kind}}"),),
        ),
        Panel(
            "Tokens of a run",
            "Prompt and output tokens of the mean run. Prompts grow with steps: each step sends the whole "
            "conversation again, from the cache where it can.",
            "short",
            (
                Query(
                    f"{rate(names.METRIC_TOKENS, 'kind', kind='~prompt|output')}"
                    f" / ignoring (kind) group_left () {rate(names.METRIC_RUNS)}",
                    "{{kind}}",
                ),
            ),
        ),
    ),
)

GPUS = Row(
    "GPUs",
    (
        Panel(
            "GPUs: there, and billed",
            "A generation is billed its share of a replica (one slot of in_flight_max) while it has it. "
            "What is there and not billed is idle: paid by the operator, and by no run.",
            "short",
            (Query(PROVIDED_GPUS, "there"), Query(BILLED_GPUS, "billed")),
        ),
        Panel(
            "GPU money an hour: there, and idle",
            "What the replicas' GPUs cost while they are there, and the part of it that no run was "
            "billed. All idle at night: scale down; none idle by day: runs are waiting.",
            "currencyUSD",
            (
                Query(PROVIDED_USD, "there"),
                Query(f"{PROVIDED_USD} * clamp_min(1 - {BILLED_GPUS} / {PROVIDED_GPUS}, 0)", "idle"),
            ),
            needs="a profile has GPUs",
        ),
        Panel(
            "GPU-seconds billed, by tenant and profile",
            "GPU-seconds a second, that is GPUs, by who was billed for them.",
            "short",
            (Query(rate(names.METRIC_GPU_SECONDS, "tenant, profile", **CHOSEN), "{{tenant}} {{profile}}"),),
            "stack",
        ),
        Panel(
            "Trajectories cut by a budget",
            "Trajectories that a run's budget, or a cap of the policy, ended or forced to answer. Many: "
            "budgets are too small for the width asked for.",
            "suffix:/min",
            (
                Query(
                    f"60 * {rate(names.METRIC_TRAJECTORIES, 'reason', reason=LIMITS)}",
                    "{{reason}}",
                ),
            ),
            "stack",
            needs="a trajectory met a budget",
        ),
    ),
)

BOARD = Board(
    "cost",
    "Cost",
    "What runs cost, by tenant, profile and kind of token, and what nobody was billed for.",
    (MONEY, TOKENS, GPUS),
    (
        Variable("tenant", "Tenant", f"{names.METRIC_COST_USD}_total"),
        Variable("profile", "Profile", f"{names.METRIC_COST_USD}_total"),
    ),
)
