"""What people try on a server that listens: each is held, with OpenAI's shape of an error and no word too many.

These also run under ``python -O`` (test_optimised.py): nothing that protects is an ``assert``.
"""

from __future__ import annotations

import io
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.routing import APIRoute

from ownchat.serve import logs

if TYPE_CHECKING:
    from conftest import Gateway

OPEN = {"/healthz", "/readyz"}
SECRET = "my password is Kolibri-42"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the server logs in a test."""
    stream = io.StringIO()
    logs.set_up(stream)
    yield stream
    logs.set_up(io.StringIO())


def paths(gateway: Gateway) -> list[tuple[str, str]]:
    """Method and path of every route, also those that FastAPI adds."""
    found = []

    def walk(routes: Any) -> None:
        for route in routes:
            if hasattr(route, "path") and getattr(route, "methods", None):
                found.extend((method, re.sub(r"{[^}]*}", "x", route.path)) for method in route.methods)
            walk(getattr(getattr(route, "original_router", None), "routes", ()))  # of what FastAPI includes

    walk(gateway.app.routes)
    found += [(method, path) for path in gateway.app.openapi()["paths"] for method in ("GET", "POST", "DELETE")]
    return [(method, re.sub(r"{[^}]*}", "x", path)) for method, path in found]


# --------------------------------------------------------------------------------------------------- who asks


def test_every_route_needs_a_key(gateway: Gateway) -> None:
    known = paths(gateway)
    assert {"/v1/chat/completions", "/v1/models", "/metrics", "/openapi.json"} <= {path for _, path in known}
    extra = [("GET", path) for path in ("/", "/docs", "/redoc", "/v1", "/v1/nothing", "/healthz/", "//healthz")]
    for method, path in [*known, *extra]:
        if path in OPEN:
            continue
        answer = gateway.call(method, path, token=None)
        assert answer.status == 401, (method, path)
        if method != "HEAD":
            assert answer.error["type"] == "authentication_error"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_every_route_with_a_scope_refuses_a_key_without_it(gateway: Gateway) -> None:
    """A key for nothing but figures opens nothing but figures."""
    token = gateway.key("metrics")
    routes = [route for route in gateway.app.routes if isinstance(route, APIRoute)]
    assert gateway.call("GET", "/metrics", token=token).status == 200
    for method, path in paths(gateway):
        if path.startswith("/v1/") and method in ("GET", "POST", "DELETE"):
            answer = gateway.call(method, path, {} if method == "POST" else None, token=token)
            assert answer.status in (403, 404, 405), (method, path, answer.status, len(routes))
            if answer.status == 403:
                assert answer.error["code"] == "insufficient_permissions"


def test_only_an_administrator_deletes_a_model(gateway: Gateway) -> None:
    assert gateway.call("DELETE", "/v1/models/starter", token=gateway.key("infer")).status == 403
    assert gateway.call("GET", "/v1/models/starter").status == 200


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Token {}", "Bearer {}x", "Bearer x{}", "Bearer " + "x" * 9000]
)
def test_other_ways_to_give_a_key_are_refused(gateway: Gateway, value: str) -> None:
    headers = {"authorization": value.format(gateway.token)}
    assert gateway.call("GET", "/v1/models", token=None, headers=headers).status == 401


def test_the_schemes_name_is_of_any_case(gateway: Gateway) -> None:
    headers = {"authorization": f"bearer {gateway.token}"}
    assert gateway.call("GET", "/v1/models", token=None, headers=headers).status == 200


def test_a_key_in_the_address_is_no_key(gateway: Gateway, log: io.StringIO) -> None:
    for name in ("key", "api_key", "api-key", "token", "access_token"):
        assert gateway.call("GET", f"/v1/models?{name}={gateway.token}", token=None).status == 401
    assert gateway.token not in log.getvalue()


def test_two_keys_are_none(gateway: Gateway) -> None:
    lines = [
        b"GET /v1/models HTTP/1.1", b"host: localhost", f"authorization: Bearer {gateway.token}".encode(),
        b"authorization: Bearer other", b"connection: close",
    ]  # fmt: skip
    assert b" 401 " in gateway.raw(b"\r\n".join(lines) + b"\r\n\r\n").split(b"\r\n")[0]


def test_a_key_of_strange_bytes_is_refused(gateway: Gateway) -> None:
    lines = [b"GET /v1/models HTTP/1.1", b"host: localhost", b"authorization: Bearer sk-own-\xff\xfe\xc3\xa4"]
    answer = gateway.raw(b"\r\n".join([*lines, b"connection: close"]) + b"\r\n\r\n")
    assert b" 401 " in answer.split(b"\r\n")[0]


def test_nobody_without_a_key_has_a_body_read(gateway: Gateway) -> None:
    """The answer comes though the body never does."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(head + b"content-length: 1000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


