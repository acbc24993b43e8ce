"""An untrained Qwen3 that speaks Kimi K2's tokens: something to serve where nothing is trained.

    python -m workers.engines.sglang.tiny_model DIRECTORY

Writes what a model directory holds (config, tokenizer, chat template, bf16 weights), about 0.7 MB, the same
bytes for the same seed. Standard library only. Its words mean nothing; servers, parsers, caches and aborts
are tested with it.

File formats: Hugging Face `config.json` of `Qwen3ForCausalLM`, `tokenizer.json` of the tokenizers library
(byte-level BPE without merges: one token a byte), safetensors (header's length, header as JSON, tensors).
"""

from __future__ import annotations

import argparse
import json
import random
import struct
from dataclasses import dataclass
from pathlib import Path

TURNS = ("end", "user", "assistant", "system", "middle")
CALLS = ("s_section_begin", "s_section_end", "_begin", "_argument_begin", "_end")
SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", *(f"<|im_{name}|>" for name in TURNS))
"""Not in the text a server sends."""
MARKER_TOKENS = ("<think>", "</think>", *(f"<|tool_call{name}|>" for name in CALLS))
"""One token each, and visible to the parsers."""
TEMPLATE = Path(__file__).with_name("tiny_model.jinja")
SPREAD = 0.02
"""Standard deviation of the weights."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; widths in numbers, context in tokens."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 32
    feed_forward: int = 256
    context: int = 4096


def write(directory: Path, shape: Shape | None = None, *, seed: int = 0) -> Path:
    """Write the model; returns `directory`. Raises `OSError` where it cannot be written."""
    shape = shape or Shape()
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = _vocabulary()
    for name, content in {
        "config.json": _config(shape, vocabulary),
        "generation_config.json": {"eos_token_id": vocabulary["<|im_end|>"], "do_sample": True},
        "tokenizer.json": _tokenizer(vocabulary),
        "tokenizer_config.json": _tokenizer_config(shape, vocabulary),
    }.items():
        (directory / name).write_text(json.dumps(content, indent=1) + "\n")
    (directory / "chat_template.jinja").write_text(TEMPLATE.read_text())
    (directory / "model.safetensors").write_bytes(_weights(shape, len(vocabulary), random.Random(seed)))
    return directory


def _vocabulary() -> dict[str, int]:
    tokens = [*_byte_letters(), *SPECIAL_TOKENS, *MARKER_TOKENS]
    return {token: index for index, token in enumerate(tokens)}


def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte: itself where it prints, else U+0100 and on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters: list[str] = []
    for byte in range(256):
        shifted = 0x100 + byte - sum(1 for other in printing if other < byte)
        letters.append(chr(byte if byte in printing else shifted))
    return letters


def _config(shape: Shape, vocabulary: dict[str, int]) -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "vocab_size": len(vocabulary),
        "bos_token_id": vocabulary["[BOS]"],
        "eos_token_id": vocabulary["<|im_end|>"],
        "pad_token_id": vocabulary["[PAD]"],
    }


def _added(token: str) -> dict[str, object]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": token, **plain, "special": token in SPECIAL_TOKENS}


def _tokenizer(vocabulary: dict[str, int]) -> dict[str, object]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    letters = {token: index for token, index in vocabulary.items() if len(token) == 1}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **_added(token)} for token, i in vocabulary.items() if len(token) > 1],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": letters, "merges": []},
    }


def _tokenizer_config(shape: Shape, vocabulary: dict[str, int]) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.context,
        "bos_token": "[BOS]",
        "eos_token": "<|im_end|>",
        "pad_token": "[PAD]",
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(i): _added(token) for token, i in vocabulary.items() if len(token) > 1},
    }


def _tensors(shape: Shape, words: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by its name in the checkpoint; vectors are norms."""
    query, key = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, shape.width)}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        found |= {
            f"{prefix}self_attn.q_proj.weight": (query, shape.width),
            f"{prefix}self_attn.k_proj.weight": (key, shape.width),
            f"{prefix}self_attn.v_proj.weight": (key, shape.width),
            f"{prefix}self_attn.o_proj.weight": (shape.width, query),
            f"{prefix}self_attn.q_norm.weight": (shape.head_width,),
            f"{prefix}self_attn.k_norm.weight": (shape.head_width,),
            f"{prefix}mlp.gate_proj.weight": (shape.feed_forward, shape.width),
            f"{prefix}mlp.up_proj.weight": (shape.feed_forward, shape.width),
            f"{prefix}mlp.down_proj.weight": (shape.width, shape.feed_forward),
            f"{prefix}input_layernorm.weight": (shape.width,),
            f"{prefix}post_attention_layernorm.weight": (shape.width,),
        }
    return found | {"model.norm.weight": (shape.width,)}


def _weights(shape: Shape, words: int, rng: random.Random) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, size in _tensors(shape, words).items():
        start = len(body)
        body += _matrix(size[0] * size[1], rng) if len(size) == 2 else _bf16(1.0) * size[0]
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [start, len(body)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def _matrix(count: int, rng: random.Random) -> bytes:
    return b"".join(_bf16(rng.gauss(0.0, SPREAD)) for _ in range(count))


def _bf16(value: float) -> bytes:
    """The upper half of a float32: bfloat16, rounded towards zero."""
    return struct.pack("<f", value)[2:]


def main() -> None:
    """Write the model into the directory that is named."""
    parser = argparse.ArgumentParser(prog="python -m workers.engines.sglang.tiny_model", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.directory, seed=given.seed)


if __name__ == "__main__":
    main()
