"""Metrics of the service in Prometheus' text form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from signatures.rows import Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServiceMetrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mllm3rec_requests", "Requests by path and HTTP status", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mllm3rec_request_seconds",
            "Seconds from request to answer",
            ["path"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self._registry,
        )
        self._answers = Counter(
            "mllm3rec_answers",
            "Answers by what made them (program, prior, nothing), and why not the program",
            ["by", "why"],
            registry=self._registry,
        )
        self._calls = Counter(
            "mllm3rec_calls", "Calls to language models, and stored answers", ["kind"], registry=self._registry
        )
        self._dollars = Counter("mllm3rec_dollars", "Dollars of these calls", registry=self._registry)
        self._reloads = Counter("mllm3rec_reloads", "New artifacts, taken or not", ["taken"], registry=self._registry)
        self.in_flight = Gauge("mllm3rec_requests_in_flight", "Requests under way", registry=self._registry)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one HTTP request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def answered(self, by: str, why: str | None = None) -> None:
        """Count one answer: `by` program, prior or nothing."""
        self._answers.labels(by, why or "").inc()

    def paid(self, usage: Usage) -> None:
        """Count the calls of a request, when the last of them has ended."""
        self._calls.labels("sent").inc(usage.calls)
        self._calls.labels("stored").inc(usage.cache_hits)
        self._dollars.inc(usage.usd or 0.0)

    def reloaded(self, taken: bool) -> None:
        """Count one reload."""
        self._reloads.labels(str(taken).lower()).inc()

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self._registry)
