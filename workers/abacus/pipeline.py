"""The INT4 model on OpenVINO GenAI's continuous-batching pipeline, as a backend of the offline evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai
from tokenizers import Tokenizer

from workers.abacus import chat

CACHE_GIB = 1
BATCH_TOKENS = 4096


class OpenVinoBackend:
    """Generates for many prompts at once on the CPU."""

    name = "openvino-int4"

    def __init__(self, directory: Path, threads: int = 1) -> None:
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.end = self.tokenizer.token_to_id(chat.END)
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GIB
        scheduler.max_num_batched_tokens = BATCH_TOKENS
        scheduler.max_num_seqs = 128
        scheduler.enable_prefix_caching = True
        options = {"INFERENCE_NUM_THREADS": threads}
        self.pipeline = genai.ContinuousBatchingPipeline(str(directory), scheduler, "CPU", options)

    def generate(self, prompts: Sequence[str], temperature: float, tokens_max: int, seed: int) -> list[str]:
        """One completion per prompt, without its end marker; temperature 0 is greedy."""
        handles = []
        for number, prompt in enumerate(prompts):
            ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
            config = genai.GenerationConfig()
            config.max_new_tokens = tokens_max
            config.stop_token_ids = {self.end}
            config.eos_token_id = self.end
            config.do_sample = temperature > 0
            if temperature > 0:
                config.temperature = temperature
                config.rng_seed = seed * 1_000_003 + number
            tensor = ov.Tensor(np.array([ids], dtype=np.int64))
            handles.append(self.pipeline.add_request(number, tensor, config))
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        return [self._text(handle) for handle in handles]

    def _text(self, handle: object) -> str:
        (output,) = handle.read_all()  # type: ignore[attr-defined]
        ids = [token for token in output.generated_ids if token != self.end]
        return self.tokenizer.decode(ids, skip_special_tokens=False)
