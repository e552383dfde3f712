"""Figures of a server for Prometheus. Labels come from short fixed lists: never from what a client wrote."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ownchat.serve.admission import Admission

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
MOST_MODELS = 200  # names of models that get a label of their own


class Metrics:
    """The counters of one server; each server has a registry of its own."""

    def __init__(self, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self._models: set[str] = set()
        self._requests = self._counter("requests", "answers to requests", "route", "method", "status")
        self._seconds = self._histogram("request_seconds", "from a request to the end of its answer", SECONDS, "route")
        self._tokens = self._counter("tokens", "tokens of prompts and of answers", "model", "kind")
        self._first = self._histogram("first_token_seconds", "until the first token, with the wait", SECONDS, "model")
        self._between = self._histogram("inter_token_seconds", "from token to token", TOKEN_SECONDS, "model")
        self._errors = self._counter("errors", "refusals and failures", "status", "code")
        self._finished = self._counter("answers", "answers by how they ended", "model", "finish_reason")
        self._filtered = self._counter("filtered", "answers that the policy held back", "rule")
        self._webhooks = self._counter("webhooks", "attempts to tell a receiver of webhooks", "outcome")
        self._waiting = Gauge("ownchat_webhooks_waiting", "webhooks that did not arrive yet", registry=self.registry)
        self._waiting_of: dict[str, int] = {}
        for name, text, attribute in (
            ("running", "answers that are being made", "running"),
            ("waiting", "requests in the queue", "waiting"),
            ("waiting_tokens", "tokens of the requests in the queue", "waiting_tokens"),
            ("draining", "1 while the server goes down", "draining"),
        ):
            gauge = Gauge(f"ownchat_{name}", text, registry=self.registry)
            gauge.set_function(lambda attribute=attribute: float(getattr(admission, attribute)))  # type: ignore[misc]

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; ``route`` is the route's template, not what was asked for."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def error(self, status: int, code: str | None) -> None:
        """A request was refused or failed; ``code`` is one of ours."""
        self._errors.labels(str(status), code or "none").inc()

    def answered(self, model: str, prompt_tokens: int, completion_tokens: int, finish_reason: str) -> None:
        """An answer is over, also one that nobody waited for (``cancelled``)."""
        model = self._known(model)
        self._tokens.labels(model, "prompt").inc(prompt_tokens)
        self._tokens.labels(model, "completion").inc(completion_tokens)
        self._finished.labels(model, finish_reason).inc()

    def first_token(self, model: str, seconds: float) -> None:
        """The first token came so long after the request."""
        self._first.labels(self._known(model)).observe(seconds)

    def next_token(self, model: str, seconds: float) -> None:
        """A token came so long after the one before."""
        self._between.labels(self._known(model)).observe(seconds)

    def filtered(self, rule: str, rules: Collection[str] = ()) -> None:
        """The policy's ``rule`` held an answer back; ``rules``: all there are, so that labels stay few."""
        self._filtered.labels(rule if not rules or rule in rules else OTHER).inc()

    def webhook(self, outcome: Literal["delivered", "failed", "given_up"]) -> None:
        """A receiver was told, was not, or will not be any more."""
        self._webhooks.labels(outcome).inc()

    def webhooks_waiting(self, receiver: str, count: int) -> None:
        """So many events wait for a receiver."""
        self._waiting_of[receiver] = count
        self._waiting.set(sum(self._waiting_of.values()))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _known(self, model: str) -> str:
        if model not in self._models and len(self._models) >= MOST_MODELS:
            return OTHER
        self._models.add(model)
        return model

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"ownchat_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"ownchat_{name}", text, labels, buckets=buckets, registry=self.registry)
