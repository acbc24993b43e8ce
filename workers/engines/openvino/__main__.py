"""`python -m workers.engines.openvino`: an INT4 OpenVINO chat model on a port."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workers.engines.api import process
from workers.engines.formats.markers import REASONING_PARSERS, TOOL_CALL_PARSERS
from workers.engines.openvino.engine import OpenVinoEngine, OpenVinoSettings

RUNNING_MAX = 32


def parser() -> argparse.ArgumentParser:
    """Every flag of the OpenVINO server."""
    flags = argparse.ArgumentParser(prog="python -m workers.engines.openvino", description=__doc__)
    process.add_flags(flags)
    flags.add_argument("--model-path", type=Path, required=True, help="directory of an exported chat model")
    flags.add_argument("--device", default="CPU", help="OpenVINO device (default: CPU)")
    flags.add_argument("--threads", type=int, help="CPU threads for inference (default: OpenVINO's choice)")
    flags.add_argument(
        "--max-batched-tokens", type=int, default=2_048, help="tokens of one step, prefill included"
    )
    flags.add_argument("--reasoning-parser", default="auto", choices=["auto", *REASONING_PARSERS])
    flags.add_argument("--tool-call-parser", default="auto", choices=["auto", *TOOL_CALL_PARSERS])
    flags.add_argument("--strict-tools", action="store_true", help="constrain every tool call to its schema")
    return flags


def settings(given: argparse.Namespace) -> OpenVinoSettings:
    """What the flags describe."""
    return OpenVinoSettings(
        path=given.model_path,
        name=given.served_model_name,
        device=given.device,
        context_tokens=given.context_length,
        kv_tokens=given.max_total_tokens,
        running_max=given.max_running_requests or RUNNING_MAX,
        waiting_max=given.max_queued_requests,
        batch_tokens_max=given.max_batched_tokens,
        threads=given.threads,
        reasoning_parser=given.reasoning_parser,
        tool_call_parser=given.tool_call_parser,
        strict_tools=given.strict_tools,
    )


def main() -> int:
    """Serve until SIGTERM."""
    given = parser().parse_args()
    try:
        engine = OpenVinoEngine(settings(given))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return process.serve(given, lambda: engine)


if __name__ == "__main__":
    sys.exit(main())
