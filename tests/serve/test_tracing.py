"""Traces of requests, sent to a real collector over HTTP; nothing of them where nobody asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from ownchat.serve import tracing

if TYPE_CHECKING:
    from conftest import Gateway

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes what an exporter sends."""

    daemon_threads = True

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for path, body in self.bodies:
            assert path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                (name,) = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
                assert name == "ownchat"
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.server.bodies.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{made.server_port}")
    yield made
    made.shutdown()
    made.server_close()


def told(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_request_and_its_generation_are_spans_without_text(
    collector: Collector, serving: Callable[..., Gateway]
) -> None:
    for module in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"):
        pytest.importorskip(module, reason="the extra telemetry is not installed")
    gateway = serving()
    asked = gateway.chat("Where is the parcel of Anna Berg?")
    parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    whole = gateway.call("POST", "/v1/chat/completions", asked, headers=parent)
    streamed = gateway.call("POST", "/v1/chat/completions", asked | {"stream": True})
    bare = gateway.call("POST", "/v1/completions", {"model": "starter", "prompt": "Anna Berg", "max_tokens": 3})
    refused = gateway.call("POST", "/v1/chat/completions", asked | {"model": "nobody-of-that-name"})
    assert [one.status for one in (whole, streamed, bare, refused)] == [200, 200, 200, 404]
    gateway.server.should_exit = True
    gateway.thread.join(30)
    end = time.monotonic() + 30
    while len(spans := collector.spans()) < 7 and time.monotonic() < end:
        time.sleep(0.05)  # the server waits a short time only for what it sends
    requests = {told(span)["ownchat.request_id"]: span for span in spans if span.kind == 2}
    assert set(requests) == {one.headers["x-request-id"] for one in (whole, streamed, bare, refused)}
    children = {span.parent_span_id: span for span in spans if span.kind != 2}
    assert len(children) == 3 and len(spans) == 7
    for answer, name in ((whole, "chat"), (streamed, "chat"), (bare, "text_completion")):
        span = requests[answer.headers["x-request-id"]]
        child = children[span.span_id]
        assert child.name == f"{name} starter" and child.trace_id == span.trace_id
        assert span.start_time_unix_nano <= child.start_time_unix_nano < child.end_time_unix_nano
        assert child.end_time_unix_nano <= span.end_time_unix_nano
        assert told(span)["http.response.status_code"] == 200 and told(span)["http.route"].startswith("/v1/")
    usage = whole.json()["usage"]
    first = requests[whole.headers["x-request-id"]]
    counted = told(children[first.span_id])
    assert first.trace_id.hex() == TRACE and first.parent_span_id.hex() == PARENT
    assert counted["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert counted["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert counted["gen_ai.request.model"] == "starter" and counted["ownchat.waited_seconds"] >= 0
    assert told(requests[refused.headers["x-request-id"]])["error.type"] == "model_not_found"
    sent = b"".join(body for _, body in collector.bodies)
    for secret in (b"Berg", b"parcel", b"nobody-of", gateway.token.encode(), whole.json()["choices"][0]["message"][
            "content"].encode()):  # fmt: skip
        assert secret not in sent


def test_a_collector_that_is_gone_stops_no_answer(
    serving: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    gateway = serving()
    assert gateway.call("POST", "/v1/chat/completions", gateway.chat()).status == 200


@pytest.mark.parametrize(("variable", "value", "name"), [
    ("OTEL_SERVICE_NAME", "mine", "mine"), ("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=mine", "mine"),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b", "ownchat"),
])  # fmt: skip
def test_the_name_is_that_of_the_environment(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra telemetry is not installed")
    for one in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(variable, value)
    made = tracing.connect()
    assert made is not None and made._provider.resource.attributes["service.name"] == name
    made.close()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert tracing.connect() is None


def test_nothing_is_sent_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert tracing.connect() is None
