"""One recommendation: the right rule for each situation, and a command that the program takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from ownchat.cli import app
from ownchat.evaluate.recommendation import recommend, shell_path, train_command
from ownchat.evaluate.slices import NO_TOPIC

FLAT = [(0, 3.9), (20, 3.0), (40, 2.95), (60, 2.94), (80, 2.935)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
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
    if report["held_out"].get("from_nothing"):  # there is no base: neither to prompt nor to talk to
        assert command != "ladder" and "--compare" not in arguments
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


def test_harm_of_judged_replies_alone_which_have_no_pairs(found, run):
    found["held_out"] |= {"preferences": None, "preferences_only": True}
    found["held_out"]["improvement"] = {"value": -5.0, "low": -8.0, "high": -2.0}
    found["training"]["phases"] = {"prefer": {}}
    advice = advise(found, run)
    assert "half the learning rate" in advice["text"]
    assert advice["command"].endswith("--set train.preference_learning_rate=0.001")


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


def test_a_ladder_is_advised_only_where_there_is_one(found, run):
    found["held_out"]["improvement"] = {"value": 5.0, "low": -2.0, "high": 9.0}
    for change in ({"from_nothing": True}, {"answers": 0}):
        for records, text in ((399, "Add more data"), (48, "Collect more data")):
            report = found | {"held_out": found["held_out"] | change}
            report["ledger_rules"] = {"2-clean": {"row kept": {"train": records}}}
            advice = advise(report, run)
            assert advice["text"].startswith(text) and advice["command"].startswith("ownchat train")


def test_a_run_elsewhere_is_named_by_its_path(found, run, tmp_path):
    elsewhere = tmp_path / "out" / "r 1"
    elsewhere.mkdir(parents=True)
    (elsewhere / "request.json").write_text((run / "request.json").read_text())
    assert shlex.split(advise(found, elsewhere)["command"]) == ["ownchat", "chat", str(elsewhere)]
    assert shlex.split(train_command(elsewhere))[3:5] == ["--name", str(elsewhere)]


def test_overfitting_wants_fewer_epochs(found, run):
    points = [(0, 3.9), (20, 3.0), (40, 3.1), (60, 3.2), (80, 3.3)]
    found["training"] |= {"best_step": 20, "epochs": 4.0}
    assert advise(found, run, points)["command"].endswith("--epochs 1")
    found["training"]["phases"] = {"sft": {}, "prefer": {}}
    assert advise(found, run, points)["command"].endswith("--set train.preference_epochs=1")
    found["training"]["phases"] = {"pretrain": {}}
    (run / "config.yaml").write_text("train:\n  pretrain: {learning_rate: 0.003, batch_tokens: 4096}  # derived\n")
    kept = "train.pretrain={learning_rate: 0.003, batch_tokens: 4096, epochs: 1.0}"
    assert shlex.split(advise(found, run, points)["command"])[-1] == kept
    found["training"] |= {"epochs": 0.5, "phases": {"sft": {}}}
    assert advise(found, run, points)["command"].endswith("--epochs 0.12")
    slightly = [(0, 3.9), (20, 3.0), (40, 3.01), (60, 3.01), (80, 3.01)]
    assert advise(found, run, slightly)["command"] == "ownchat chat demo"


def test_a_loss_that_still_falls_wants_more(found, run):
    points = [(0, 3.9), (40, 3.4), (80, 3.0)]
    assert advise(found, run, points)["command"].endswith("--epochs 4")
    phase = {"plan": {"minutes": 2.0, "learning_rate": 0.002, "total_steps": 200}}
    found["training"] |= phase | {"phases": {"sft": {"plan": {"minutes": 3.0}}, "prefer": phase}}
    assert advise(found, run, points)["command"].endswith("config.yaml --minutes 10")  # the phases share the time
    found["training"]["plan"]["total_steps"] = 80  # the time was not what ended it
    assert advise(found, run, points)["command"].endswith("--set train.preference_epochs=4 --minutes 10")
    found["training"]["stopped"] = "validation loss has not fallen for 3 validations"
    assert advise(found, run, points)["command"] == "ownchat chat demo"


def test_minutes_that_were_over_before_the_data_were_read(found, run):
    found["training"] |= {"steps": 11, "best_step": 11, "epochs": 0.28,
                          "plan": {"learning_rate": 0.002, "minutes": 3.0, "total_steps": 80}}  # fmt: skip
    found["training"]["phases"] = {"sft": {"plan": found["training"]["plan"]}}
    advice = advise(found, run, [(0, 3.533), (11, 3.199)])
    assert "for longer" in advice["text"] and advice["command"].endswith("--minutes 6")
    assert advice["why"].endswith("while 28 % of the data were read")
    assert "Use it" in advise(found, run, [(0, 3.533), (11, 3.53)])["text"], "it did not fall"
    found["training"]["epochs"] = 1.2
    assert "Use it" in advise(found, run, [(0, 3.533), (11, 3.199)])["text"], "all was read"


def test_answers_that_moved_away_are_read_first(found, run):
    found["held_out"]["difference"]["chrf"] = {"value": -3.7, "low": -5.9, "high": -2.1}
    advice = advise(found, run)
    assert advice["text"].startswith("Read some of its answers") and advice["command"].endswith("--compare")
    found["held_out"]["difference"]["chrf"]["high"] = 0.4
    assert advise(found, run)["text"] == "Use it."


def test_a_weak_topic_wants_data(full_report, run):
    full_report["training"] |= {"steps": 80, "best_step": 80}
    del full_report["care"]  # its danger would come first
    full_report["gates"] = {"passed": None, "checks": []}
    assert advise(full_report, run)["command"] == "ownchat chat demo"  # phone.txt has two groups only
    prices = next(each for each in full_report["held_out"]["slices"] if each["name"] == "prices")
    prices["tuned"] = {"value": 3.9, "low": 3.5, "high": 4.3}
    advice = advise(full_report, run)
    assert "topic prices" in advice["text"] and advice["command"].startswith("ownchat train")
    prices["name"] = NO_TOPIC  # which nobody can collect more of
    assert advise(full_report, run)["command"] == "ownchat chat demo"


def test_an_unmet_requirement_is_named(full_report, run):
    full_report["training"] |= {"steps": 80, "best_step": 80}
    del full_report["care"]
    advice = advise(full_report, run)
    assert "“chrf at least 40” is not met" in advice["text"] and advice["why"] == "it is 27.1 (24.4 to 29.9)"
    assert advice["command"] == "ownchat chat demo --compare"
    full_report["held_out"]["from_nothing"] = True
    assert advise(full_report, run)["command"] == "ownchat chat demo"


def test_commands_name_no_home_and_know_urls(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OWNCHAT_HOME", raising=False)
    run = tmp_path / ".ownchat" / "runs" / "s3"
    run.mkdir(parents=True)
    (run / "request.json").write_text(json.dumps({"source": "s3://bucket/prefix"}))
    assert train_command(run) == "ownchat train s3://bucket/prefix --name s3 --config ~/.ownchat/runs/s3/config.yaml"
    assert shell_path(tmp_path / "a b") == "~/'a b'"
