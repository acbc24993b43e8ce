"""A real Prometheus that scrapes one server, and what it answers."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from workers.launch import free_port

from tests_support.parts import part

READY_WITHIN_S: Final = 60.0
SCRAPE_EVERY_S: Final = 1


class Prometheus:
    """Scrapes `target` (host:port) every second into `directory`; knows the rules of `rules`."""

    def __init__(self, target: str, directory: Path, rules: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._config = f"""
global: {{scrape_interval: {SCRAPE_EVERY_S}s, evaluation_interval: {SCRAPE_EVERY_S}s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: heavy
    static_configs: [{{targets: ["{target}"]}}]
"""

    def start(self) -> None:
        """Serve, and wait until it is ready."""
        config = self._directory / "prometheus.yml"
        config.write_text(self._config, encoding="utf-8")
        command = [
            *(part("prometheus/prometheus"), f"--config.file={config}"),
            *(
                f"--storage.tsdb.path={self._directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ),
            "--log.level=warn",
        ]
        log = (self._directory / "log").open("wb")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until_s = time.monotonic() + READY_WITHIN_S
        while not self._is_ready():
            said = (self._directory / "log").read_text(encoding="utf-8", errors="replace")
            assert self._process.poll() is None, f"Prometheus ended: {said}"
            assert time.monotonic() < until_s, f"Prometheus is not ready: {said}"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API. Fails with its own words when it refuses."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return orjson.loads(response.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def values(self, expr: str, at_s: float | None = None) -> list[float]:
        """What an expression gives now, or gave then, one value a series."""
        then = {} if at_s is None else {"time": str(at_s)}
        result = self.get("query", query=expr, **then)["result"]
        return [float(series["value"][1]) for series in result]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False
