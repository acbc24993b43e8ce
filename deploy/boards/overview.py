"""The first page: does it answer, how fast, what does it cost, and if not, which page says why."""

from __future__ import annotations

from deploy.boards.board import Board, Panel, Query, Row
from deploy.boards.promql import mean, quantile, rate, seen
from heavy.telemetry import names

FAILED_SHARE = f"{rate(names.METRIC_RUNS, state='failed')} / {rate(names.METRIC_RUNS)}"
USD_PER_HOUR = f"3600 * {rate(names.METRIC_COST_USD)}"

NOW = Row(
    "Now",
    (
        Panel(
            "Runs under way",
            "Runs accepted and not ended, waiting ones included. Near the places there are "
            "(HEAVY_RUNS_MAX + HEAVY_QUEUE_MAX per coordinator), callers are soon told to come back "
            "later.",
            "short",
            (Query(f"sum({names.METRIC_RUNS_ACTIVE})"),),
            "number",
            width=4,
        ),
        Panel(
            "Runs ended",
            "Runs that ended, in any way, per minute.",
            "suffix:/min",
            (Query(f"60 * {rate(names.METRIC_RUNS)}"),),
            "number",
            width=4,
        ),
        Panel(
            "Runs that failed",
            "Share of ended runs that have no answer. Cancelled ones are not failed. Look at the reasons "
            "of trajectories below, then at the replicas.",
            "percentunit",
            (Query(FAILED_SHARE),),
            "number",
            width=4,
        ),
        Panel(
            "Time to an answer",
            "What 95 of 100 answered runs took at most, from acceptance to the end.",
            "s",
            (Query(quantile(0.95, names.METRIC_RUN_SECONDS, state="completed")),),
            "number",
            width=4,
        ),
        Panel(
            "Money",
            "What runs spend an hour, at the rate of now: tokens and GPU time by the profiles' prices.",
            "currencyUSD",
            (Query(USD_PER_HOUR),),
            "number",
            width=4,
        ),
        Panel(
            "Replicas ready",
            "Replicas that take generations, of all profiles. At 0 nothing is answered.",
            "short",
            (Query(f"sum({seen(names.METRIC_REPLICAS, 'profile', state='ready')})"),),
            "number",
            width=4,
        ),
    ),
)

RUNS = Row(
    "Runs",
    (
        Panel(
            "Runs ended, by state",
            "Completed runs have an answer, failed ones a reason, cancelled ones a caller who did not wait.",
            "suffix:/min",
            (Query(f"60 * {rate(names.METRIC_RUNS, 'state')}", "{{state}}"),),
            "stack",
        ),
        Panel(
            "Runs under way, by state",
            "accepted: waiting for a turn; running: arms are out; aggregating: one answer is being made "
            "of them. Many accepted for long: more coordinators, or a higher HEAVY_RUNS_MAX.",
            "short",
            (Query(f"sum by (state) ({names.METRIC_RUNS_ACTIVE})", "{{state}}"),),
            "stack",
        ),
        Panel(
            "Where a run's time goes",
            "Critical path of the mean run: waiting, prefill, decode and tools of the arm that was waited "
            "for, and the aggregation. The parts add up to the run's wall time.",
            "s",
            (
                Query(
                    f"{rate(names.METRIC_RUN_PATH_SECONDS, 'part')}"
                    f" / ignoring (part) group_left () {rate(names.METRIC_RUNS)}",
                    "{{part}}",
                ),
            ),
            "stack",
        ),
        Panel(
            "Time to an answer",
            "Wall time of answered runs: the median, and what 95 of 100 took at most.",
            "s",
            tuple(
                Query(quantile(q, names.METRIC_RUN_SECONDS, state="completed"), f"p{q * 100:g}")
                for q in (0.5, 0.95)
            ),
        ),
    ),
)

ARMS = Row(
    "Arms and answers",
    (
        Panel(
            "Trajectories, by how they ended",
            "Completed ones with a reason were forced to answer (steps_max, budget, stuck ...). cut "
            "straggler, cut early_stop: not waited for. failed: read the reason, it is an error's code.",
            "suffix:/min",
            (
                Query(
                    f"60 * {rate(names.METRIC_TRAJECTORIES, 'role, outcome, reason')}",
                    "{{role}} {{outcome}} {{reason}}",
                ),
            ),
            "stack",
        ),
        Panel(
            "Fan-outs, by why no more was waited",
            "all_ended: every arm ended by itself. early_stop saved the rest of the arms; straggler gave "
            "the last ones up after their grace; deadline means that runs are given too little time.",
            "suffix:/min",
            (Query(f"60 * {rate(names.METRIC_FANOUTS, 'stopped')}", "{{stopped}}"),),
            "stack",
        ),
        Panel(
            "Answers, by method",
            "vote: the arms agree. reflective: an aggregator read them. single: only one was usable, "
            "which is a sign of trouble.",
            "suffix:/min",
            (Query(f"60 * {rate(names.METRIC_RUNS, 'method', state='completed')}", "{{method}}"),),
            "stack",
        ),
        Panel(
            "Agreement of the arms",
            "The largest group of equivalent answers over all arms that answered: 1 is unanimous. A fall "
            "without new questions means that the model, or a tool, got worse.",
            "percentunit",
            (
                Query(mean(names.METRIC_AGREEMENT), "mean"),
                Query(quantile(0.1, names.METRIC_AGREEMENT), "p10"),
            ),
        ),
    ),
)

AROUND = Row(
    "Around",
    (
        Panel(
            "Requests refused",
            "overloaded: all places are taken (add a coordinator); store_unavailable: look at the store; "
            "others are the caller's.",
            "suffix:/min",
            (Query(f"60 * {rate(names.METRIC_REFUSED, 'reason')}", "{{reason}}"),),
            width=8,
        ),
        Panel(
            "Run store",
            "How long the store takes to answer a small question. Nothing is accepted while it is down.",
            "s",
            (
                Query(quantile(0.5, names.METRIC_STORE_SECONDS), "p50"),
                Query(quantile(0.99, names.METRIC_STORE_SECONDS), "p99"),
            ),
            width=8,
        ),
        Panel(
            "Run store up",
            "Whether each coordinator's last look at the store was answered.",
            "bool_on_off",
            (Query(f"min by (instance) ({names.METRIC_STORE_UP})", "{{instance}}"),),
            width=4,
        ),
        Panel(
            "Profiles served",
            "What is served here, by its title: a simulated engine says so there, and its answers are "
            "made up.",
            "short",
            (
                Query(
                    seen(names.METRIC_PROFILE, "profile, title, engine"),
                    "{{profile}}: {{title}} ({{engine}})",
                ),
            ),
            width=4,
        ),
    ),
)

BOARD = Board(
    "overview",
    "Overview",
    "Whether questions are answered, how fast and for how much. Start here.",
    (NOW, RUNS, ARMS, AROUND),
)
