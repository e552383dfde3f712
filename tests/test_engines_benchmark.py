"""The engines benchmark: sides that cannot run say why, and its table."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "engines", raising=False)
    yield importlib.import_module("engines")
    monkeypatch.delitem(sys.modules, "engines", raising=False)


def test_table(benchmark: ModuleType) -> None:
    row = {"single": 61.04, "together": 150.0, "first": 85.6}
    assert benchmark.shown("hf", row).split() == ["hf", "61.0", "150.0", "86"]
    assert benchmark.shown("generate-float32", row | {"first": None}).split()[1:] == ["61.0", "150.0", "-"]
    assert benchmark.shown("ctranslate2-int8", {"failed": "not asked for"}).endswith("ctranslate2-int8 not asked for")


def run(model: Path, *options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "engines.py", "--model", model, "--threads", 1, "--tokens", 4]
    return subprocess.run(
        [*map(str, command), "--rounds", "1", *map(str, options)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_side_that_cannot_run_has_its_reason(endless_model: Path, tmp_path: Path) -> None:
    done = run(endless_model, "--only", "generate-float32,ctranslate2-int8")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert rows["generate-float32"]["single"] > 0 and rows["generate-float32"]["first"] is None
    assert rows["ctranslate2-int8"].keys() == {"failed"} and "not asked for" in rows["ctranslate2-int8"]["failed"]
    assert any("ctranslate2-int8 not asked for" in line for line in done.stdout.splitlines())

    venv.create(tmp_path / "bare", with_pip=False)
    done = run(endless_model, "--only", "ctranslate2-int8", "--others-python", tmp_path / "bare" / "bin" / "python")
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout.splitlines()[-1])["rows"]["ctranslate2-int8"]["failed"]
    assert "No module named 'ctranslate2'" in failed


def test_an_engine_that_is_not_there(endless_model: Path) -> None:
    done = run(endless_model, "--only", "ctranslate3")
    assert done.returncode == 2 and "there is no ctranslate3" in done.stderr