# -------------------------------------------------------------------------------------------------- browsers


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "", "localhost@evil", "[::1"],
)
def test_a_name_that_was_pointed_here_is_refused(gateway: Gateway, host: str) -> None:
    answer = gateway.call("GET", "/v1/models", headers={"host": host})
    assert answer.status == 403 and answer.error["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3"]
)
def test_names_of_this_machine_are_taken(gateway: Gateway, host: str) -> None:
    assert gateway.call("GET", "/v1/models", headers={"host": host}).status == 200


def test_names_that_were_allowed_are_taken(serving: Callable[..., Gateway]) -> None:
    gateway = serving(allowed_hosts=("chat.example.org", "*.inner.example"))
    for host, status in {
        "chat.example.org": 200, "CHAT.example.org:443": 200, "a.inner.example": 200, "inner.example": 403,
        "evil-inner.example": 403, "chat.example.org.evil": 403,
    }.items():  # fmt: skip
        assert gateway.call("GET", "/v1/models", headers={"host": host}).status == status, host


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
def test_no_page_may_ask_unless_it_is_listed(gateway: Gateway, origin: str) -> None:
    before = {"origin": origin, "access-control-request-method": "POST"}
    asked = gateway.call("OPTIONS", "/v1/chat/completions", token=None, headers=before)
    told = gateway.call("GET", "/v1/models", headers={"origin": origin})
    for answer in (asked, told):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert asked.status == 401


def test_a_listed_page_may_ask_and_no_other(serving: Callable[..., Gateway]) -> None:
    gateway = serving(cors_origins=("https://chat.example.org",))
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    good = gateway.call("OPTIONS", "/v1/models", token=None, headers={"origin": "https://chat.example.org", **asking})
    assert good.status == 200 and good.headers["access-control-allow-origin"] == "https://chat.example.org"
    assert "access-control-allow-credentials" not in good.headers
    bad = gateway.call("OPTIONS", "/v1/models", token=None, headers={"origin": "https://evil.example", **asking})
    assert "access-control-allow-origin" not in bad.headers
    refused = gateway.call("GET", "/v1/models", token=None, headers={"origin": "https://chat.example.org"})
    assert refused.status == 401 and refused.headers["access-control-allow-origin"] == "https://chat.example.org"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_what_a_form_elsewhere_can_send_is_refused(gateway: Gateway, kind: str) -> None:
    body = json.dumps(gateway.chat()).encode()
    answer = gateway.call("POST", "/v1/chat/completions", body, headers={"content-type": kind})
    assert answer.status == 415 and answer.error["code"] == "unsupported_media_type"


