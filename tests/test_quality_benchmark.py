"""The quality benchmark's sources, and what it makes of a ladder."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "quality", raising=False)
    module = importlib.import_module("quality")
    monkeypatch.setattr(module, "DATASETS", tmp_path / "datasets")
    return module


def test_the_first_conversations(quality: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "sgd" / "train"
    with pytest.raises(FileNotFoundError, match="OWNCHAT_DATASETS"):
        quality.write_source("sgd", tmp_path)
    folder.mkdir(parents=True)
    for file in range(7):
        said = [("USER", "Is it free?"), ("SYSTEM", f"Table {file} is.")]
        dialogue = {"turns": [{"speaker": speaker, "utterance": text} for speaker, text in said]}
        with gzip.open(folder / f"dialogues_{file:03}.json.gz", "wt") as handle:
            json.dump([dialogue] * 100, handle)
    source, sets = quality.write_source("sgd", tmp_path)
    rows = [json.loads(line)["messages"] for line in source.read_text().splitlines()]
    assert len(rows) == 640 and sets == []
    assert rows[-1] == [{"role": "user", "content": "Is it free?"}, {"role": "assistant", "content": "Table 6 is."}]


def test_every_eighth_question_of_the_bank(quality: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "banking77"
    folder.mkdir(parents=True)
    lines = [f'"Where, {number}?",label_{number % 3}\n' for number in range(20)]
    (folder / "train.csv").write_text("text,category\n" + "".join(lines))
    source, sets = quality.write_source("banking77", tmp_path)
    with open(source, newline="") as handle:
        assert [row["text"] for row in csv.DictReader(handle)] == ["Where, 0?", "Where, 8?", "Where, 16?"]
    from ownchat.config import load_config

    assert load_config(sets=sets)[0].data.map == {"question": "text", "answer": "category"}


def test_a_row_says_what_the_ladder_and_the_page_say(quality: ModuleType) -> None:
    against = {"value": 21.0, "low": 9.5, "high": 33.0}
    prompt = {
        "name": "4 examples",
        "score": 30.0,
        "low": 20.0,
        "high": 40.0,
        "best_prompt": True,
        "against_prompt": None,
    }
    lora = {"name": "LoRA", "score": 51.0, "low": 40.0, "high": 62.0, "best_prompt": False, "against_prompt": against}
    missing = {"name": "full", "score": None, "low": None, "high": None, "best_prompt": False, "against_prompt": None}
    ladder = {"metric": "accuracy", "rows": 32, "rungs": [prompt, lora, missing], "advice": "Train."}
    improvement = {"value": 25.0, "low": 22.0, "high": 28.0}
    loss = {"base": {"loss": {"value": 4.0}}, "tuned": {"loss": {"value": 3.0}}}
    row = quality.verdict(
        "demo", ladder, {"held_out": loss | {"improvement": improvement, "groups": 50, "records": 50}}
    )
    assert [rung["name"] for rung in row["rungs"]] == ["4 examples", "LoRA"]
    assert "4.00 to 3.00" in row["page"] and row["advice"] == "Train."
    head, first, second = quality.table([row]).splitlines()
    assert "against the best prompt" in head and "4 examples (best prompt)" in first
    assert second.split()[-3:] == ["+21.0", "[+9.5,", "+33.0]"]


@pytest.mark.parametrize(
    ("command", "code", "prints", "good"),
    [
        ("train", 0, '{"name": "quality-demo-2"}', True),
        ("train", 1, '{"name": "quality-demo-2"}', True),
        ("train", 1, "Traceback", False),
        ("train", 2, '{"name": "quality-demo-2"}', False),
        ("ladder", 1, '{"name": "quality-demo-2"}', False),
        ("ladder", 0, "", False),
    ],
)
def test_figures_are_there_or_it_ends(
    quality: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    code: int,
    prints: str,
    good: bool,
) -> None:
    program = tmp_path / "program.sh"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{prints}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(quality.sys, "executable", str(program))
    if good:
        assert quality.ownchat(command) == {"name": "quality-demo-2"}
    else:
        with pytest.raises(SystemExit, match=f"ownchat {command} ended with {code}"):
            quality.ownchat(command)


def test_the_ladder_is_that_of_the_run_that_was_trained(
    quality: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    asked: list[tuple[str, ...]] = []

    def program(*arguments: str) -> dict:
        asked.append(arguments)
        return {"name": "quality-demo-2"}

    monkeypatch.setattr(quality, "ownchat", program)
    monkeypatch.setattr(quality, "verdict", lambda name, ladder, report: {})
    quality.measure("demo", 4, None, 0)
    assert asked[1] == ("ladder", "quality-demo-2", "--rows", "4", "--budget", "0")
