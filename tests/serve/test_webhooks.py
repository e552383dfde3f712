"""Webhooks: a real receiver, the official SDK verifies; receivers that fail, servers that are killed."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from sqlalchemy import select, update
from typer.testing import CliRunner

from ownchat.cli import app
from ownchat.errors import ConfigError, UserError
from ownchat.serve import webhooks
from ownchat.serve.job_store import RUNNING, SUCCEEDED
from ownchat.serve.settings import Settings

WAIT_SECONDS = 60.0
ROW = {"messages": [{"role": "user", "content": "a secret question"}, {"role": "assistant", "content": "ok"}]}


class Receiver(ThreadingHTTPServer):
    """Keeps what came; ``plan``: the statuses of the next answers, or ``hang`` (no answer); 204 when it is empty."""

    daemon_threads = True

    def __init__(self, *, listens: bool = True) -> None:
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        self.plan: list[int | str] = []
        self.release = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.server_bind()  # the port is taken, and refuses who comes
        if listens:
            self.listen()

    def listen(self) -> None:
        self.server_activate()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=geheim"

    def close(self) -> None:
        self.release.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A sender that hung up is what some tests want."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        what = self.server.plan.pop(0) if self.server.plan else 204
        if what == "hang":
            self.server.release.wait(WAIT_SECONDS)
            return
        self.send_response(int(what))
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(webhooks.VARIABLE, raising=False)
    monkeypatch.setattr(webhooks, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.05)


def until(seen: Callable[[], Any]) -> Any:
    """What ``seen`` says, once it says something."""
    end = time.monotonic() + WAIT_SECONDS
    while not (found := seen()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def job_of(client: OpenAI, number_of_rows: int = 12) -> str:
    """A new job; with fewer than ten rows it fails as soon as it is looked at."""
    rows = "".join(json.dumps(ROW) + "\n" for _ in range(number_of_rows))
    file = client.files.create(file=("a.jsonl", rows.encode()), purpose="fine-tune")
    return client.fine_tuning.jobs.create(model="starter", training_file=file.id).id


def sdk(gateway: Any) -> OpenAI:
    return OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)


def opened(client: OpenAI, came: tuple[str, dict[str, str], bytes], secret: str) -> Any:
    """The event, as the SDK verifies and reads it."""
    return client.webhooks.unwrap(came[2], came[1], secret=secret)


def counted(gateway: Any, outcome: str) -> float:
    text = gateway.call("GET", "/metrics").body.decode()
    found = re.search(rf'^ownchat_webhooks_total{{outcome="{outcome}"}} (\S+)$', text, flags=re.M)
    return float(found[1]) if found else 0.0


def test_each_end_of_a_job_is_told_once_and_verifies(serving: Callable[..., Any], receiver: Receiver) -> None:
    gateway = serving(webhooks=(receiver.url,))
    client, state = sdk(gateway), gateway.app.state
    failed = job_of(client, 3)
    until(lambda: receiver.came)
    state.runner.tick = lambda: False
    cancelled, done = job_of(client), job_of(client)
    client.fine_tuning.jobs.cancel(cancelled)
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.cancel(cancelled)
    state.jobs.set(done, status=RUNNING)
    with pytest.raises(ZeroDivisionError), state.jobs.database.begin() as connection:
        assert state.jobs.finish_in(connection, done, tell=[], status=SUCCEEDED)
        _ = 1 / 0  # a server that dies before the commit: nothing is told
    for expected in (True, False):
        with state.jobs.database.begin() as connection:
            assert state.jobs.finish_in(connection, done, tell=[], status=SUCCEEDED) is expected

    until(lambda: counted(gateway, "delivered") == 3)
    home = gateway.services.settings.home
    kept = home / "server" / "webhook-secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    secret = kept.read_text().strip()
    events = [opened(client, came, secret) for came in receiver.came]
    assert {event.data.id: event.type for event in events} == {
        failed: "fine_tuning.job.failed",
        cancelled: "fine_tuning.job.cancelled",
        done: "fine_tuning.job.succeeded",
    }
    assert len(receiver.came) == 3
    for event, (path, headers, body) in zip(events, receiver.came, strict=True):
        assert path == "/hook?token=geheim" and headers["webhook-id"] == event.id and event.object == "event"
        assert abs(event.created_at - time.time()) < 300
        assert json.loads(body).keys() == {"id", "object", "created_at", "type", "data"} and b"secret" not in body
    other = webhooks.PREFIX + base64.b64encode(b"x" * 32).decode()
    with pytest.raises(InvalidWebhookSignatureError):
        opened(client, receiver.came[0], other)
    path, headers, body = receiver.came[0]
    with pytest.raises(InvalidWebhookSignatureError):
        opened(client, (path, headers, body.replace(b"failed", b"succeeded")), secret)
    assert b"ownchat_webhooks_waiting 0.0" in gateway.call("GET", "/metrics").body


def test_a_receiver_that_fails_is_told_again_with_the_same_id(serving: Callable[..., Any], receiver: Receiver) -> None:
    receiver.plan = [500, 302, 404]
    gateway = serving(webhooks=(receiver.url,))
    client = sdk(gateway)
    id = job_of(client, 3)
    until(lambda: counted(gateway, "delivered") == 1)
    assert counted(gateway, "failed") == 3
    secret = webhooks.secret_path(gateway.services.settings.home).read_text().strip()
    assert [opened(client, came, secret).data.id for came in receiver.came] == [id] * 4
    assert len({headers["webhook-id"] for _, headers, _ in receiver.came}) == 1
    assert {path for path, _, _ in receiver.came} == {"/hook?token=geheim"}, "a redirect is not followed"


def test_one_that_never_answers_holds_up_no_other(
    serving: Callable[..., Any], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "DELIVERY_SECONDS", 3.0)
    silent = Receiver()
    silent.plan = ["hang"]
    gateway = serving(webhooks=(silent.url, receiver.url))
    job_of(sdk(gateway), 3)
    until(lambda: len(receiver.came) >= 1 and len(silent.came) == 1)  # while the other one still hangs
    until(lambda: counted(gateway, "delivered") == 2)
    assert len(silent.came) >= 2 and counted(gateway, "failed") >= 1
    silent.close()


def test_after_a_day_it_is_given_up(serving: Callable[..., Any], receiver: Receiver) -> None:
    receiver.plan = [500] * 1000
    gateway = serving(webhooks=(receiver.url,))
    job_of(sdk(gateway), 3)
    until(lambda: counted(gateway, "failed") >= 1)
    with gateway.services.database.begin() as connection:
        connection.execute(update(webhooks._deliveries).values(created=int(time.time()) - 86_500, due=0.0))
    until(lambda: counted(gateway, "given_up") == 1)
    until(lambda: b"ownchat_webhooks_waiting 0.0" in gateway.call("GET", "/metrics").body)


def test_pauses_double_up_to_two_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for attempts, seconds in ((1, 5), (2, 10), (6, 160), (50, 7200)):
        assert 0.8 * seconds <= webhooks.pause_after(attempts) <= 1.2 * seconds


def test_only_addresses_of_now_are_told(serving: Callable[..., Any], receiver: Receiver) -> None:
    """One that is not wanted any more is not contacted, and a server without any notes nothing."""
    receiver.plan = [500] * 1000
    gateway = serving(webhooks=(receiver.url,))
    job_of(sdk(gateway), 3)
    until(lambda: counted(gateway, "failed") >= 1)
    gateway.server.should_exit = True
    gateway.thread.join(30)
    came, other = len(receiver.came), Receiver()
    gateway = serving(home=gateway.services.settings.home, webhooks=(other.url,))
    job_of(sdk(gateway), 3)
    until(lambda: counted(gateway, "delivered") == 1)
    assert len(receiver.came) == came and len(other.came) == 1, "the new one is told only of what ended since"
    other.close()
    with gateway.services.database.begin() as connection:  # it was taken away, more than a day ago
        connection.execute(update(webhooks._receivers).values(seen=time.time() - 86_500))
        webhooks.record_in(connection, "ftjob-late", "failed")
        late = webhooks._deliveries.c.job == "ftjob-late"
        assert connection.execute(select(webhooks._deliveries).where(late)).all() == []
    gateway.server.should_exit = True
    gateway.thread.join(30)
    gateway = serving(home=gateway.services.settings.home)
    with gateway.services.database.read() as connection:
        for table in (webhooks._receivers, webhooks._deliveries):
            assert connection.execute(select(table)).all() == []


@pytest.mark.parametrize(("url", "fault"), [("http://[::1]/", "gaierror"), ("http://a..example/", None)])
def test_addresses_that_are_hard_to_read_end_no_thread(tmp_path: Path, url: str, fault: str | None) -> None:
    """Numbers of IPv6 without a port are no name and port; a name that no server can have is a failed attempt."""
    none: Any = None
    sender = webhooks.Webhooks(none, Settings(home=tmp_path), none, lambda: True)
    said = sender._send("a", url, b"{}", {})
    assert said is not None and said != fault


def started(home: Path, *arguments: str) -> tuple[subprocess.Popen[str], str, list[str]]:
    """``ownchat serve`` as a process, its URL, and what it printed until it served."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ownchat", "serve", "--port", "0", "--engine", "hf", "--threads", "1", *arguments],
        env={**os.environ, "OWNCHAT_HOME": str(home), "OWNCHAT_API_KEY": "k" * 32},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    printed: list[str] = []
    while not (printed and printed[-1].startswith("ownchat serves ")):
        line = process.stdout.readline()
        assert line, printed
        printed.append(line)
    return process, printed[-1].split()[2], printed


