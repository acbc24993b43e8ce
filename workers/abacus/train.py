"""Trains Abacus on one CPU core: seeded, resumable, bounded by minutes, with a progress line and a loss
curve in CSV.

Matrices inside the layers are optimised by Muon, embeddings and norms by AdamW. The learning rate is flat
and falls over the last part of the time budget. Batches hold examples of similar length, and loss falls
on the assistant only.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from workers.abacus import tokenizer as tokenizers
from workers.abacus.data import MIXES, Segments, aggregation, example
from workers.abacus.model import Abacus, Shape
from workers.abacus.muon import Muon
from workers.abacus.rollouts import Rollouts
from workers.abacus.rounding import rounded

AVERAGE = 0.99
COLUMNS = ("phase", "step", "minutes", "tokens", "loss", "learning_rate")


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one phase."""

    minutes: float
    decay: float = 0.25
    warmup_steps: int = 40
    tokens_per_batch: int = 2048
    easy_minutes: float = 6.0


def encode(tokenizer: Tokenizer, segments: Segments) -> tuple[list[int], list[bool]]:
    """Token ids and whether each is imitated."""
    ids: list[int] = []
    imitated: list[bool] = []
    for text, imitate in segments:
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        ids += piece
        imitated += [imitate] * len(piece)
    return ids, imitated


def batches(
    examples: Iterator[tuple[list[int], list[bool]]], tokens: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Padded (ids, targets) of about `tokens` tokens; targets are -100 where nothing is imitated."""
    while True:
        pool = sorted((next(examples) for _ in range(768)), key=lambda pair: len(pair[0]))
        groups: list[list[tuple[list[int], list[bool]]]] = [[]]
        for pair in pool:
            if groups[-1] and (len(groups[-1]) + 1) * len(pair[0]) > tokens:
                groups.append([])
            groups[-1].append(pair)
        rng.shuffle(groups)
        for group in groups:
            length = len(group[-1][0])
            ids = torch.zeros(len(group), length, dtype=torch.long)
            targets = torch.full((len(group), length), -100)
            for row, (piece, imitated) in enumerate(group):
                ids[row, : len(piece)] = torch.tensor(piece)
                wanted = [
                    token if keep else -100 for token, keep in zip(piece[1:], imitated[1:], strict=True)
                ]
                targets[row, : len(wanted)] = torch.tensor(wanted)
            yield ids, targets


class Trainer:
    """A model, its optimisers, and where in the schedule it stands."""

    def __init__(
        self, directory: Path, shape: Shape, seed: int, precision: torch.dtype, *, int4: bool = False
    ) -> None:
        self.directory = directory
        self.precision = precision
        directory.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        self.model = Abacus(shape)
        inner = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        outer = [p for p in self.model.parameters() if not any(p is q for q in inner)]
        self.rounded = inner if int4 else []
        self.muon = Muon(inner, lr=0.02, weight_decay=0.01, precision=precision)
        self.adam = torch.optim.AdamW(outer, lr=0.004, betas=(0.9, 0.98), weight_decay=0.0)
        self.peaks = (0.02, 0.004)
        self.average = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.phase, self.step, self.minutes, self.tokens = "", 0, 0.0, 0

    @property
    def checkpoint(self) -> Path:
        """Where the state of training lies."""
        return self.directory / "checkpoint.pt"

    def save(self, path: Path | None = None) -> None:
        """Write everything that is needed to go on, atomically."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "shape": self.model.shape.as_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "at": (self.phase, self.step, self.minutes, self.tokens),
        }
        target = path or self.checkpoint
        torch.save(state, target.with_suffix(".tmp"))
        target.with_suffix(".tmp").replace(target)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state.get("average") or {k: v.clone() for k, v in state["model"].items()}
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.phase, self.step, self.minutes, self.tokens = state["at"]

    def begin(self, phase: str) -> None:
        """Start a phase, unless the checkpoint is in the middle of it."""
        if self.phase != phase:
            self.phase, self.step, self.minutes = phase, 0, 0.0

    def rate(self, budget: Budget) -> float:
        """The share of the peak learning rate here: warm up, stay, fall linearly to nearly nothing."""
        left = max(0.0, 1.0 - self.minutes / budget.minutes)
        return max(0.01, min(1.0, (self.step + 1) / budget.warmup_steps, left / budget.decay))

    def update(self, ids: Tensor, targets: Tensor, share: float) -> float:
        """One optimiser step; returns the mean loss of the imitated tokens."""
        for optimiser, peak in ((self.muon, self.peaks[0]), (self.adam, self.peaks[1])):
            for group in optimiser.param_groups:
                group["lr"] = peak * share
        wanted = targets != -100
        self.model.zero_grad(set_to_none=True)
        with rounded(self.rounded):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == torch.bfloat16):
                scores = self.model.logits(self.model.hidden(ids)[wanted])
            loss = F.cross_entropy(scores.float(), targets[wanted])
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.muon.step()
        self.adam.step()
        self._follow()
        self.step += 1
        self.tokens += ids.numel()
        return loss.item()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running average of the weights, which is what is sampled from and exported."""
        for name, tensor in self.model.state_dict().items():
            self.average[name].lerp_(tensor, 1 - AVERAGE)

    def run(self, stream: Iterator[tuple[Tensor, Tensor]], budget: Budget) -> None:
        """Train until the minutes of the phase are used up."""
        curve = self.directory / "loss.csv"
        if not curve.exists():
            curve.write_text(",".join(COLUMNS) + "\n")
        started, before = time.monotonic(), self.minutes
        saved = logged = started
        losses: list[float] = []
        while self.minutes < budget.minutes:
            share = self.rate(budget)
            losses.append(self.update(*next(stream), share))
            now = time.monotonic()
            self.minutes = before + (now - started) / 60
            if now - logged > 10 or self.minutes >= budget.minutes:
                self._log(curve, losses, share, budget)
                losses, logged = [], now
            if now - saved > 60:
                self.save()
                saved = now
        self.save()
        self.save(self.directory / f"{self.phase}.pt")

    def _log(self, curve: Path, losses: list[float], share: float, budget: Budget) -> None:
        loss = sum(losses) / len(losses)
        with curve.open("a", newline="") as file:
            row = (self.phase, self.step, f"{self.minutes:.2f}", self.tokens, f"{loss:.4f}", f"{share:.3f}")
            csv.writer(file).writerow(row)
        done = min(1.0, self.minutes / budget.minutes)
        bar = "#" * int(30 * done) + "." * (30 - int(30 * done))
        print(
            f"{self.phase} [{bar}] {self.minutes:5.1f}/{budget.minutes:.0f} min  step {self.step}  "
            f"{self.tokens / 1e6:.2f}M tokens  loss {loss:.4f}",
            flush=True,
        )


def base_stream(
    tokenizer: Tokenizer, trainer: Trainer, budget: Budget, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Problems of all training families and imagined aggregations, easy ones first."""
    rng = random.Random(f"base/{seed}/{trainer.step}")

    def examples() -> Iterator[tuple[list[int], list[bool]]]:
        while True:
            easy = max(0.0, 1.0 - trainer.minutes / budget.easy_minutes)
            mix = MIXES["first" if easy > 0 else "base"]
            yield encode(tokenizer, example(rng, mix, easy))

    return batches(examples(), budget.tokens_per_batch, rng)


