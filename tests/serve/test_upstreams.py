"""Models behind other servers: their keys, what they count, and what becomes of their failures."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai_server import OpenAIServer
from typer.testing import CliRunner

from ownchat.cli import app
from ownchat.errors import ConfigError
from ownchat.serve.settings import Settings

if TYPE_CHECKING:
    from conftest import Gateway, Program

ASKED: dict[str, Any] = {"model": "big", "messages": [{"role": "user", "content": "a word or two"}], "max_tokens": 9}
EMBEDDED: dict[str, Any] = {
    "object": "list",
    "model": "small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}],
    "usage": {"prompt_tokens": 123, "total_tokens": 123},
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-gateway")
    made = OpenAIServer()
    yield made
    made.close()


@pytest.fixture
def gateway(serving: Callable[..., Gateway], server: OpenAIServer) -> Gateway:
    return serving(upstreams={"big": f"{server.url}#small", "other-one": f"{server.url}#small"}, slots=1)


def test_each_server_gets_its_own_key_and_never_the_gateways(
    serving: Callable[..., Gateway], server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWNCHAT_UPSTREAM_KEY_OTHER_ONE", "sk-other")
    gateway = serving(upstreams={"big": f"{server.url}#small", "other-one": f"{server.url}#small"})
    for name in ("big", "other-one"):
        assert gateway.call("POST", "/v1/chat/completions", ASKED | {"model": name}).status == 200
    assert server.keys == ["Bearer none", "Bearer sk-other"]


def test_names_that_cannot_be(serve_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="one key"):
        Settings(tmp_path, upstreams={"a-b": "http://127.0.0.1:1/v1#x", "a.b": "http://127.0.0.1:2/v1#x"})
    monkeypatch.setenv("OWNCHAT_HOME", str(shutil.copytree(serve_home, tmp_path / "home")))
    done = CliRunner().invoke(app, ["serve", "--port", "0", "--upstream", "starter=http://127.0.0.1:1/v1#x"])
    assert isinstance(done.exception, ConfigError) and "model of this machine" in str(done.exception)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process has loaded is told by Linux")
def test_a_gateway_alone_does_not_load_torch(
    program: Callable[..., Program], server: OpenAIServer, tmp_path: Path
) -> None:
    """It would take seconds at each start and hundreds of megabytes."""
    home = tmp_path / "home"
    home.mkdir()
    running = program(home, "--upstream", f"far={server.url}#small")
    request = urllib.request.Request(
        f"{running.url}/chat/completions", json.dumps(ASKED | {"model": "far"}).encode(),
        {"authorization": f"Bearer {running.token}", "content-type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["choices"][0]["message"]["content"]
    assert "libtorch" not in Path(f"/proc/{running.process.pid}/maps").read_text()


def test_tokens_are_those_that_the_server_counted(gateway: Gateway) -> None:
    found = gateway.call("POST", "/v1/chat/completions", ASKED).json()
    assert found["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}
    asked = {"model": "big", "input": "a word or two"}
    assert gateway.call("POST", "/v1/responses", asked).json()["usage"]["input_tokens"] == 4


def test_embeddings_are_counted_by_the_server(gateway: Gateway, server: OpenAIServer) -> None:
    server.plan = [EMBEDDED]
    found = gateway.call("POST", "/v1/embeddings", {"model": "big", "input": "hello", "encoding_format": "float"})
    assert found.json()["data"][0]["embedding"] == [0.5, 1.0]
    assert found.json()["usage"] == {"prompt_tokens": 123, "total_tokens": 123}


@pytest.mark.parametrize(
    ("plan", "status"), [([500] * 5, 502), ([503] * 5, 502), ([429] * 5, 503), ([401], 502), (["drop"], 502),
                         (["failing"], 502), ([413], 400), ([422], 400)], ids=str
)  # fmt: skip
def test_failures_are_not_the_clients_fault(
    plan: list[Any], status: int, gateway: Gateway, server: OpenAIServer
) -> None:
    server.plan = list(plan)
    answer = gateway.call("POST", "/v1/chat/completions", ASKED)
    assert answer.status == status and server.url not in answer.error["message"]
    if all(isinstance(what, int) for what in plan):
        server.plan = list(plan)
        assert gateway.call("POST", "/v1/embeddings", {"model": "big", "input": "hello"}).status == status
    assert gateway.call("POST", "/v1/chat/completions", ASKED).status == 200


def test_an_embedding_that_nobody_waits_for_is_ended(gateway: Gateway, server: OpenAIServer) -> None:
    server.plan = ["mute"]
    with pytest.raises(TimeoutError):
        gateway.call("POST", "/v1/embeddings", {"model": "big", "input": "hello"}, timeout=1)
    assert server.left.wait(20), "the gateway hangs up, too"
    server.plan = [EMBEDDED]
    assert gateway.call("POST", "/v1/embeddings", {"model": "big", "input": "hello"}).status == 200


def test_models_that_load_slowly_keep_nobody_from_the_other_routes(
    serving: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting tokens loads a model: more of that at once than the threads that look keys up."""
    from ownchat.serve import pool

    going, real = threading.Event(), pool.open_engine

    def slow(*arguments: Any, **options: Any) -> Any:
        assert going.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(pool, "open_engine", slow)
    gateway = serving(slots=64)
    count = {"model": "starter", "input": "hello"}
    askers = [
        threading.Thread(target=gateway.call, args=("POST", "/v1/responses/input_tokens", count)) for _ in range(40)
    ]
    for asker in askers:
        asker.start()
    deadline = time.monotonic() + 30
    while gateway.services.admission.running < len(askers) and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert gateway.call("GET", "/v1/models", timeout=20).status == 200
    finally:
        going.set()
        for asker in askers:
            asker.join(60)
