"""Metrics for Prometheus: queue and batch size, token latencies, use of the cache.

Several processes write their values to files in one directory, and each of them reports the sums of all
(prometheus_client's multiprocess mode, which PROMETHEUS_MULTIPROC_DIR turns on).
"""

import os
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from bluejay.infer.engine import Counters, Engine

MULTIPROCESS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
FIRST_TOKEN_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)
INTER_TOKEN_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The metrics of one process. Those of an engine have a label for the model where `several` are served."""

    def __init__(self, several: bool = False) -> None:
        self.registry = registry = CollectorRegistry()
        self.several = several
        model = ("model",) if several else ()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"bluejay_{name}", text, (*labels, *model), registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"bluejay_{name}", text, model, registry=registry, multiprocess_mode="livesum")

        help = "HTTP requests by path and status"
        self.requests = Counter("bluejay_requests", help, ("path", "status"), registry=registry)
        self.tokens = counter("tokens", "Tokens: prompt (computed), reused (found in the cache), generated", "kind")
        self.guesses = counter("guessed_tokens", "Tokens computed speculatively, and whether they were drawn", "drawn")
        self.steps = counter("steps", "Steps of the engine; generated tokens per step is the effective batch size")
        self.waiting = gauge("prompts_waiting", "Prompts in the queue")
        self.running = gauge("samples_running", "Samples that run now: the batch size")
        self.places = gauge("samples_limit", "Samples that can run at a time")
        self.pages_held = gauge("cache_pages_held", "Pages of the key-value cache that running samples hold")
        self.pages_kept = gauge(
            "cache_pages_kept", "Unused pages whose content is kept in case their text is requested again"
        )
        self.pages = gauge("cache_pages_limit", "All pages of the key-value cache")
        help = "Seconds from queueing a request to its first token"
        self.first_token = Histogram(
            "bluejay_first_token_seconds", help, model, registry=registry, buckets=FIRST_TOKEN_BUCKETS
        )
        help = "Seconds from one token of a sample to the next"
        self.inter_token = Histogram(
            "bluejay_inter_token_seconds", help, model, registry=registry, buckets=INTER_TOKEN_BUCKETS
        )
        if several:
            self.loads = counter("model_loads", "Times that the model was loaded")
            self.model_bytes = gauge("model_bytes", "Memory that is set aside for the model, 0 while it is not loaded")

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        if MULTIPROCESS_DIRECTORY not in os.environ:
            return generate_latest(self.registry)
        all_processes = CollectorRegistry()
        MultiProcessCollector(all_processes)
        return generate_latest(all_processes)


class EngineMetrics:
    """The metrics of the engine of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.labels = labels = {"model": model} if metrics.several else {}

        def own(family: Any) -> Any:
            return family.labels(**labels) if labels else family

        self.tokens, self.guesses = metrics.tokens, metrics.guesses
        self.steps, self.waiting, self.running = own(metrics.steps), own(metrics.waiting), own(metrics.running)
        self.places, self.pages = own(metrics.places), own(metrics.pages)
        self.pages_held, self.pages_kept = own(metrics.pages_held), own(metrics.pages_kept)
        self.first_token, self.inter_token = own(metrics.first_token), own(metrics.inter_token)
        self.seen = Counters()

    def clear(self) -> None:
        """Set the gauges to zero: the engine is gone. What it has counted stays."""
        for gauge in (self.waiting, self.running, self.places, self.pages, self.pages_held, self.pages_kept):
            gauge.set(0)

    def observe(self, engine: Engine) -> None:
        """Update the gauges from an engine, and the counters by what it has done since the last call."""
        self.waiting.set(len(engine.waiting))
        self.running.set(len(engine.running))
        self.places.set(engine.max_sequences)
        pool = engine.pool
        self.pages_held.set(pool.n_held)
        self.pages_kept.set(len(pool.evictable))
        self.pages.set(pool.n_pages)
        now = Counters(**asdict(engine.counters))
        if now.steps < self.seen.steps:  # a new engine after a failure
            self.seen = Counters()
        self.steps.inc(now.steps - self.seen.steps)
        for kind in ("prompt", "reused", "generated"):
            self.tokens.labels(kind=kind, **self.labels).inc(
                getattr(now, f"{kind}_tokens") - getattr(self.seen, f"{kind}_tokens")
            )
        drawn = now.accepted_tokens - self.seen.accepted_tokens
        self.guesses.labels(drawn="yes", **self.labels).inc(drawn)
        self.guesses.labels(drawn="no", **self.labels).inc(now.drafted_tokens - self.seen.drafted_tokens - drawn)
        self.seen = now


def forget_process(pid: int | None) -> None:
    """Remove the gauges of a process that has ended; its counters stay in the sums."""
    mark_process_dead(pid, os.environ[MULTIPROCESS_DIRECTORY])
