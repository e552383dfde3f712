"""One recommendation: the right rule for each situation, and a command that the program takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from ownchat.cli import app
from ownchat.evaluate.recommendation import recommend, shell_path, train_command

FLAT = [(0, 3.9), (20, 3.0), (40, 2.95), (60, 2.94), (80, 2.935)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    (folder / "request.json").write_text(json.dumps({"source": str(tmp_path / "my inbox"), "key": "k"}))
    return folder


@pytest.fixture
def found(report):
    """A report in which nothing is to be mended: the base of each case."""
    report["training"] |= {"steps": 80, "best_step": 80, "epochs": 2.0, "phases": {"sft": {}},
                           "plan": {"learning_rate": 0.002, "minutes": None}}  # fmt: skip
    return report


def metrics(points) -> list[dict]:
    return [{"step": step, "validation_loss": loss} for step, loss in points]


def advise(report, run: Path, points=FLAT, ladder=None) -> dict[str, str]:
    """The recommendation, whose command is one of the program's, with options that it has."""
    advice = recommend(report, metrics(points), run=run, ladder=ladder)
    assert all(advice.values()) and set(advice) == {"text", "command", "why"}
    program, command, *arguments = shlex.split(advice["command"])
    assert program == "ownchat"
    import typer

    known = typer.main.get_command(app).commands
    assert command in known
    if command != "prompt":
        options = {name for parameter in known[command].params for name in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= options
    return advice


def test_a_good_run_is_used(found, run):
    assert advise(found, run)["command"] == "ownchat chat demo"
    found["gates"] = {"passed": True, "checks": []}
    assert "every requirement is met" in advise(found, run)["why"]


def test_harm_comes_first(found, run, ladder):
    found["held_out"]["improvement"] = {"value": -5.0, "low": -8.0, "high": -2.0}
    advice = advise(found, run, [(0, 3.0), (20, 2.5), (80, 3.5)], ladder | {"train": False})
    assert "half the learning rate" in advice["text"] and advice["command"].endswith("--set train.learning_rate=0.001")
    assert f"'{run.parents[1] / 'my inbox'}'" in advice["command"] and "--config" in advice["command"]


def test_harm_of_pairs_alone_asks_for_a_look_at_the_data(found, run):
    share = {"value": 0.2, "low": 0.1, "high": 0.3}
    found["held_out"] |= {"preferences": {"rewarded": share, "pairs": 40}, "preferences_only": True}
    advice = advise(found, run)
    assert "exchanged" in advice["text"] and advice["command"].startswith("ownchat import")
    assert advice["command"].endswith("--preview")


def test_a_prompt_that_is_as_good(found, run, ladder):
    ladder |= {"train": False, "use": "four examples", "command": "ownchat prompt new demo --file p.yaml",
               "advice": "a prompt with four examples is as good: do not train"}  # fmt: skip
    advice = advise(found, run, ladder=ladder)
    assert "four examples" in advice["text"] and advice["command"] == ladder["command"]
    assert advise(found, run, ladder=ladder | {"train": True})["command"] == "ownchat chat demo"


def test_too_few_rows(found, run):
    found["held_out"]["improvement"] = {"value": 5.0, "low": -2.0, "high": 9.0}
    assert advise(found, run)["why"] == "training made no difference that can be told apart"
    found["ledger_rules"]["2-clean"]["row kept"]["train"] = 48
    advice = advise(found, run)
    assert advice["command"] == "ownchat ladder demo" and advice["why"].startswith("48 records")


def test_overfitting_wants_fewer_epochs(found, run):
    points = [(0, 3.9), (20, 3.0), (40, 3.1), (60, 3.2), (80, 3.3)]
    found["training"] |= {"best_step": 20, "epochs": 4.0}
    assert advise(found, run, points)["command"].endswith("--epochs 1")
    found["training"]["phases"] = {"sft": {}, "prefer": {}}
    assert advise(found, run, points)["command"].endswith("--set train.preference_epochs=1")
    found["training"]["phases"] = {"pretrain": {}}
    assert shlex.split(advise(found, run, points)["command"])[-1] == "train.pretrain={epochs: 1}"
    slightly = [(0, 3.9), (20, 3.0), (40, 3.01), (60, 3.01), (80, 3.01)]
    assert advise(found, run, slightly)["command"] == "ownchat chat demo"


def test_a_loss_that_still_falls_wants_more(found, run):
    points = [(0, 3.9), (40, 3.4), (80, 3.0)]
    assert advise(found, run, points)["command"].endswith("--epochs 4")
    found["training"]["plan"]["minutes"] = 5.0
    assert advise(found, run, points)["command"].endswith("--minutes 10")


def test_a_weak_topic_wants_data(full_report, run):
    full_report["training"] |= {"steps": 80, "best_step": 80}
    full_report["gates"] = {"passed": None, "checks": []}
    assert advise(full_report, run)["command"] == "ownchat chat demo"  # phone.txt has two groups only
    prices = next(each for each in full_report["held_out"]["slices"] if each["name"] == "prices")
    prices["tuned"] = {"value": 3.9, "low": 3.5, "high": 4.3}
    advice = advise(full_report, run)
    assert "topic prices" in advice["text"] and advice["command"].startswith("ownchat train")


def test_an_unmet_requirement_is_named(full_report, run):
    full_report["training"] |= {"steps": 80, "best_step": 80}
    advice = advise(full_report, run)
    assert "“chrf at least 40” is not met" in advice["text"] and advice["why"] == "it is 27.1 (24.4 to 29.9)"


def test_commands_name_no_home_and_know_urls(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = tmp_path / ".ownchat" / "runs" / "s3"
    run.mkdir(parents=True)
    (run / "request.json").write_text(json.dumps({"source": "s3://bucket/prefix"}))
    assert train_command(run) == "ownchat train s3://bucket/prefix --name s3 --config ~/.ownchat/runs/s3/config.yaml"
    assert shell_path(tmp_path / "a b") == "~/'a b'"