def aggregate_stream(
    tokenizer: Tokenizer, rollouts: Rollouts, trainer: Trainer, budget: Budget, seed: int, share: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Aggregations over the model's own trajectories, `share` of the examples; the rest as in the first
    phase, or as the phase's own mix says.
    """
    rng = random.Random(f"{trainer.phase}/{seed}/{trainer.step}")
    mix, easy = (MIXES["base"], 0.5) if trainer.phase == "aggregate" else (MIXES[trainer.phase], 0.2)

    def examples() -> Iterator[tuple[list[int], list[bool]]]:
        while True:
            if rng.random() < share:
                problem, candidates = rollouts.draw(rng)
                segments = aggregation(problem, candidates, rng)
            else:
                segments = example(rng, mix, easy)
            ids, imitated = encode(tokenizer, segments)
            if len(ids) <= 2048:
                yield ids, imitated

    return batches(examples(), budget.tokens_per_batch, rng)


def main() -> None:
    """Run one phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=("base", "aggregate", "practice", "finish"))
    parser.add_argument("--directory", type=Path, required=True, help="checkpoints, tokenizer and curve")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument(
        "--decay", type=float, default=0.25, help="share of the time over which the rate falls"
    )
    parser.add_argument("--share", type=float, default=0.3, help="share of aggregations in the second phase")
    parser.add_argument("--rollouts", type=Path, nargs="*", default=[], help="files of sampled trajectories")
    parser.add_argument("--peak", type=float, default=1.0, help="scales both peak learning rates")
    parser.add_argument("--int4", action="store_true", help="train what INT4 makes of the weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--precision",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="of matrix products; float32 is quicker on a CPU without bfloat16 units",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    files = arguments.directory / "tokenizer"
    if not (files / "tokenizer.json").exists():
        tokenizers.save(tokenizers.train(), files)
    tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
    precision = getattr(torch, arguments.precision)
    trainer = Trainer(arguments.directory, Shape(), arguments.seed, precision, int4=arguments.int4)
    if trainer.checkpoint.exists():
        trainer.restore(trainer.checkpoint)
    trainer.begin(arguments.phase)
    trainer.peaks = (0.02 * arguments.peak, 0.004 * arguments.peak)
    budget = Budget(arguments.minutes, arguments.decay)
    print(json.dumps({"parameters": trainer.model.parameter_count(), **Shape().as_dict()}), flush=True)
    if arguments.phase == "base":
        stream = base_stream(tokenizer, trainer, budget, arguments.seed)
    else:
        rollouts = Rollouts.load(arguments.rollouts)
        stream = aggregate_stream(tokenizer, rollouts, trainer, budget, arguments.seed, arguments.share)
    trainer.run(stream, budget)


if __name__ == "__main__":
    main()
