"""Batched sampling in torch, with a key-value cache: how the model's own trajectories are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from workers.abacus import chat
from workers.abacus.model import Abacus, Shape, rope

BATCH_TOKENS = 160_000


def load(checkpoint: Path) -> Abacus:
    """The model of a training checkpoint: the running average of its weights where it has one."""
    state = torch.load(checkpoint, weights_only=True)
    model = Abacus(Shape(**state["shape"]))
    model.load_state_dict(state.get("average") or state["model"])
    return model.eval()


def load_safetensors(directory: Path) -> Abacus:
    """The shipped bf16 weights, computed in float32."""
    weights = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
    weights.pop("lm_head.weight", None)
    model = Abacus(Shape())
    model.load_state_dict(weights)
    return model.eval()


class TorchBackend:
    """Generates for many prompts at once; prompts are padded on the left, finished rows leave the batch."""

    name = "torch"

    def __init__(self, model: Abacus, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end = tokenizer.token_to_id(chat.END)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], temperature: float, tokens_max: int, seed: int) -> list[str]:
        """One completion per prompt, without its end marker; temperature 0 is greedy."""
        encoded = [e.ids for e in self.tokenizer.encode_batch(list(prompts), add_special_tokens=False)]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        generator = torch.Generator().manual_seed(seed)
        done: dict[int, list[int]] = {}
        while order:
            longest = len(encoded[order[0]])
            take = max(1, min(512, BATCH_TOKENS // (longest + tokens_max)))
            group, order = order[:take], order[take:]
            made = self._batch([encoded[i] for i in group], temperature, tokens_max, generator)
            done.update(zip(group, made, strict=True))
        return [self.tokenizer.decode(done[i], skip_special_tokens=False) for i in range(len(encoded))]

    def _batch(
        self, prompts: list[list[int]], temperature: float, tokens_max: int, generator: torch.Generator
    ) -> list[list[int]]:
        length = max(map(len, prompts))
        ids = torch.zeros(len(prompts), length, dtype=torch.long)
        real = torch.zeros(len(prompts), length + tokens_max, dtype=torch.bool)
        for row, piece in enumerate(prompts):
            ids[row, length - len(piece) :] = torch.tensor(piece)
            real[row, length - len(piece) :] = True
        rows = torch.arange(len(prompts))
        made: list[list[int]] = [[] for _ in range(len(prompts) + 1)]  # the last one is thrown away
        cache = self._empty(len(prompts), length + tokens_max)
        position = length
        while True:
            scores = self._step(ids, cache, real, position)
            token = scores.argmax(-1) if temperature == 0 else self._draw(scores / temperature, generator)
            keep = token != self.end
            for row, value, alive in zip(rows.tolist(), token.tolist(), keep.tolist(), strict=True):
                if alive:
                    made[row].append(value)
            position += 1
            if position >= length + tokens_max:
                return made[:-1]
            # Ended rows stay until they are a fifth of the batch; what they go on to produce is thrown away.
            rows = torch.where(keep, rows, len(prompts))
            alive_rows = rows < len(prompts)
            if not alive_rows.any():
                return made[:-1]
            if alive_rows.sum() < 0.8 * len(rows):
                rows, token, real = rows[alive_rows], token[alive_rows], real[alive_rows]
                cache = [(k[alive_rows], v[alive_rows]) for k, v in cache]
            ids = token[:, None]

    @staticmethod
    def _draw(scores: Tensor, generator: torch.Generator) -> Tensor:
        return torch.multinomial(F.softmax(scores, -1), 1, generator=generator)[:, 0]

    def _empty(self, rows: int, length: int) -> list[tuple[Tensor, Tensor]]:
        shape = self.model.shape
        size = (rows, shape.kv_heads, length, shape.head_width)
        return [(torch.zeros(size), torch.zeros(size)) for _ in range(shape.layers)]

    def _step(self, ids: Tensor, cache: list[tuple[Tensor, Tensor]], real: Tensor, end: int) -> Tensor:
        """Scores after `ids`, which lie just before `end` in the cache; fills the cache."""
        start = end - ids.shape[1]
        padding = (~real).sum(1, keepdim=True)
        cos, sin = rope(self.model.shape, (torch.arange(start, end)[None] - padding).clamp_min(0))
        cos, sin = cos[:, None], sin[:, None]
        causal = torch.arange(end)[None, :] <= torch.arange(start, end)[:, None]
        mask = (
            (real[:, None, None, :end] & causal[None, None])
            if ids.shape[1] > 1
            else real[:, None, None, :end]
        )
        if ids.shape[1] > 1:
            mask = mask | torch.eye(end, dtype=torch.bool)[start:end][None, None]
        x = self.model.model.embed_tokens(ids)
        for layer, (keys, values) in zip(self.model.model.layers, cache, strict=True):
            attention = layer.self_attn
            q, k, v = attention.project(layer.input_layernorm(x), cos, sin)
            keys[:, :, start:end], values[:, :, start:end] = k, v
            q = q.unflatten(1, (self.model.shape.kv_heads, -1)).flatten(2, 3) if ids.shape[1] == 1 else q
            if ids.shape[1] == 1:
                mixed = F.scaled_dot_product_attention(
                    q, keys[:, :, :end], values[:, :, :end], attn_mask=mask
                )
                mixed = mixed.flatten(1, 2).unsqueeze(1).flatten(2)
            else:
                k, v = attention.spread(keys[:, :, :end]), attention.spread(values[:, :, :end])
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
            x = x + attention.o_proj(mixed)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.logits(self.model.model.norm(x[:, -1]))
