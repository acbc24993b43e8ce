"""The engine server's own Prometheus metrics, `heavy_engine:*`, one registry per server."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from workers.engines.api.generation import Finished, Load

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class EngineMetrics:
    """Counters are fed as generations end, gauges are set when they are read."""

    def __init__(self, engine: str, model: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"engine": engine, "model_name": model}
        self._requests = self._counter("num_requests_total", "Generations accepted.")
        self._aborted = self._counter(
            "num_aborted_requests_total", "Generations aborted, for whatever reason."
        )
        self._failed = self._counter("num_failed_requests_total", "Generations the engine could not finish.")
        self._refused = self._counter(
            "num_refused_requests_total", "Requests refused, by status.", ("status",)
        )
        self._prompt = self._counter("prompt_tokens_total", "Prompt tokens, cached ones included.")
        self._cached = self._counter("cached_tokens_total", "Prompt tokens served from the prefix cache.")
        self._generated = self._counter("generation_tokens_total", "Tokens generated.")
        self._first = self._histogram("time_to_first_token_seconds", "From acceptance to the first event.")
        self._whole = self._histogram("e2e_request_latency_seconds", "From acceptance to the end.")
        names = (
            "num_running_reqs",
            "num_queue_reqs",
            "num_used_tokens",
            "max_total_num_tokens",
            "token_usage",
        )
        self._gauges = {
            name: Gauge(f"heavy_engine:{name}", f"{name} now.", tuple(self._labels), registry=self.registry)
            for name in (*names, "gen_throughput", "cache_hit_rate")
        }
        for counter in (
            self._requests,
            self._aborted,
            self._failed,
            self._prompt,
            self._cached,
            self._generated,
        ):
            counter.labels(**self._labels)

    def _counter(self, name: str, text: str, more: Iterable[str] = ()) -> Counter:
        return Counter(f"heavy_engine:{name}", text, (*self._labels, *more), registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"heavy_engine:{name}", text, tuple(self._labels), registry=self.registry, buckets=_SECONDS
        )

    def accepted(self) -> None:
        """A generation was queued."""
        self._requests.labels(**self._labels).inc()

    def refused(self, status: int) -> None:
        """A request was turned away with this status."""
        self._refused.labels(**self._labels, status=str(status)).inc()

    def first_event(self, seconds: float) -> None:
        """The first delta of a generation left."""
        self._first.labels(**self._labels).observe(seconds)

    def finished(self, event: Finished, seconds: float) -> None:
        """A generation ended in order, aborted ones included."""
        self._prompt.labels(**self._labels).inc(event.usage.prompt)
        self._cached.labels(**self._labels).inc(event.usage.cached)
        self._generated.labels(**self._labels).inc(event.usage.completion)
        self._whole.labels(**self._labels).observe(seconds)
        if event.reason == "abort":
            self._aborted.labels(**self._labels).inc()

    def failed(self) -> None:
        """A generation broke."""
        self._failed.labels(**self._labels).inc()

    def exposition(self, load: Load) -> bytes:
        """The text Prometheus scrapes."""
        values = {
            "num_running_reqs": load.running,
            "num_queue_reqs": load.waiting,
            "num_used_tokens": load.tokens,
            "max_total_num_tokens": load.tokens_max,
            "token_usage": load.tokens / load.tokens_max if load.tokens_max else 0.0,
            "gen_throughput": load.tokens_per_s,
            "cache_hit_rate": load.cache_hit_rate,
        }
        for name, value in values.items():
            self._gauges[name].labels(**self._labels).set(value)
        return generate_latest(self.registry)
