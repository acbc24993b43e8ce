"""`python -m workers.engines.simulated`: a simulated replica on a port."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from workers.engines.api import process
from workers.engines.simulated.engine import SimulatedEngine
from workers.engines.simulated.mistakes import Mistake, parse_rates
from workers.engines.simulated.profile import PROFILES
from workers.engines.simulated.ranks import Ranks, follow
from workers.engines.simulated.script import load_script


def parser() -> argparse.ArgumentParser:
    """Every flag of the simulated server."""
    flags = argparse.ArgumentParser(prog="python -m workers.engines.simulated", description=__doc__)
    process.add_flags(flags)
    flags.add_argument("--profile", default="k2-8xh200", choices=sorted(PROFILES), help="timing and size")
    flags.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    flags.add_argument("--script", type=Path, help="JSON file saying what each step says (see script.py)")
    flags.add_argument("--time-scale", type=float, help="play model time so many times as fast")
    flags.add_argument("--ttft-ms", type=float, help="model time to the first token, without prefill")
    flags.add_argument("--itl-ms", type=float, help="model time between tokens")
    flags.add_argument("--prefill-tokens-per-s", type=float, help="prefill rate for uncached tokens")
    flags.add_argument("--crowding", type=float, help="how much longer a token takes when full, as a share")
    flags.add_argument(
        "--prefill-alone", action="store_true", help="prefill one prompt at a time, decode nothing meanwhile"
    )
    flags.add_argument("--jitter", type=float, help="relative spread of all times, 0 to 1")
    flags.add_argument("--steps-min", type=int, help="default behaviour: fewest steps with tool calls")
    flags.add_argument("--steps-max", type=int, help="default behaviour: most steps with tool calls")
    flags.add_argument("--reasoning-tokens", type=int, help="default behaviour: reasoning tokens a step")
    flags.add_argument("--answer-tokens", type=int, help="default behaviour: tokens of an answer")
    flags.add_argument("--agreement", type=float, help="chance that an answer is the usual one, 0 to 1")
    flags.add_argument("--rivals", type=int, help="how many other answers there are")
    flags.add_argument("--load-s", type=float, default=0.0, help="time that loading takes, as its log tells")
    flags.add_argument("--nnodes", type=int, default=1, help="nodes of the gang that this is a rank of")
    flags.add_argument("--node-rank", type=int, default=0, help="which rank this is; 0 serves")
    flags.add_argument("--dist-init-addr", default="", help="host:port of rank 0, where the ranks meet")
    flags.add_argument(
        "--mistake",
        action="append",
        default=[],
        metavar="NAME=RATE",
        help=f"repeatable; {', '.join(Mistake)}",
    )
    return flags


def build(given: argparse.Namespace) -> SimulatedEngine:
    """The engine that the flags describe. Raises ValueError or OSError."""
    profile = PROFILES[given.profile].with_overrides(
        {
            "time_scale": given.time_scale,
            "ttft_s": None if given.ttft_ms is None else given.ttft_ms / 1_000,
            "itl_s": None if given.itl_ms is None else given.itl_ms / 1_000,
            "prefill_tokens_per_s": given.prefill_tokens_per_s,
            "crowding": given.crowding,
            "prefill_alone": given.prefill_alone or None,
            "jitter": given.jitter,
            "steps_min": given.steps_min,
            "steps_max": given.steps_max,
            "reasoning_tokens": given.reasoning_tokens,
            "answer_tokens": given.answer_tokens,
            "agreement": given.agreement,
            "rivals": given.rivals,
            "context_tokens": given.context_length,
            "kv_tokens": given.max_total_tokens,
            "running_max": given.max_running_requests,
            "waiting_max": given.max_queued_requests,
        }
    )
    return SimulatedEngine(
        profile,
        seed=given.seed,
        name=given.served_model_name or "simulated",
        script=load_script(given.script) if given.script else (),
        mistakes=parse_rates(given.mistake),
    )


def main() -> int:
    """Serve until SIGTERM."""
    flags = parser()
    given = flags.parse_args()
    try:
        engine = build(given)
    except (OSError, ValueError) as error:
        flags.error(str(error))
    if given.node_rank > 0:
        return asyncio.run(follow(given.dist_init_addr, given.node_rank))
    engine.ranks = Ranks(given.dist_init_addr, given.nnodes) if given.nnodes > 1 else None
    engine.load_s = given.load_s
    return process.serve(given, lambda: engine)


if __name__ == "__main__":
    sys.exit(main())
