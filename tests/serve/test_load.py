"""More than there is room for, clients that vanish, and an end in the middle of work."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ownchat.serve.admission import Place

if TYPE_CHECKING:
    from conftest import Gateway


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Not a measurement: patience for a busy machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def post(body: dict[str, object], token: str, port: int) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:{port}\r\nauthorization: Bearer {token}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


@contextmanager
def streaming(gateway: Gateway, **more: object) -> Iterator[socket.socket]:
    """A client that has its first piece of an answer without an end."""
    body = gateway.chat(stream=True, **{"max_tokens": 50_000, **more})
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(post(body, gateway.token, gateway.port))
        received = b""
        while b'"content":"' not in received.replace(b'"content":""', b""):
            part = connection.recv(65536)
            assert part, received
            received += part
        yield connection


@pytest.fixture
def endless(serving: Callable[..., Gateway], endless_model: Path) -> Callable[..., Gateway]:
    return lambda **settings: serving(model=endless_model, **settings)


def test_what_there_is_no_room_for_is_429_and_nothing_else_fails(serving: Callable[..., Gateway]) -> None:
    gateway = serving(slots=2, queue=4)
    with ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(
            lambda _: gateway.call("POST", "/v1/chat/completions", gateway.chat()), range(40)
        ))  # fmt: skip
    counts = Counter(answer.status for answer in answers)
    assert set(counts) <= {200, 429} and counts[200] >= 6 and counts[429] > 0, counts
    for answer in answers:
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1 and answer.error["code"] == "rate_limit_exceeded"
    admission = gateway.services.admission
    assert (admission.running, admission.waiting, admission.waiting_tokens) == (0, 0, 0)


def test_a_client_that_vanishes_frees_its_slot(endless: Callable[..., Gateway]) -> None:
    gateway = endless(slots=1)
    with streaming(gateway):
        assert gateway.services.admission.running == 1
    wait_for(lambda: gateway.services.admission.running == 0)
    assert gateway.call("POST", "/v1/chat/completions", gateway.chat()).status == 200
    figures = gateway.call("GET", "/metrics").body.decode()
    made = re.search(r'ownchat_tokens_total{kind="completion",model="starter"} (\d+)', figures)
    assert made is not None and int(made[1]) < 25_000, "it went on for nobody"
    assert 'finish_reason="cancelled"' in figures


def test_a_client_that_vanishes_is_charged_for_what_was_made(
    endless: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = endless(slots=1, tokens_per_minute=1_000_000)
    used: list[int] = []
    original = Place.used

    def spy(place: Place, tokens: int) -> None:
        used.append(tokens)
        original(place, tokens)

    monkeypatch.setattr(Place, "used", spy)
    with streaming(gateway, max_tokens=5000):
        pass
    wait_for(lambda: len(used) == 2)  # the second is that of a place in which nothing was begun
    figures = gateway.call("GET", "/metrics").body.decode()
    made = {kind: re.search(rf'ownchat_tokens_total{{kind="{kind}",model="starter"}} (\d+)', figures)
            for kind in ("prompt", "completion")}  # fmt: skip
    prompt, completion = (int(found[1]) for found in made.values() if found is not None)
    assert completion > 0 and used[0] == prompt + completion


def test_a_client_that_vanishes_without_a_stream_frees_its_slot(endless: Callable[..., Gateway]) -> None:
    gateway = endless(slots=1)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(post(gateway.chat(max_tokens=50_000), gateway.token, gateway.port))
        wait_for(lambda: gateway.services.admission.running == 1)
    wait_for(lambda: gateway.services.admission.running == 0)


def test_a_client_that_vanishes_from_the_queue_is_not_answered(endless: Callable[..., Gateway]) -> None:
    gateway = endless(slots=1)
    with streaming(gateway):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as waiting:
            waiting.sendall(post(gateway.chat(), gateway.token, gateway.port))
            wait_for(lambda: gateway.services.admission.waiting == 1)
        wait_for(lambda: gateway.services.admission.waiting == 0)
        assert gateway.services.admission.running == 1
    wait_for(lambda: gateway.services.admission.running == 0)


def test_a_reader_who_takes_nothing_loses_its_slot(endless: Callable[..., Gateway]) -> None:
    gateway = endless(slots=1, idle_seconds=0.5)
    body = gateway.chat(stream=True, max_tokens=90_000, logprobs=True, top_logprobs=20)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(post(body, gateway.token, gateway.port))
        wait_for(lambda: gateway.services.admission.running == 1)
        wait_for(lambda: gateway.services.admission.running == 0, 60)


def test_an_answer_that_takes_too_long_is_ended(endless: Callable[..., Gateway]) -> None:
    gateway = endless(slots=1)
    gateway.call("POST", "/v1/chat/completions", gateway.chat())  # the model is loaded
    object.__setattr__(gateway.services.settings, "deadline_seconds", 4.0)
    answer = gateway.call("POST", "/v1/chat/completions", gateway.chat(max_tokens=50_000))
    assert answer.status == 504 and answer.error["code"] == "deadline_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    answer = gateway.call("POST", "/v1/chat/completions", gateway.chat(max_tokens=50_000, stream=True))
    assert answer.status == 200 and b'"code":"deadline_exceeded"' in answer.body and b"[DONE]" not in answer.body
    wait_for(lambda: gateway.services.admission.running == 0)


def test_limits_of_a_key_are_told_and_held(serving: Callable[..., Gateway]) -> None:
    gateway = serving(requests_per_minute=2, tokens_per_minute=100_000)
    anna, ben = gateway.key(), gateway.key()
    answers = [gateway.call("POST", "/v1/chat/completions", gateway.chat(), token=anna) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert answers[0].headers["x-ratelimit-limit-tokens"] == "100000"
    assert int(answers[2].headers["retry-after"]) in range(1, 31)
    assert gateway.call("POST", "/v1/chat/completions", gateway.chat(), token=ben).status == 200
    assert gateway.call("GET", "/v1/models", token=anna).status == 200, "only answers count"


# ------------------------------------------------------------------------------------------------ the process


@contextmanager
def process(home: Path, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """``ownchat serve`` on a home, its key, and its port."""
    running = subprocess.Popen(
        [sys.executable, "-m", "ownchat", "serve", "--port", "0", "--engine", "hf", "--threads", "1", *options],
        env={**os.environ, "OWNCHAT_HOME": str(home), "OWNCHAT_API_KEY": "", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        key = port = ""
        lines = []
        assert running.stdout is not None
        for line in running.stdout:
            lines.append(line)
            key = match[1] if (match := re.search(r"(sk-own-\S+)", line)) else key
            if match := re.search(r"http://127\.0\.0\.1:(\d+)/v1", line):
                port = match[1]
                break
        assert port, (lines, running.stderr.read() if running.stderr else "")
        yield running, key, int(port)
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


@pytest.fixture
def endless_home(serve_home: Path, endless_model: Path, tmp_path: Path) -> Path:
    import shutil

    home = shutil.copytree(serve_home, tmp_path / "home")
    shutil.copytree(endless_model, home / "models" / "SmolLM2-135M-Instruct", dirs_exist_ok=True)
    return home


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.slow
def test_sigterm_lets_an_answer_end_and_admits_no_other(endless_home: Path) -> None:
    with process(endless_home, "--drain", "60") as (running, key, port):
        body = {"model": "starter", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3000, "stream": True}
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(post(body, key, port))
            received = connection.recv(65536)
            assert b" 200 " in received
            while b"data: " not in received:
                received += connection.recv(65536)
            running.send_signal(signal.SIGTERM)
            refused = 200
            while refused != 503:
                other = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                short = json.dumps({**body, "stream": False, "max_tokens": 1})
                head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
                other.request("POST", "/v1/chat/completions", short, head)
                answer = other.getresponse()
                refused, text = answer.status, answer.read()  # whole: the head may come in a packet of its own
                other.close()
            assert answer.headers["retry-after"] and json.loads(text)["error"]["code"] == "server_is_overloaded"
            received += read_all(connection)
        assert b"data: [DONE]" in received and b'"finish_reason":"length"' in received
        _, log = running.communicate(timeout=60)
        assert running.returncode == 0
    assert key not in log and all(json.loads(line) for line in log.splitlines())
    assert {"draining", "ended", "request"} <= {json.loads(line)["event"] for line in log.splitlines()}


@pytest.mark.long
def test_a_second_signal_ends_at_once_and_the_time_to_drain_is_kept(endless_home: Path) -> None:
    body = {"model": "starter", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 90_000, "stream": True}
    for drain, signals, code in (("600", 2, 128 + signal.SIGTERM), ("0", 1, 0)):
        with process(endless_home, "--drain", drain, OWNCHAT_API_KEY="a-key-of-the-environment-0") as (
            running,
            key,
            port,
        ):
            assert key == "", "no key is made where one is given"
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(post(body, "a-key-of-the-environment-0", port))
                received = b""
                while b'"content":"' not in received.replace(b'"content":""', b""):
                    received += connection.recv(65536)
                for number in range(signals):
                    if number:
                        time.sleep(0.5)
                    running.send_signal(signal.SIGTERM)
                running.communicate(timeout=60)
                assert running.returncode == code


@pytest.mark.long
def test_a_thousand_at_once(serve_home: Path, tmp_path: Path) -> None:
    """No failure but 429, slots free afterwards, memory flat from the second wave on."""
    import asyncio
    import shutil

    async def ask(port: int, key: str) -> int:
        body = {"model": "starter", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(body, key, port).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1])

    async def wave(port: int, key: str) -> Counter[int]:
        return Counter(await asyncio.gather(*(ask(port, key) for _ in range(1000))))

    def resident_bytes(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    home = shutil.copytree(serve_home, tmp_path / "home")
    with process(home) as (running, key, port):
        assert running.stderr is not None
        threading.Thread(target=running.stderr.read, daemon=True).start()  # the log: a pipe fills up
        sizes = []
        for _ in range(5):
            counts = asyncio.run(wave(port, key))
            assert set(counts) <= {200, 429} and counts[200] >= 60, counts
            sizes.append(resident_bytes(running.pid))
        assert sizes[-1] - sizes[1] < 50_000_000, sizes
