"""A small server that speaks OpenAI's chat completions, well and badly, in a thread of the test."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class OpenAIServer(ThreadingHTTPServer):
    """``plan`` says what becomes of the next requests: a status, or ``drop`` (ends in the middle), ``nonsense``,
    ``html``, ``silent`` (begins, then nothing until ``release``), ``mute`` (nothing at all until then), ``filtered``,
    ``failing`` (an error in the stream), or the whole reply; 200 when it is empty. ``page``: what every GET answers,
    with its content type, in the place of the models. ``refuse``: parameters that are answered with 400. ``answer``:
    messages to a reply."""

    daemon_threads = True

    def __init__(self) -> None:
        self.plan: list[int | str | dict[str, Any]] = []
        self.page: tuple[bytes, str] | None = None
        self.refuse: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.models: list[str] = ["small", "large"]
        self.counts_tokens = True
        self.retry_after: str | None = "0.01"
        self.release, self.left = threading.Event(), threading.Event()
        self.answer: Callable[[list[dict[str, Any]]], str] = lambda messages: messages[-1]["content"].upper()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def close(self) -> None:
        self.release.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that hung up is what some tests want."""


class _Handler(BaseHTTPRequestHandler):
    server: OpenAIServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        if self.server.page is not None:
            return self._send(200, *self.server.page)
        listed = [{"id": name, "object": "model", "created": 1, "owned_by": "us"} for name in self.server.models]
        return self._json(200, {"object": "list", "data": listed})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["Authorization"])
        self.server.requests.append({"path": self.path, **body})
        what = self.server.plan.pop(0) if self.server.plan else 200
        if isinstance(what, int) and what != 200:
            words = "This model's maximum context length is 10 tokens" if what == 413 else "no"
            self._error(400 if what == 413 else what, words)
        elif found := next((name for name in self.server.refuse if name in body), None):
            self._error(400, f"Unsupported parameter: '{found}' is not supported. {self.server.refuse[found]}", found)
        elif isinstance(what, dict):
            self._json(200, what)
        elif what == "mute":
            self._wait()
        elif what == "html":
            self._send(200, b"<html>hello</html>", "text/html")
        elif what == "nonsense":
            self._json(200, {"hello": "this is another kind of server"})
        elif self.path.endswith("/completions") and "prompt" in body:
            self._echo(body)
        elif body.get("stream"):
            self._stream(body, what)
        elif what == "drop":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": "x", ')
            self.close_connection = True
        else:
            said = {"role": "assistant", "content": self.server.answer(body["messages"])}
            reason = "content_filter" if what == "filtered" else "stop"
            choice = {"index": 0, "message": said, "finish_reason": reason}
            self._json(200, {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
                             "choices": [choice], **self._usage(body, said["content"])})  # fmt: skip

    def _usage(self, body: dict[str, Any], text: str) -> dict[str, Any]:
        if not self.server.counts_tokens:
            return {}
        read = sum(len(turn["content"].split()) for turn in body["messages"])
        written = len(text.split())
        return {"usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}}

    def _stream(self, body: dict[str, Any], what: int | str | dict[str, Any]) -> None:
        text = self.server.answer(body["messages"])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pieces = text.split(" ")
        for number, piece in enumerate(pieces):
            self._event(body, {"content": piece if number == 0 else f" {piece}"})
            if what == "silent":
                self._wait()
                return
            if what == "drop":
                self.close_connection = True
                return
            if what == "failing":
                self._chunk('data: {"error": {"message": "out of memory", "type": "server_error"}}\n\n')
        limit = body.get("max_tokens", body.get("max_completion_tokens", 10**6))
        self._event(body, {}, finish="length" if limit < len(pieces) else "stop")
        if body.get("stream_options", {}).get("include_usage") and self.server.counts_tokens:
            self._event(body, None, **self._usage(body, text))
        self._chunk("data: [DONE]\n\n")
        self._chunk("")

    def _wait(self) -> None:
        """Until the test lets go, or the client hangs up."""
        self.connection.settimeout(0.05)
        while not self.server.release.is_set():
            try:
                if self.connection.recv(1) == b"":
                    break
            except TimeoutError:
                time.sleep(0.01)
            except OSError:
                break
        self.server.left.set()
        self.close_connection = True

    def _event(self, body: dict[str, Any], delta: Any, finish: str | None = None, **more: Any) -> None:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        event = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": choices}
        self._chunk(f"data: {json.dumps(event | more)}\n\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _echo(self, body: dict[str, Any]) -> None:
        """The prompt's tokens with log-probabilities, as vLLM gives them."""
        logprobs = [None, *(-float(id) for id in body["prompt"][1:]), -1.0]
        choice = {"index": 0, "text": "", "finish_reason": "length", "logprobs": {"token_logprobs": logprobs}}
        self._json(200, {"id": "x", "object": "text_completion", "created": 1, "model": "small", "choices": [choice]})

    def _error(self, status: int, words: str, param: str | None = None) -> None:
        self._json(status, {"error": {"message": words, "type": "x", "code": None, "param": param}})

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.server.retry_after is not None and status != 200:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(content)