def test_every_answer_is_safe_to_show(gateway: Gateway) -> None:
    for answer in (
        gateway.call("GET", "/v1/models"),
        gateway.call("GET", "/<script>"),
        gateway.call("GET", "/healthz"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "json" in answer.headers["content-type"] and "server" not in answer.headers


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


# ------------------------------------------------------------------------------------- logs, figures and faults


def test_errors_have_one_shape_and_every_answer_an_id(gateway: Gateway) -> None:
    ids = set()
    for method, path, status in [("GET", "/v1/nothing", 404), ("PUT", "/v1/models", 405), ("POST", "/v1/models", 405)]:
        answer = gateway.call(method, path, {} if method == "POST" else None)
        assert answer.status == status and answer.error["message"]
        ids.add(answer.headers["x-request-id"])
    assert gateway.call("PUT", "/v1/chat/completions", {}).headers["allow"] == "GET, POST"
    assert gateway.call("POST", "/v1/models/starter", {}).headers["allow"] == "DELETE, GET"
    assert len(ids) == 3 and all(re.fullmatch(r"req_[0-9a-f]{32}", id) for id in ids)


def test_a_fault_of_ours_tells_nothing(gateway: Gateway, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(gateway.services.catalogue, "list", broken)
    answer = gateway.call("GET", "/v1/models")
    assert answer.status == 500 and answer.error["type"] == "server_error"
    assert "Kolibri" not in answer.body.decode() and "Traceback" not in answer.body.decode()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (fault,) = [line for line in lines if line["event"] == "fault"]
    assert fault["error"] == "RuntimeError" and fault["request_id"] == answer.headers["x-request-id"]
    assert "Kolibri" not in log.getvalue()


def test_logs_and_figures_hold_no_text_and_no_key(gateway: Gateway, log: io.StringIO) -> None:
    body = gateway.chat(SECRET, metadata={"note": SECRET}, user="Kolibri", stop=["Kolibri"])
    assert gateway.call("POST", "/v1/chat/completions", body, headers={"user-agent": SECRET}).status == 200
    gateway.call("POST", "/v1/chat/completions", {**body, "model": "Kolibri"})
    gateway.call("POST", "/v1/chat/completions", {**body, "temperature": "Kolibri"})
    gateway.call("GET", "/v1/Kolibri?Kolibri=Kolibri", headers={"x-request-id": "Kolibri"})
    figures = gateway.call("GET", "/metrics").body.decode()
    assert "ownchat_requests_total" in figures and len(log.getvalue().splitlines()) >= 4
    for text in (log.getvalue(), figures):
        assert "Kolibri" not in text and gateway.token not in text and gateway.token[10:30] not in text


def test_nobody_writes_lines_into_the_log(gateway: Gateway, log: io.StringIO) -> None:
    evil = "%0a%7b%22event%22:%22forged%22%7d%1b[31m"
    gateway.call("GET", f"/v1/models/{evil}")
    gateway.call("GET", f"/{evil}", headers={"user-agent": "\x1b[31mred"})
    gateway.call("POST", "/v1/chat/completions", gateway.chat(model='x\n{"event": "forged"}\x1b[31m'))
    for _ in range(100):  # a line follows its answer
        if log.getvalue().count("\n") >= 3:
            break
        time.sleep(0.05)
    lines = log.getvalue().splitlines()
    assert len(lines) == 3 and "\x1b" not in log.getvalue(), lines
    assert {json.loads(line)["event"] for line in lines} == {"request"}


def test_labels_do_not_grow_with_what_is_asked(gateway: Gateway) -> None:
    gateway.call("GET", "/v1/nothing-at-all")
    before = gateway.call("GET", "/metrics").body.count(b"\n")
    for number in range(20):
        gateway.call("GET", f"/v1/nothing-{number}")
        gateway.call("GET", f"/v1/models/nothing-{number}")
        gateway.call(f"GET{number}", "/v1/models")
        gateway.call("POST", "/v1/chat/completions", gateway.chat(model=f"nothing-{number}"))
    after = gateway.call("GET", "/metrics").body.count(b"\n")
    assert after - before < 100


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


def test_health_is_open_and_tells_nothing_else(gateway: Gateway) -> None:
    for path in OPEN:
        answer = gateway.call("GET", path, token=None, headers={"host": "10.0.0.7:8000"})
        assert answer.status == 200 and answer.json() == {"status": "ok"}
        assert gateway.call("GET", path, token=None, headers={"host": "probe.cluster.local"}).status == 200
        assert gateway.call("POST", path, {}, token=None).status == 405
