"""What people send to a server that listens: bodies and heads that are none, and names that would be paths.

Held as those of test_attacks.py are, also under ``python -O`` (test_optimised.py).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Gateway

# ---------------------------------------------------------------------------------------------------- bodies


def test_a_body_too_large_is_refused_before_it_is_sent(gateway: Gateway) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {gateway.token}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(f"{head}content-type: application/json\r\ncontent-length: 99999999999\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_counted(gateway: Gateway) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {gateway.token}\r\n"
    head += "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = b""
        with suppress(ConnectionError):  # it hangs up; a server that goes on reading ends in a timeout, which fails
            for _ in range(200):  # 13 MB
                connection.sendall(chunk)
        with suppress(ConnectionError):
            answer = connection.recv(100)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")
    assert gateway.call("GET", "/v1/models").status == 200


def test_a_body_that_never_ends_is_given_up(serving: Callable[..., Gateway]) -> None:
    gateway = serving(upload_seconds=0.2)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {gateway.token}\r\n"
    answer = gateway.raw(f"{head}content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{".encode())
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"code":"timeout"' in answer


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"", b"nothing", b"\xff\xfe", b'"text"', b"[]", b"null", b"7",
        b'{"model": "starter", "model": "other"}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"temperature": NaN}', b'{"temperature": -Infinity}', b'{"temperature": 1e999}', b"9" * 5000,
        b'{"seed": ' + b"9" * 6000 + b"}",
        b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"model": "starter", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"\\udfff": 1}',
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)  # fmt: skip
def test_json_that_is_none_or_strange_is_400(gateway: Gateway, body: bytes) -> None:
    answer = gateway.call("POST", "/v1/chat/completions", body)
    assert answer.status == 400 and answer.error["type"] == "invalid_request_error"
    assert answer.error["code"] == "invalid_json", "refused for what it is, not for what else may be wrong"


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses", "embeddings", "moderations"])
@pytest.mark.parametrize("value", [None, 7, 0.5, True, "", [], {}, [None], [[]], [{}], {"a": {}}], ids=repr)
def test_a_field_of_another_kind_is_400_and_no_fault(gateway: Gateway, path: str, value: Any) -> None:
    whole = {"model": "starter", "messages": [{"role": "user", "content": "a"}], "prompt": "a", "input": "a"}
    for field in ("messages", "prompt", "input", "stop", "tools", "logit_bias", "response_format", "text", "metadata"):
        answer = gateway.call("POST", f"/v1/{path}", {**whole, field: value, "max_tokens": 1, "max_output_tokens": 1})
        assert answer.status in (200, 400), (field, answer.body)


def test_a_whole_character_of_two_halves_is_taken(gateway: Gateway) -> None:
    body = json.dumps(gateway.chat("Grüße 🙂"), ensure_ascii=True).encode()
    assert rb"\ud83d" in body
    assert gateway.call("POST", "/v1/chat/completions", body).status == 200


def test_a_compressed_body_is_refused(gateway: Gateway) -> None:
    answer = gateway.call("POST", "/v1/chat/completions", b"x" * 50, headers={"content-encoding": "gzip"})
    assert answer.status == 415


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n" + b"x-a: " + b"y" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"nothing like HTTP\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST /v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    ],
    ids=["long header", "long path", "no HTTP", "two hosts", "two lengths", "negative length"],
)
def test_a_broken_head_is_400_in_the_shape(gateway: Gateway, data: bytes) -> None:
    head, _, body = gateway.raw(data).partition(b"\r\n\r\n")
    assert head[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 431 ") and set(json.loads(body)["error"]) == {
        "message",
        "type",
        "param",
        "code",
    }


def test_a_large_strange_body_keeps_nobody_waiting(gateway: Gateway) -> None:
    """Nothing quadratic: a megabyte of each kind of structure is refused, and others go on."""
    for unit in (b'"a",', b"[],", b'{"a":1},', b'"\\"",'):
        body = b"[" + unit * (1_000_000 // len(unit)) + b"1]"
        assert gateway.call("POST", "/v1/chat/completions", body).status == 400
    assert gateway.call("GET", "/healthz", token=None).json() == {"status": "ok"}


def test_a_head_that_never_comes_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownchat.serve import server

    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: local")
        assert connection.recv(100) == b""  # else the socket's patience would end first
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:  # between two requests
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(5000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost")
        deadline = time.monotonic() + 15
        while connection.recv(5000):
            assert time.monotonic() < deadline


# ---------------------------------------------------------------------------------------------- names of models


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/", "\\\\host\\share",
        "%2e%2e%2f", "starter\x00", "a" * 10_000, "st\u0430rter", "ft:starter:eve::x", "starter/../starter", ".", "..",
        "", " starter", "starter\n", "$(id)", "starter:ckpt-step-1",
    ],
)  # fmt: skip
def test_a_name_is_no_path(gateway: Gateway, name: str) -> None:
    answer = gateway.call("POST", "/v1/chat/completions", gateway.chat(model=name))
    assert answer.status in (400, 404), answer.body
    assert len(answer.error["message"]) < 2000 and "/etc/" not in answer.error["message"].replace(name, "")
    assert str(gateway.services.settings.home) not in answer.body.decode()


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "%00", "%2e%2e", "a%0d%0ax-evil: 1", "%ff", "a" * 5000])
def test_a_name_in_an_address_is_no_path(gateway: Gateway, path: str) -> None:
    answer = gateway.call("GET", f"/v1/models/{path.replace(' ', '%20')}")
    assert answer.status in (400, 404) and "x-evil" not in answer.headers and answer.error["message"]
