"""Traces by OpenTelemetry, where somebody wants them: a span for each request and one for what was generated in it.

Off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where they go and the extra ``telemetry`` is installed. A span has the
route, status, model, tokens and times, which the log has too, and no word of a question or an answer. Spans are made
when a request is over, so that nothing stands in its way.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Thread
from typing import Any

from ownchat import __version__
from ownchat.serve.logs import log

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FLUSH_SECONDS = 3.0  # at the end, for a collector that answers slowly or not at all


@dataclass(frozen=True)
class Generation:
    """What a model did for a request. Times are of ``time.monotonic()``; ``waited_seconds``: for a slot."""

    model: str
    operation: str  # chat or text_completion, as OpenTelemetry names them
    started: float
    ended: float
    waited_seconds: float
    prompt_tokens: int
    completion_tokens: int


class Tracing:
    """Sends spans from a thread of its own; made by :func:`connect`."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("ownchat.serve", __version__)

    def request(
        self, fields: Mapping[str, Any], seconds: float, generation: Generation | None, headers: Mapping[str, str]
    ) -> None:
        """One request that is over; ``fields``: its line in the log. A ``traceparent`` header makes it part of a trace
        of the client."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        now, beginning = time.monotonic(), time.time_ns()

        def at(moment: float) -> int:
            return beginning - int((now - moment) * 1e9)

        told = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        attributes = {
            "http.request.method": fields["method"], "http.route": fields["route"],
            "http.response.status_code": fields["status"], "ownchat.request_id": fields["request_id"],
            "ownchat.key": fields["key"], "error.type": fields.get("code"),
        }  # fmt: skip
        span = self._tracer.start_span(
            f"{fields['method']} {fields['route']}", context=TraceContextTextMapPropagator().extract(told),
            kind=trace.SpanKind.SERVER, start_time=at(now - seconds), attributes=_known(attributes),
        )  # fmt: skip
        if generation is not None:
            self._tracer.start_span(
                f"{generation.operation} {generation.model}", context=trace.set_span_in_context(span),
                start_time=at(generation.started), attributes=_of(generation),
            ).end(at(generation.ended))  # fmt: skip
        if fields["status"] >= 500:
            span.set_status(trace.StatusCode.ERROR)
        span.end(beginning)

    def close(self) -> None:
        """Send what is left, for a short time."""
        ending = Thread(target=self._provider.shutdown, daemon=True)  # it may wait for a collector that is gone
        ending.start()
        ending.join(FLUSH_SECONDS)


def _of(generation: Generation) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": generation.operation, "gen_ai.provider.name": "ownchat",
        "gen_ai.request.model": generation.model, "gen_ai.usage.input_tokens": generation.prompt_tokens,
        "gen_ai.usage.output_tokens": generation.completion_tokens,
        "ownchat.waited_seconds": generation.waited_seconds,
    }  # fmt: skip


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def connect() -> Tracing | None:
    """What sends traces to where the environment says; None: nowhere."""
    if not any(os.environ.get(name) for name in VARIABLES) or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log("no_traces", level=logging.WARNING, message="to send traces: pip install 'ownchat[telemetry]'")
        return None
    attributes = {"service.version": __version__}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named:
        attributes["service.name"] = "ownchat"  # what is given here wins over the environment
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
