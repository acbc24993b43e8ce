"""What waits for a GPU, as far as SGLang reads it without one: the configuration of the cut-down K2."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from heavy.profiles.loader import load_profiles
from tests.gpu.k2_model import Cut, write
from workers.engines.sglang.environment import cpu_environment

READ = """
import json, sys
from sglang.srt.configs.model_config import AttentionArch, ModelConfig
from sglang.srt.function_call.function_call_parser import FunctionCallParser
from sglang.srt.layers.quantization import get_quantization_config
from sglang.srt.parser.reasoning_parser import ReasoningParser

read = ModelConfig(sys.argv[1], trust_remote_code=True)
quantisation = get_quantization_config(read.quantization).from_config(read.hf_config.quantization_config)
weights = quantisation.target_scheme_map["Linear"]["weights"]
print(json.dumps({
    "class": type(read.hf_config).__name__,
    "mla": read.attention_arch is AttentionArch.MLA,
    "kv_values": read.kv_lora_rank + read.qk_rope_head_dim,
    "layers": read.num_hidden_layers,
    "vocabulary": read.vocab_size,
    "context": read.context_len,
    "format": quantisation.quant_format,
    "weights": [weights.num_bits, weights.group_size, weights.symmetric],
    "parsers": sorted(FunctionCallParser.ToolCallParserEnum) + sorted(ReasoningParser.DetectorMap),
}))
"""


@pytest.mark.sglang
def test_sglang_reads_the_cut_down_k2_as_mla_with_int4_experts_and_has_every_parser_we_name(
    tmp_path: Path,
) -> None:
    model = write(tmp_path / "int4", Cut(), "int4")
    environment = cpu_environment()
    done = subprocess.run(
        [str(environment.python), "-c", READ, str(model)],
        env={**os.environ, **environment.variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(done.stdout.splitlines()[-1])
    assert (read["class"], read["mla"], read["kv_values"]) == ("DeepseekV3Config", True, 576)
    assert (read["layers"], read["vocabulary"], read["context"]) == (6, 163_840, 32_768)
    assert (read["format"], read["weights"]) == ("pack-quantized", [4, 32, True])
    assert parsers_named() <= set(read["parsers"])


def parsers_named() -> set[str]:
    """The values of parser flags in the profiles that ship, and K2's."""
    named = {"kimi_k2"}
    for profile in load_profiles().by_name.values():
        args = profile.serve.args
        named |= {value for flag, value in pairwise(args) if flag.endswith("-parser")}
    return named
