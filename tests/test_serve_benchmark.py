"""The serving benchmark: its client against a real server, its arithmetic, its tables."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "serve", raising=False)
    yield importlib.import_module("serve")
    monkeypatch.delitem(sys.modules, "serve", raising=False)


@pytest.fixture
def client(benchmark: ModuleType) -> ModuleType:
    return importlib.import_module("serve_peers.client")


@pytest.fixture
def load(benchmark: ModuleType) -> ModuleType:
    return importlib.import_module("serve_peers.load")


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}\n\n'


@pytest.mark.parametrize(
    ("seen", "is_stream", "expected"),
    [
        (HEAD + USAGE + b"data: [DONE]\n\n", True, (200, 12, True)),
        (HEAD + USAGE, True, (200, 12, False)),  # it broke off
        (HEAD + b'data: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n', True, (200, 0, False)),
        (b'HTTP/1.1 200 OK\r\n\r\n{"usage":{"completion_tokens":3}}', False, (200, 3, True)),
        (b'HTTP/1.1 200 OK\r\n\r\n{"usage":{"completion_tokens":3', False, (200, 3, False)),
        (b'HTTP/1.1 500 no\r\n\r\n{"error":{}}', False, (500, 0, True)),
        (b"", True, (0, 0, False)),
    ],
)
def test_what_the_bytes_of_an_answer_say(
    client: ModuleType, seen: bytes, is_stream: bool, expected: tuple[int, int, bool]
) -> None:
    found = client.read(seen, None, 1.0, is_stream=is_stream)
    assert (found.status, found.tokens, found.whole) == expected


def test_memory_that_grows_is_not_flat(load: ModuleType) -> None:
    flat = load.growth([100_000_000] * 30 + [101_000_000] * 60)
    assert flat == {"memory_mb": [100.0, 101.0], "memory_growth": 0.01, "memory_flat": True}
    leaking = load.growth([100_000_000 + 1_000_000 * second for second in range(90)])
    assert not leaking["memory_flat"] and leaking["memory_growth"] > 0.3


def test_ratios_and_tables(benchmark: ModuleType) -> None:
    def row(*speeds: float) -> dict[str, Any]:
        return {
            number: {"tokens_per_second": speed, "first_ms": 1200}
            for number, speed in zip(("1", "8"), speeds, strict=False)
        }

    found = {
        "single": {
            "ownchat serve, 8-bit": row(60.0), "ownchat serve, float16": row(30.0), "generate, bfloat16": row(15.0),
            "vLLM": {"failed": "not asked for"},
        },
        "gateway": {"1": {"engine": 50.0, "served": 49.0, "cost": 0.02}},
        "streams": {"ownchat serve, 8-bit": row(60.0, 150.0)},
        "vanish": {"stream": {"median": 0.05, "longest": 0.2}},
    }  # fmt: skip
    told = benchmark.ratios(found)
    assert told["8-bit to generate, bfloat16"] == 4.0 and told["float16 to generate, bfloat16"] == 2.0
    assert told["8-bit to generate, float32"] is None
    assert told["8 at once to one: ownchat serve, 8-bit"] == 2.5 and told["gateway's cost, 1 at once"] == 0.02
    single = benchmark.table("single", found["single"]).splitlines()
    assert single[2].split() == ["ownchat", "serve,", "8-bit", "1", "at", "once", "60.0", "tokens/s", "1,200", "ms",
                                 "to", "the", "first"]  # fmt: skip
    assert single[-1].endswith("not asked for")
    broken = {"gateway": {"failed": "it ended"}}
    assert benchmark.ratios(broken)["8-bit to generate, bfloat16"] is None
    assert benchmark.table("gateway", broken["gateway"]).endswith("it ended")
    assert "costs 2.0%" in benchmark.table("gateway", found["gateway"])
    assert "at most 0.200 s" in benchmark.table("vanish", found["vanish"])


def test_sides_answer_in_turn_and_the_first_round_is_left_out(benchmark: ModuleType, client: ModuleType) -> None:
    asked: list[tuple[str, list[str]]] = []

    class Side:
        def __init__(self, name: str) -> None:
            self.name = name

        def round(self, texts: list[str], tokens: int) -> Any:
            asked.append((self.name, texts))
            return client.Round(tokens * len(texts), 2.0 if len(asked) > 2 else 100.0, None)

    bench = argparse.Namespace(given=argparse.Namespace(rounds=2, tokens=10))
    rounds = benchmark.in_turn({"a": Side("a"), "b": Side("b")}, bench, 3)
    assert [name for name, _ in asked] == ["b", "a", "a", "b", "b", "a"]
    assert len({text for _, texts in asked for text in texts}) == 3 * 3  # new in each round, the same for all sides
    assert [one.speed for one in rounds["a"]] == [15.0, 15.0] and len(rounds["b"]) == 2

    class Broken(Side):
        def round(self, texts: list[str], tokens: int) -> Any:
            raise RuntimeError("it ended")

    assert list(benchmark.in_turn({"a": Side("a"), "b": Broken("b")}, bench, 1)) == ["a"]


def test_a_copy_off_the_grid_differs_in_one_weight(benchmark: ModuleType, tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = shutil.copytree(tiny_model, tmp_path / "model")
    copy = benchmark.off_grid(model, tmp_path / "copy")
    before, after = (load_file(place / "model.safetensors") for place in (model, copy))
    assert sum(int((before[name] != after[name]).sum()) for name in before) == 1
    assert (copy / "config.json").read_bytes() == (model / "config.json").read_bytes()
    assert load_file(tiny_model / "model.safetensors").keys() == before.keys()


@pytest.mark.long
def test_a_real_server_under_all_parts(endless_model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    options = {"--model": endless_model, "--folder": tmp_path, "--threads": 1, "--tokens": 8, "--rounds": 1,
               "--streams": 2, "--slots": 2, "--requests": 90, "--minutes": 0.05}  # fmt: skip
    command = [sys.executable, BENCHMARKS / "serve.py", "--peers"]
    done = subprocess.run(
        [*command, *(str(word) for option in options.items() for word in option)], capture_output=True, text=True,
        env=os.environ | {"OWNCHAT_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    parts = found["parts"]
    assert list(parts) == ["single", "gateway", "streams", "burst", "soak", "vanish"] and found["weights"] == "float16"
    (served,) = parts["single"].values()
    assert served["1"]["tokens_per_second"] > 0 and served["1"]["first_ms"] >= 0
    assert parts["gateway"]["2"]["engine"] > 0 and found["ratios"]["gateway's cost, 2 at once"] < 1
    assert parts["burst"]["failures"] == 0 and parts["burst"]["statuses"]["200"] >= 66  # all that there is room for
    assert sum(parts["burst"]["statuses"].values()) == 4 * 90
    assert parts["soak"]["failures"] == 0 and parts["soak"]["faults"] == 0 and parts["soak"]["requests"] > 10
    assert parts["vanish"].keys() == {"stream", "whole", "prompt"}
    assert not list(tmp_path.glob("ownchat-serve-*")), "what it made meanwhile is gone"
