"""The process that owns the pipeline. One thread: obey commands, take a step, report; repeat.

Commands: `add` (a generation), `cancel`, `stop`. Reports: `ready`, `news` (per generation: its new ids and,
at its end, why), `lost` (the pipeline broke and was built anew; what ran is gone). A cancel precedes
the next step.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
import orjson

from workers.engines.openvino.grammar import build
from workers.engines.openvino.link import CoreLink

PULSE_S = 0.25
REBUILDS_MAX = 3
REBUILDS_WINDOW_S = 600.0
ENDS = {
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}


class Core:
    """The pipeline and the generations in it."""

    def __init__(self, settings: dict[str, Any], link: CoreLink) -> None:
        self._settings = settings
        self._link = link
        self._handles: dict[int, Any] = {}
        self._rebuilds: deque[float] = deque()
        self._silent_since = time.monotonic()
        self._pipeline = self._load()

    def run(self) -> None:
        """Serve until the server hangs up or says stop."""
        self._link.send({"ready": True})
        while self._commands():
            if self._handles:
                self._step()
                self._report()

    def _load(self) -> Any:
        """The pipeline, as the settings describe it."""
        scheduler = genai.SchedulerConfig()
        scheduler.num_kv_blocks = self._settings["kv_blocks"]
        scheduler.max_num_seqs = self._settings["running_max"]
        scheduler.max_num_batched_tokens = self._settings["batch_tokens_max"]
        scheduler.enable_prefix_caching = True
        scheduler.dynamic_split_fuse = True
        return genai.ContinuousBatchingPipeline(
            self._settings["path"], scheduler, self._settings["device"], self._settings["properties"]
        )

    def _commands(self) -> bool:
        """Obey what has arrived; wait for something while idle. False when it is time to end."""
        for message in self._link.receive(block=not self._handles):
            match message:
                case {"add": number, "ids": ids, "config": config}:
                    self._add(number, ids, config)
                case {"cancel": number}:
                    if (handle := self._handles.get(number)) is not None:
                        handle.cancel()
                case {"stop": _}:
                    return False
        return True

    def _add(self, number: int, ids: list[int], config: dict[str, Any]) -> None:
        try:
            tensor = openvino.Tensor(np.array([ids], dtype=np.int64))  # type: ignore[attr-defined]
            self._handles[number] = self._pipeline.add_request(number, tensor, _generation_config(config))
        except (RuntimeError, ValueError, TypeError) as error:
            self._link.send({"news": [[number, [], "refused", str(error)]]})

    def _step(self) -> None:
        """One decoding step of everything. A pipeline that throws is of no further use: build it anew."""
        try:
            self._pipeline.step()
        except RuntimeError as error:
            self._rebuild(str(error))

    def _rebuild(self, reason: str) -> None:
        now = time.monotonic()
        self._rebuilds.append(now)
        while self._rebuilds[0] < now - REBUILDS_WINDOW_S:
            self._rebuilds.popleft()
        if len(self._rebuilds) > REBUILDS_MAX:
            raise RuntimeError(
                f"the pipeline broke {len(self._rebuilds)} times in {REBUILDS_WINDOW_S} s: {reason}"
            )
        self._handles.clear()
        self._pipeline = None
        self._pipeline = self._load()
        self._link.send({"lost": reason.strip().splitlines()[-1] if reason.strip() else "unknown"})

    def _report(self) -> None:
        """New tokens of every generation, and the end of those that ended."""
        news: list[list[Any]] = []
        for number, handle in tuple(self._handles.items()):
            ids, end = _read(handle)
            if ids or end:
                news.append([number, ids, end, ""])
            if end:
                del self._handles[number]
        now = time.monotonic()
        if news or now >= self._silent_since + PULSE_S:
            self._link.send({"news": news})  # also without any: it tells that steps are made
            self._silent_since = now


def _read(handle: Any) -> tuple[list[int], str]:
    """New ids, and why it ended, empty while it goes on."""
    ids: list[int] = []
    end = ""
    status = handle.get_status()
    while status != genai.GenerationStatus.IGNORED and handle.can_read():
        for output in handle.read().values():
            ids += output.generated_ids
            end = ENDS.get(output.finish_reason, end)
    if not end and status != genai.GenerationStatus.RUNNING:
        end = "ignored"  # cancelled, or no room in the KV cache: the server knows which
    return ids, end


def _generation_config(given: dict[str, Any]) -> Any:
    """A generation's settings; only what is given differs from greedy decoding."""
    config = genai.GenerationConfig()
    for name, value in given.items():
        if name == "constraint":
            kinds = genai.StructuredOutputConfig
            config.structured_output_config = kinds(structural_tags_config=build(value, kinds))
        else:
            setattr(config, name, set(value) if name == "stop_token_ids" else value)
    return config


def main() -> int:
    """Started by the engine with an inherited socket; ends with it."""
    flags = argparse.ArgumentParser(description="internal: the OpenVINO engine's core process")
    flags.add_argument("--fd", type=int, required=True)
    flags.add_argument("--settings", required=True)
    given = flags.parse_args()
    settings = orjson.loads(given.settings)
    link = CoreLink(socket.socket(fileno=given.fd))
    if not Path(settings["path"]).is_dir():
        sys.stderr.write(f"{settings['path']} is not a directory\n")
        return 1
    try:
        Core(settings, link).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0  # the server is gone, and so are its generations
    return 0


if __name__ == "__main__":
    sys.exit(main())
