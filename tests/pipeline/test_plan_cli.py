"""``ownchat plan`` as people use it: before a training, for another machine, and with every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import faq, home, ownchat  # noqa: F401 - fixtures

QUICK = ["--set", "train.batch_tokens=400", "--set", "evaluate.answers=0", "--set", "train.threads=1",
         "--set", "evaluate.care={checks: []}"]  # fmt: skip


def stamps(run: Path) -> dict[str, int]:
    return {name: (run / name / "manifest.json").stat().st_mtime_ns for name in ("1-data", "2-clean", "4-tokens")}


@pytest.mark.long
def test_plan_then_train(home: Path, faq: Path, tiny_model: Path) -> None:  # noqa: F811
    arguments = [faq, "--base", tiny_model, "--epochs", 1, *QUICK, "--json"]
    done = ownchat(home, "plan", *arguments, "--price", 3)
    plan = json.loads(done.stdout.splitlines()[-1])
    run = home / "runs" / "company-faq"
    assert {path.name for path in run.iterdir()} == {
        ".lock", "config.yaml", "1-data", "2-clean", "3-tokenizer", "4-tokens",
    }  # fmt: skip
    before = stamps(run)
    assert "Memory" in done.stdout and "it fits" in done.stdout and "corrected" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[4:-1])
    assert plan["money"] == pytest.approx(plan["seconds"]["total"] / 3600 * 3, abs=0.01)

    report = json.loads(ownchat(home, "train", *arguments).stdout.splitlines()[-1])
    assert stamps(run) == before, "training finds the first stages done"
    facts = json.loads((run / "5-train" / "manifest.json").read_text())["report"]["details"]
    assert (facts["steps"], facts["tokens"]) == (plan["steps"], plan["tokens"])
    assert report["training"]["peak_memory_bytes"] == pytest.approx(plan["peak_bytes"], rel=0.15)

    settings = (run / "config.yaml").read_text()
    again = ownchat(home, "plan", *arguments, "--no-probe")
    assert json.loads(again.stdout.splitlines()[-1])["tokens"] == plan["tokens"]
    assert "corrected" not in again.stdout and "formula alone" in again.stdout
    assert (run / "config.yaml").read_text() == settings, "what training derived stays written"
    assert not (home / "runs" / "company-faq-2").exists()


@pytest.mark.slow
def test_for_another_machine(home: Path, faq: Path, tiny_model: Path) -> None:  # noqa: F811
    arguments = ["plan", faq, "--base", tiny_model, "--device", "h100", "--count", 8, "--price", 2.5, "--name", "other"]
    shown = ownchat(home, *arguments).stdout
    assert "8 x h100" in shown and "Money" in shown and "assumed" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere/at/all"], "no such file"),
        (["FAQ", "--base", "/nowhere/at/all"], "no such model"),
        (["FAQ", "--device", "h1000"], 'did you mean "h100"'),
        (["FAQ", "--count", "4"], "--device h100"),
        (["FAQ", "--set", "train.block_tokens=0"], "block_tokens"),
        (["EMPTY"], "What to do"),
    ],
)
def test_mistakes(arguments: list[str], message: str, home: Path, faq: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "questions.csv").write_text("question,answer\nWhat?,\n")
    places = {"FAQ": faq, "EMPTY": tmp_path / "questions.csv"}
    given = [places.get(text, text) for text in arguments]
    assert message in ownchat(home, "plan", *given, "--name", "mistakes", code=2).stderr
