"""A real server on a port of this machine, with a tiny model in the starter's place."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ownchat import artifacts
from ownchat.model import starter


@dataclass
class Answer:
    """What came back; names of headers are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape; fails where it is another."""
        found = self.json()
        assert found.keys() == {"error"}, found
        assert found["error"].keys() == {"message", "type", "param", "code"}, found
        return dict(found["error"])


@dataclass
class Gateway:
    """A server that runs. ``token`` is its first key, which may all."""

    app: Any
    port: int
    token: str
    thread: threading.Thread
    server: Any
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def services(self) -> Any:
        return self.app.state.services

    def key(self, *scopes: str, owner: str = "anna") -> str:
        """Another key."""
        return str(self.services.keys.create(owner, scopes or ("infer",))[1])

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """One request on a connection of its own; ``body`` is sent as JSON unless it is bytes. ``token=None``: none."""
        given = dict(headers or {})
        if token is not None:
            given.setdefault("authorization", f"Bearer {token or self.token}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            given.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes, *, timeout: float = 20) -> bytes:
        """Bytes as they are to the port, and all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(data)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            return b"".join(parts)

    def chat(self, text: str = "Hello", **more: Any) -> dict[str, Any]:
        """The body of a chat with the model."""
        return {"model": "starter", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}


@pytest.fixture(scope="session")
def serve_home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose starter is the tiny model. Read only: servers write into homes that are made from it."""
    home = tmp_path_factory.mktemp("serve-home")
    shutil.copytree(tiny_model, home / "models" / starter.NAME)
    (home / "models" / starter.NAME / artifacts.MANIFEST).write_text('{"package": "a tiny stand-in"}')
    return home


@contextmanager
def _serving(home: Path, **settings: Any) -> Iterator[Gateway]:
    from ownchat.serve.app import create_app
    from ownchat.serve.server import listen, make
    from ownchat.serve.settings import Settings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNCHAT_HOME", str(home))
        patch.delenv("OWNCHAT_API_KEY", raising=False)
        chosen = Settings(**{"home": home, "port": 0, "engine": "hf", "threads": 1, **settings})
        app = create_app(chosen)
        token = app.state.services.keys.first() or app.state.services.keys.create("operator", ("admin",))[1]
        listener = listen(chosen)
        server = make(app, chosen)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield Gateway(app, listener.getsockname()[1], token, thread, server)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server does not end"


@pytest.fixture
def serving(serve_home: Path, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """``serving(slots=1, ...)``: a server with these settings and a fresh database, ended with the test."""
    with ExitStack() as stack:

        def start(*, model: Path | None = None, home: Path | None = None, **settings: Any) -> Gateway:
            if home is None:
                home = tmp_path / "home"
                place = home / "models" / starter.NAME
                if not place.is_dir():
                    shutil.copytree(serve_home, home, dirs_exist_ok=True)
                    if model is not None:
                        shutil.copytree(model, place, dirs_exist_ok=True)
            return stack.enter_context(_serving(home, **settings))

        yield start


@pytest.fixture(scope="module")
def gateway(serve_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One server for the tests of a file, which leave it as it was."""
    home = shutil.copytree(serve_home, tmp_path_factory.mktemp("gateway") / "home")
    with _serving(home) as running:
        yield running


@dataclass
class Program:
    """``ownchat serve`` as a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    token: str

    def kill(self) -> None:
        """At once, as when its machine is switched off."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """``program(home, "--slots", "1", NAME="value")``: a server on this home, killed with the test, as its trainings
    are."""
    from ownchat.serve import job_process

    started: list[tuple[Path, Program]] = []

    def start(home: Path, *arguments: str, **environment: str) -> Program:
        token = "sk-own-only-for-these-tests"
        said = home.parent / f"server-{len(started)}.txt"
        with open(said, "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "ownchat", "serve", "--port", "0", "--engine", "hf", "--threads", "1",
                 *arguments],
                env=os.environ | {"OWNCHAT_HOME": str(home), "OWNCHAT_API_KEY": token, "PYTHONUNBUFFERED": "1"}
                | environment, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        found = Program(process, "", token)
        started.append((home, found))
        until = time.monotonic() + 200
        while not (urls := re.findall(r"^ownchat serves (\S+)", said.read_text(errors="replace"), re.M)):
            assert process.poll() is None and time.monotonic() < until, said.read_text(errors="replace")
            time.sleep(0.05)
        found.url = urls[0]
        return found

    yield start
    for _, server in started:
        server.kill()
    for home in {home for home, _ in started}:
        for training in filter(None, map(job_process.holder, (home / "runs").glob("*"))):
            training.end()


@pytest.fixture(scope="session")
def teach() -> Callable[[Path, list[int], str], None]:
    """``teach(directory, prompt_ids, answer)``: a tiny model learns one answer by heart, in a second or two."""

    def learn(directory: Path, prompt: list[int], answer: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(directory)
        model = AutoModelForCausalLM.from_pretrained(directory)
        model.config.max_position_embeddings = 2048
        batch = torch.tensor([[*prompt, *tokenizer.encode(answer), tokenizer.eos_token_id]])
        labels = batch.clone()
        labels[0, : len(prompt)] = -100
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for _ in range(120):
            loss = model(batch, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.save_pretrained(directory)

    return learn
