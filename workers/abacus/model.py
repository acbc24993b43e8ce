"""Qwen3 (dense) in plain torch, with the state-dict names of Hugging Face, for fast training and sampling on
a CPU.

`export.py` loads the same weights into transformers' own implementation and checks that both agree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASKED = -30_000.0  # what a masked score gets: far below any score, and a bfloat16 number


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model; the defaults are Abacus."""

    vocabulary: int = 768
    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    head_width: int = 32
    feed_forward: int = 576
    context: int = 4096
    rope_base: float = 10_000.0
    epsilon: float = 1e-6

    def huggingface(self) -> dict[str, Any]:
        """The fields of a `Qwen3Config`."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_width,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.epsilon,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_base},
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)


def rope(shape: Shape, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of `positions` (any shape), each with a last dimension of `head_width`."""
    half = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angles = positions[..., None].float() * (shape.rope_base**-half)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x, its halves being the pairs (the Hugging Face convention)."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head_width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_width, shape.width, bias=False)
        self.q_norm = nn.RMSNorm(shape.head_width, shape.epsilon)
        self.k_norm = nn.RMSNorm(shape.head_width, shape.epsilon)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (batch, heads, length, head_width)."""
        batch, length, _ = x.shape
        split = (batch, length, -1, self.shape.head_width)
        q = self.q_norm(self.q_proj(x).view(split)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(split)).transpose(1, 2)
        v = self.v_proj(x).view(split).transpose(1, 2)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def spread(self, x: Tensor) -> Tensor:
        """Key or value heads repeated for every query head."""
        return x.repeat_interleave(self.shape.heads // self.shape.kv_heads, 1)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Causal attention, written out: torch's fused one takes most of a training step's time on a CPU."""
        q, k, v = (part.to(x.dtype) for part in self.project(x, cos, sin))
        batch, length, groups = x.shape[0], x.shape[1], self.shape.kv_heads
        q = q.reshape(batch * groups, -1, self.shape.head_width)  # the heads of a group, one after the other
        k, v = k.reshape(batch * groups, length, -1), v.reshape(batch * groups, length, -1)
        scores = torch.bmm(q, k.transpose(1, 2)).view(batch * groups, -1, length, length)
        mask = torch.full((length, length), MASKED, dtype=scores.dtype).triu(1)
        shares = F.softmax(scores * self.shape.head_width**-0.5 + mask, -1, dtype=scores.dtype)
        mixed = torch.bmm(shares.view(batch * groups, -1, length), v)
        return self.o_proj(mixed.view(batch, self.shape.heads, length, -1).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """The gated feed-forward network."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = FeedForward(shape)
        self.input_layernorm = nn.RMSNorm(shape.width, shape.epsilon)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, shape.epsilon)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.epsilon)


class Abacus(nn.Module):
    """The language model; its output embedding is its input embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = (
                    0.02
                    if "o_proj" not in name and "down_proj" not in name
                    else 0.02 / (2 * shape.layers) ** 0.5
                )
                nn.init.normal_(parameter, std=scale)

    def hidden(self, ids: Tensor) -> Tensor:
        """Last hidden states of right-padded ids (batch, length): padding follows, so a causal mask is
        enough.
        """
        cos, sin = rope(self.shape, torch.arange(ids.shape[1]))
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token scores."""
        return F.linear(hidden, self.model.embed_tokens.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))

    def parameter_count(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())
