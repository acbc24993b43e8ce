"""What a model directory says about itself, without loading the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_CONTEXT_TOKENS = 4_096
KV_BYTES_PER_VALUE = 1  # the CPU plugin keeps the KV cache in 8 bits unless told otherwise


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A chat model on disk. `kv_bytes_per_token` is an estimate, 0 where the config does not tell."""

    path: Path
    context_tokens: int
    kv_bytes_per_token: int
    stop_token_ids: tuple[int, ...]
    sampling: Mapping[str, float]
    tokenizer_config: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> ModelDirectory:
        """Read its JSON files. Raises ValueError when it is no OpenVINO model directory."""
        for name in (
            "openvino_model.xml",
            "openvino_tokenizer.xml",
            "openvino_detokenizer.xml",
            "config.json",
        ):
            if not (path / name).is_file():
                raise ValueError(
                    f"{path} lacks {name}. Give the directory of a model exported with "
                    "`optimum-cli export openvino --task text-generation-with-past`."
                )
        config = _read_json(path / "config.json")
        text_config = config.get("text_config", config)
        generation = _read_json(path / "generation_config.json")
        return cls(
            path=path,
            context_tokens=int(text_config.get("max_position_embeddings") or DEFAULT_CONTEXT_TOKENS),
            kv_bytes_per_token=_kv_bytes(text_config),
            stop_token_ids=_ids(generation.get("eos_token_id", config.get("eos_token_id"))),
            sampling=_sampling(generation),
            tokenizer_config=_read_json(path / "tokenizer_config.json"),
        )

    def token(self, name: str) -> str:
        """A named token's text (bos_token, eos_token, ...), empty where there is none."""
        value = self.tokenizer_config.get(name) or ""
        return str(value.get("content", "")) if isinstance(value, dict) else str(value)

    def chat_template(self) -> str | None:
        """The directory's own template; None leaves it to the tokenizer model's metadata."""
        own = self.path / "chat_template.jinja"
        if own.is_file():
            return own.read_text(encoding="utf-8")
        for held in (_read_json(self.path / "chat_template.json"), self.tokenizer_config):
            template = held.get("chat_template")
            if isinstance(template, list):
                named = {item["name"]: item["template"] for item in template}
                template = named.get("tool_use") or named.get("default")
            if isinstance(template, str) and template:
                return template
        return None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def _ids(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(int(one) for one in values if isinstance(one, int))


def _kv_bytes(config: Mapping[str, Any]) -> int:
    """Layers x (keys and values) x KV heads x head size x bytes."""
    try:
        heads = int(config["num_attention_heads"])
        size = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
        kv_heads = int(config.get("num_key_value_heads") or heads)
        return int(config["num_hidden_layers"]) * 2 * kv_heads * size * KV_BYTES_PER_VALUE
    except (KeyError, TypeError, ValueError):
        return 0


def _sampling(generation: Mapping[str, Any]) -> dict[str, float]:
    """The model's own sampling defaults, under OpenAI's names."""
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    given = {name: float(generation[name]) for name in names if isinstance(generation.get(name), int | float)}
    if given.get("top_k", 1) < 1:
        del given["top_k"]  # 0 and -1 mean: no limit
    return given
