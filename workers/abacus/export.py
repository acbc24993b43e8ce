"""Exports a checkpoint: bf16 safetensors for transformers and SGLang, INT4 OpenVINO for a CPU.

The Hugging Face model must give the trainer's own logits, the INT4 matrices must be those that training
rounded to, and the INT4 directory must load in OpenVINO GenAI's continuous-batching pipeline and answer in
the format; otherwise the export fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from workers.abacus import chat
from workers.abacus.rounding import as_int4
from workers.abacus.sample import load, load_safetensors

QUANTISE = ("--weight-format", "int4", "--group-size", "32", "--sym", "--ratio", "1.0")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
INT4_BYTES_MAX = 4_000_000
BF16_BYTES_MAX = 6_000_000


def to_bf16(checkpoint: Path, tokenizer: Path, target: Path) -> None:
    """Write the Hugging Face directory."""
    ours = load(checkpoint)
    ids = _special_ids(tokenizer)
    config = Qwen3Config(
        **ours.shape.huggingface(),
        bos_token_id=ids["[BOS]"],
        eos_token_id=ids[chat.END],
        pad_token_id=ids["[PAD]"],
        dtype="bfloat16",
        architectures=["Qwen3ForCausalLM"],
    )
    theirs = Qwen3ForCausalLM(config).float().eval()
    weights = dict(ours.state_dict())
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    theirs.load_state_dict(weights)
    probe = torch.randint(0, ours.shape.vocabulary, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        apart = (ours(probe) - theirs(probe).logits).abs().max().item()
    if apart > 1e-3:
        raise SystemExit(
            f"transformers computes other logits than the trainer (up to {apart:.2e} apart): not exported"
        )
    shutil.rmtree(target, ignore_errors=True)
    theirs.bfloat16().save_pretrained(target)
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer / name, target / name)
    _write_generation_config(target, ids)
    print(f"bf16: logits agree within {apart:.1e}; {_size(target):,} bytes")


def to_int4(source: Path, target: Path) -> None:
    """Quantise a Hugging Face directory to INT4 and convert its tokenizer, with optimum's exporter."""
    shutil.rmtree(target, ignore_errors=True)
    tool = Path(sys.executable).with_name("optimum-cli")
    task = ("--task", "text-generation-with-past")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "int4"
        subprocess.run([tool, "export", "openvino", "-m", source, *task, *QUANTISE, made], check=True)
        shutil.copytree(made, target)
    _forget_paths(target / "openvino_config.json", source)
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        shutil.copy(source / name, target / name)
    print(f"int4: {_size(target):,} bytes")


def check_rounding(bf16: Path, int4: Path) -> int:
    """Compare every INT4 matrix with what `rounding.as_int4` makes of the bf16 one; returns their number."""
    exact = load_safetensors(bf16).state_dict()
    model = ov.Core().read_model(int4 / "openvino_model.xml")
    constants = {o.get_friendly_name(): o for o in model.get_ops() if o.get_type_name() == "Constant"}
    packed = {name: o for name, o in constants.items() if o.get_element_type() == ov.Type.i4}
    for name, constant in packed.items():
        halves = np.frombuffer(constant.data.tobytes(), np.uint8)
        whole = np.stack([halves & 15, halves >> 4], -1).astype(np.int8).reshape(constant.get_output_shape(0))
        whole[whole > 7] -= 16
        made = whole * constants[f"{name}/scale"].data.astype(np.float32)
        own = name.removeprefix("self.").removesuffix("._openvino_orig_weight") + ".weight"
        apart = np.abs(made.reshape(exact[own].shape) - as_int4(exact[own]).numpy()).max()
        if apart > 1e-3 * np.abs(made).max():
            raise SystemExit(f"{own} is rounded otherwise than in training (up to {apart:.2e}): not exported")
    return len(packed)


def check(int4: Path) -> str:
    """One greedy answer from the pipeline the service uses."""
    from workers.abacus.pipeline import OpenVinoBackend

    prompt = chat.render([{"role": "user", "content": "What is 12+15-7?"}])
    (text,) = OpenVinoBackend(int4).generate([prompt], 0.0, 64, 0)
    if not text.startswith("<think>") or "</think>Answer:" not in text:
        raise SystemExit(f"the INT4 model does not answer in its format: {text!r}")
    return text


def _special_ids(tokenizer: Path) -> dict[str, int]:
    content = json.loads((tokenizer / "tokenizer.json").read_text())
    return {token["content"]: token["id"] for token in content["added_tokens"]}


def _write_generation_config(target: Path, ids: dict[str, int]) -> None:
    config = {
        "bos_token_id": ids["[BOS]"],
        "eos_token_id": [ids[chat.END], ids["[EOS]"]],
        "pad_token_id": ids["[PAD]"],
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 768,
    }
    (target / "generation_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _forget_paths(config: Path, source: Path) -> None:
    """The exporter notes where the source lay; what is shipped names no path of this machine."""
    config.write_text(config.read_text().replace(str(source), source.name))


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def main() -> None:
    """Export both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True, help="gets bf16/ and int4/")
    arguments = parser.parse_args()
    bf16, int4 = arguments.target / "bf16", arguments.target / "int4"
    to_bf16(arguments.checkpoint, arguments.tokenizer, bf16)
    to_int4(bf16, int4)
    if _size(int4) > INT4_BYTES_MAX or _size(bf16) > BF16_BYTES_MAX:
        raise SystemExit(f"too large: int4 {_size(int4):,} bytes, bf16 {_size(bf16):,} bytes")
    print(f"{check_rounding(bf16, int4)} INT4 matrices are as training rounded them")
    print(check(int4))


if __name__ == "__main__":
    main()
