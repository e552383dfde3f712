"""Webhooks to receivers that are away: names that are not resolved, addresses that do not answer, failures in a row."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ownchat.serve import webhooks
from ownchat.serve.settings import Settings
from ownchat.serve.webhooks import Webhooks

WAIT_SECONDS = 60.0
SLOW = "slow.example"
NONE: Any = None  # of what a sender that is only asked to send does not need


class Receiver(ThreadingHTTPServer):
    """Counts what came; ``plan``: the statuses of the next answers, 204 when it is empty."""

    daemon_threads = True

    def __init__(self) -> None:
        self.came: list[str] = []
        self.plan: list[int] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append(self.headers["webhook-id"])
        self.send_response(self.server.plan.pop(0) if self.server.plan else 204)
        self.end_headers()


class Names:
    """A resolver that is asked for :data:`SLOW` and has no answer until ``release``: then ``found``."""

    def __init__(self) -> None:
        self.asked, self.release, self.real = 0, threading.Event(), socket.getaddrinfo
        self.found: list[tuple[str, int]] = []

    def __call__(self, host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        if host != SLOW:
            return self.real(host, port, *arguments, **more)
        self.asked += 1
        self.release.wait(WAIT_SECONDS)
        places = self.found or [("127.0.0.1", port)]
        return [entry for place in places for entry in self.real(*place, type=socket.SOCK_STREAM)]


@pytest.fixture
def receivers() -> Iterator[tuple[Receiver, Receiver]]:
    pair = Receiver(), Receiver()
    yield pair
    for one in pair:
        one.shutdown()
        one.server_close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.release.set()


@pytest.fixture
def sending(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Webhooks, Any]]:
    """A sender to these addresses on a real database, that has noted them, and its services."""
    monkeypatch.delenv(webhooks.VARIABLE, raising=False)
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.05)
    services = serving().services

    def made(*urls: str) -> tuple[Webhooks, Any]:
        settings = Settings(home=services.settings.home, webhooks=urls)
        sender = Webhooks(services.database, settings, services.metrics, lambda: True)
        sender._note()
        return sender, services

    return made


def until(seen: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.02)


def told(services: Any, number: int) -> None:
    """So many jobs have failed."""
    with services.database.begin() as connection:
        for at in range(number):
            webhooks.record_in(connection, f"ftjob-{at}", "failed")


def counted(services: Any, outcome: str) -> float:
    return services.metrics.registry.get_sample_value("ownchat_webhooks_total", {"outcome": outcome}) or 0.0


def test_a_name_that_is_not_resolved_holds_up_no_other(
    sending: Callable[..., Any],
    receivers: tuple[Receiver, Receiver],
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "DELIVERY_SECONDS", 0.5)
    monkeypatch.setattr(webhooks, "FIRST_PAUSE", 0.1)
    away, good = receivers
    sender, services = sending(away.url(SLOW), good.url())
    told(services, 2)
    sender.start()
    until(lambda: counted(services, "failed") >= 2)
    until(lambda: counted(services, "delivered") == 2)
    assert len(good.came) == 2 and away.came == []
    assert names.asked == 1, "each attempt waits for the same thread"
    names.release.set()
    until(lambda: counted(services, "delivered") == 4)
    assert sorted(away.came) == sorted(good.came)
    sender.close()


def test_a_server_ends_while_a_name_is_resolved(tmp_path: Path, names: Names) -> None:
    sender = Webhooks(NONE, Settings(home=tmp_path), NONE, lambda: True)
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(sender._send("a", f"http://{SLOW}/", b"{}", {})))
    thread.start()
    until(lambda: names.asked)
    sender.close()
    thread.join(webhooks.DELIVERY_SECONDS / 2)
    assert said == ["the server ends"] and not names.release.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue of connections is an answer")
def test_an_address_that_never_answers_leaves_time_for_the_next(
    tmp_path: Path, receivers: tuple[Receiver, Receiver], names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "DELIVERY_SECONDS", 3.0)
    good = receivers[0]
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(full.getsockname())
    names.release.set()
    sender = Webhooks(NONE, Settings(home=tmp_path), NONE, lambda: True)
    headers = webhooks.signed("whsec_" + "A" * 32, "evt_1", b"{}", 1)
    names.found = [full.getsockname(), ("127.0.0.1", good.server_port)]
    assert sender._send("a", f"http://{SLOW}/", b"{}", headers) is None and good.came == ["evt_1"]

    names.found = [full.getsockname()] * 5
    assert sender._send("a", f"http://{SLOW}/", b"{}", headers) == "TimeoutError"

    monkeypatch.setattr(webhooks, "DELIVERY_SECONDS", 100.0)
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(sender._send("a", f"http://{SLOW}/", b"{}", headers)))
    thread.start()
    until(lambda: "a" in sender._open)
    sender.close()
    thread.join(10)
    assert len(said) == 1, "a server that ends does not wait for it"
    for one in (full, *waiting):
        one.close()


def test_a_receiver_that_fails_is_left_alone_for_longer_each_time(
    sending: Callable[..., Any], receivers: tuple[Receiver, Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else is due to it; what arrives ends that."""
    monkeypatch.setattr(webhooks, "FIRST_PAUSE", 1000.0)
    receiver = receivers[0]
    sender, services = sending(receiver.url())
    told(services, 4)
    (id,), secret = sender._urls, webhooks.secret_of(services.settings.home)[0]

    def look() -> int:
        for _ in range(3):
            sender._round(id, receiver.url(), secret)
        return len(receiver.came)

    def rest_is_over() -> None:
        sender._rests[id] = sender._rests[id][0], 0.0

    receiver.plan = [500, 500]
    assert look() == 1 and sender._rests[id][0] == 1
    assert 0 < sender._rests[id][1] - time.monotonic() <= webhooks.LONGEST_REST, "though its own pause is longer"
    rest_is_over()
    assert look() == 2 and sender._rests[id][0] == 2
    rest_is_over()
    assert look() == 4 and sender._rests == {}, "the other two arrive; those that failed have their own pause"
    assert len(set(receiver.came)) == 4
