"""A model directory with Kimi K2's architecture, cut down in layers and experts, without weights.

SGLang draws the weights itself (`--load-format dummy`). What is kept is what the kernels see: the widths,
MLA, the router, and INT4 experts in compressed-tensors' format (symmetric, groups of 32, routed experts
alone). Figures: `config.json` of moonshotai/Kimi-K2-Thinking.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[2] / "workers" / "abacus" / "weights" / "bf16"
"""Its tokenizer has K2's markers, one token each."""
VOCABULARY = 163_840


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of K2 is left: it has 61 layers and 384 experts."""

    layers: int = 6
    experts: int = 32
    context_tokens: int = 32_768


def write(directory: Path, cut: Cut, kind: str) -> Path:
    """The directory of a model: K2's in `int4` or `bf16`, or a small `dense` one to rehearse with."""
    directory.mkdir(parents=True, exist_ok=True)
    config = _dense(cut) if kind == "dense" else _config(cut)
    config |= {"quantization_config": _int4()} if kind == "int4" else {}
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (TOKENIZER / name).exists():
            shutil.copy(TOKENIZER / name, directory / name)
    return directory


def token_id(text: str) -> int:
    """The number of a token of the tokenizer. Raises `KeyError`."""
    vocabulary: dict[str, int] = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    return vocabulary[text]


def _config(cut: Cut) -> dict[str, Any]:
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": cut.layers,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "n_routed_experts": cut.experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.827,
        "num_attention_heads": 64,
        "num_key_value_heads": 64,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 50000.0,
        "rope_scaling": {
            "type": "yarn",
            "factor": 64.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 1.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        **_common(cut),
    }


def _dense(cut: Cut) -> dict[str, Any]:
    """What SGLang serves on a CPU: a tiny Qwen3, with the vocabulary and the tokenizer of the others."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 50000.0,
        **_common(cut),
    }


def _common(cut: Cut) -> dict[str, Any]:
    return {
        "max_position_embeddings": cut.context_tokens,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 754,
        "eos_token_id": 756,
    }


def _int4() -> dict[str, Any]:
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": 32,
        "dynamic": False,
        "observer": "minmax",
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
        "ignore": [
            "lm_head",
            "re:.*self_attn.*",
            "re:.*shared_experts.*",
            "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
        ],
    }