def test_a_server_that_is_killed_tells_it_when_it_is_back(serve_home: Path, tmp_path: Path) -> None:
    home = shutil.copytree(serve_home, tmp_path / "home")
    receiver = Receiver(listens=False)
    address = receiver.url
    process, url, printed = started(home, "--webhook", address)
    try:
        (shown,) = [line.split()[-1] for line in printed if line.startswith("secret of the webhooks")]
        assert "webhooks go to 127.0.0.1\n" in printed and "geheim" not in "".join(printed)
        client = OpenAI(base_url=url, api_key="k" * 32, max_retries=0)
        id = job_of(client, 3)
        until(lambda: client.fine_tuning.jobs.retrieve(id).status == "failed")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert b"geheim" not in (home / "server" / "server.db").read_bytes()
    receiver.listen()
    process, _, printed = started(home, "--webhook", address)
    try:
        until(lambda: receiver.came)
        event = opened(client, receiver.came[0], shown)
        assert (event.type, event.data.id) == ("fine_tuning.job.failed", id)
        assert shown not in "".join(printed), "it is shown once"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        receiver.close()


@pytest.mark.parametrize(
    "url", ["ftp://a.example/geheim", "a.example/geheim", "http://", "http://u:geheim@a.example/", "http://a:99999/",
            "http://a.example/geheim now", "http://a.example/#geheim", "http://a.example/\ngeheim",
            "http://a..example/geheim", f"http://{'a' * 64}.example/geheim"],
)  # fmt: skip
def test_an_address_that_cannot_be_is_said(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="--webhook") as refused:
        Settings(home=tmp_path, webhooks=(url,))
    assert "geheim" not in str(refused.value) and "What to do" in str(refused.value)


def test_addresses_of_the_environment_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    monkeypatch.setenv("OWNCHAT_WEBHOOKS", "https://good.example/geheim ftp://bad.example/geheim")
    refused = CliRunner().invoke(app, ["serve"]).exception
    assert isinstance(refused, ConfigError) and "--webhook bad.example" in str(refused)


@pytest.mark.parametrize("secret", ["geheim", "whsec_geheim", "whsec_" + base64.b64encode(b"short").decode()])
def test_a_secret_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv(webhooks.VARIABLE, secret)
    with pytest.raises(UserError, match=webhooks.VARIABLE) as refused:
        webhooks.secret_of(tmp_path)
    assert secret not in str(refused.value)
    good = webhooks.PREFIX + base64.b64encode(b"x" * 32).decode()
    monkeypatch.setenv(webhooks.VARIABLE, good)
    assert webhooks.secret_of(tmp_path) == (good, False) and not webhooks.secret_path(tmp_path).exists()
