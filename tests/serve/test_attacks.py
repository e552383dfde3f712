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


def test_health_is_open_and_tells_nothing_else(gateway: Gateway) -> None:
    for path in OPEN:
        answer = gateway.call("GET", path, token=None, headers={"host": "10.0.0.7:8000"})
        assert answer.status == 200 and answer.json() == {"status": "ok"}
        assert gateway.call("GET", path, token=None, headers={"host": "probe.cluster.local"}).status == 200
        assert gateway.call("POST", path, {}, token=None).status == 405
