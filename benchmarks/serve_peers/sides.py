"""The sides of the serving benchmark as processes: started as their users start them, asked alike, ended at the end."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve_peers.client import Place, Round, timed

WORKER = Path(__file__).resolve().parent / "worker.py"
START_SECONDS = 300.0
END_SECONDS = 60.0


class Failed(Exception):
    """A side that cannot run; the text says why."""


class Process:
    """A child with its log in a file. It is ended by :meth:`end`, whatever happened. Its standard output is read by
    :meth:`line`, or is part of the log."""

    def __init__(self, command: Sequence[Any], folder: Path, *, speaks: bool = True, **environment: str) -> None:
        self.log = folder / f"{secrets.token_hex(4)}.log"
        self._file = open(self.log, "wb")  # noqa: SIM115, it is closed by end()
        self.child = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE if speaks else self._file,
            stderr=self._file, text=True, env=os.environ | environment,
        )  # fmt: skip

    def line(self) -> str:
        """The next line of its standard output. Raises :class:`Failed` when it has ended."""
        if self.child.stdout is not None and (line := self.child.stdout.readline()):
            return line
        self.child.wait(END_SECONDS)
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Failed(" ".join(said[-3:] or [f"ended with {self.child.returncode}"])[:300])

    def resident_bytes(self) -> int:
        """Memory that it has now."""
        return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """Ask it to end, and wait."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()
        self._file.close()


class Worker:
    """A side of ``worker.py`` that is asked through its input."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.told: dict[str, Any] = json.loads(process.line())

    def round(self, texts: Sequence[str], tokens: int) -> Round:
        """Answers to these texts, at once."""
        assert self._process.child.stdin is not None
        self._process.child.stdin.write(json.dumps({"texts": list(texts), "tokens": tokens}) + "\n")
        self._process.child.stdin.flush()
        return Round(**json.loads(self._process.line()))


class Served:
    """A side behind HTTP. ``bias`` forbids the end tokens where the server knows ``logit_bias``."""

    def __init__(self, process: Process, place: Place, bias: dict[str, int]) -> None:
        self.process, self.place, self._bias = process, place, bias

    def body(self, text: str, tokens: int, **more: Any) -> dict[str, Any]:
        """A streamed chat."""
        asked: dict[str, Any] = {
            "model": self.place.model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens,
            "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        return asked | ({"logit_bias": self._bias} if self._bias else {}) | more

    def round(self, texts: Sequence[str], tokens: int) -> Round:
        """Answers to these texts, at once."""
        return timed(self.place, [self.body(text, tokens) for text in texts])

    def num_at_work(self) -> int:
        """Of ownchat: answers that are being made, and requests that wait."""
        connection = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=60)
        try:
            connection.request("GET", "/metrics", headers={"authorization": f"Bearer {self.place.key}"})
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        found = re.findall(r"^ownchat_(?:running|waiting) (\S+)$", text, flags=re.M)
        if len(found) != 2:
            raise RuntimeError("/metrics does not tell who runs and who waits")
        return int(sum(map(float, found)))


@contextmanager
def worker(kind: str, folder: Path, home: Path, **task: Any) -> Iterator[Worker]:
    """A side without HTTP."""
    process = _of_worker(kind, folder, home, task)
    try:
        yield Worker(process)
    finally:
        process.end()


def _of_worker(kind: str, folder: Path, home: Path, task: dict[str, Any]) -> Process:
    given = json.dumps(task | {"kind": kind}, default=str)
    return Process([sys.executable, WORKER, given], folder, OWNCHAT_HOME=str(home))


@contextmanager
def ownchat(folder: Path, home: Path, model: str, bias: dict[str, int], threads: int, slots: int) -> Iterator[Served]:
    """``ownchat serve`` with a key of its environment."""
    key = f"sk-own-{secrets.token_urlsafe(24)}"
    process = Process(
        [sys.executable, "-m", "ownchat", "serve", "--port", "0", "--threads", threads, "--slots", slots], folder,
        OWNCHAT_HOME=str(home), OWNCHAT_API_KEY=key,
    )  # fmt: skip
    try:
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)/v1", process.line())) is None:
            pass
        yield Served(process, Place(int(found[1]), key, model), bias)
    finally:
        process.end()


@contextmanager
def llama_server(folder: Path, home: Path, bias: dict[str, int], **task: Any) -> Iterator[Served]:
    """llama.cpp's own server."""
    process = _of_worker("llama-server", folder, home, task)
    try:
        told = Worker(process).told
        yield Served(process, Place(told["port"], told["key"], "model"), bias)
    finally:
        process.end()


@contextmanager
def transformers_serve(folder: Path, model: Path, threads: int) -> Iterator[Served]:
    """``transformers serve`` in bfloat16. It knows no ``logit_bias``; the tokens that it wrote are counted."""
    program = Path(sys.executable).parent / "transformers"
    if not program.is_file():
        raise Failed("the program transformers is not installed")
    port = _free_port()
    command = [program, "serve", model, "--port", port, "--host", "127.0.0.1", "--device", "cpu", "--dtype", "bfloat16"]
    process = Process(command, folder, speaks=False, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1")
    try:
        _wait(process, port)
        yield Served(process, Place(port, "none", str(model), end=b'"finish_reason":"'), {})  # it sends no [DONE]
    finally:
        process.end()


@contextmanager
def vllm(folder: Path, python: Path | None, model: Path, bias: dict[str, int], threads: int) -> Iterator[Served]:
    """vLLM for processors in an environment of its own."""
    if python is None:
        raise Failed("not asked for: name an environment that has it with --vllm-python")
    port, key = _free_port(), secrets.token_urlsafe(24)
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "model",
        "--host", "127.0.0.1", "--port", port, "--dtype", "bfloat16", "--enforce-eager", "--max-model-len", 2048,
        "--api-key", key,
    ]  # fmt: skip
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    process = Process(command, folder, speaks=False, OMP_NUM_THREADS=str(threads), VLLM_CPU_KVCACHE_SPACE="2", **quiet)
    try:
        _wait(process, port)
        yield Served(process, Place(port, key, "model"), bias)
    finally:
        process.end()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(process: Process, port: int) -> None:
    """Until ``/health`` answers."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.child.poll() is not None:
            process.line()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise Failed(f"not ready after {START_SECONDS:.0f} s")
