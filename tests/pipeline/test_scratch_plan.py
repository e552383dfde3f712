"""``ownchat plan --base scratch``: what a model from nothing would be and take, also where it cannot be run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from test_cli import home, ownchat  # noqa: F401 - fixtures


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of their own, and some questions: of less than this no model from nothing is made."""
    folder = tmp_path_factory.mktemp("library")
    draw, words = random.Random(0), (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8").split()

    def sentence() -> str:
        return " ".join(draw.sample(words, 12)).replace('"', "")

    rows = [f'"{sentence()}?","{sentence()}."' for _ in range(40)]
    (folder / "faq.csv").write_text("question,answer\n" + "\n".join(rows) + "\n")
    chapters = [f"Chapter {number}\n\n" + ". ".join(sentence() for _ in range(5)) for number in range(30)]
    (folder / "manual.txt").write_text("\n\n".join(chapters))
    return folder


@pytest.mark.slow
def test_a_model_that_cannot_be_run_here(home: Path, text: Path) -> None:  # noqa: F811
    """Thirteen billion weights on eight devices: planned in seconds, and no weight is written."""
    arguments = ["--base", "scratch", "--size", "gpt3-13b", "--device", "h100", "--count", 8, "--json"]
    done = ownchat(home, "plan", text, *arguments, "--name", "large")
    plan = json.loads(done.stdout.splitlines()[-1])
    assert plan["model"]["parameters"] == pytest.approx(12.6e9, rel=0.01) and plan["fits"]
    assert plan["memory"]["weights"] == plan["model"]["parameters"] * 2 // 8
    assert "from nothing, 12.59 billion weights" in done.stdout and "8 x h100" in done.stdout
    run = home / "runs" / "large"
    assert not list(run.rglob("*.safetensors")) and not (run / "4-model").exists(), "it is of other machines"
    assert plan["phases"][0]["name"] == "pretrain" and plan["phases"][0]["steps"] > 0

    alone = ownchat(home, "plan", text, *arguments[:-3], "--json", "--name", "large")
    assert "IT DOES NOT FIT" in alone.stdout and "--size" in alone.stdout and "--method lora" not in alone.stdout


@pytest.mark.long
def test_planned_and_then_made_as_planned(home: Path, text: Path) -> None:  # noqa: F811
    """The probe needs the weights, and a training that follows takes them."""
    sets = [
        "evaluate.answers=0",
        "evaluate.care={checks: []}",
        "train.pretrain={epochs: 2}",
        "train.epochs=1",
        "train.threads=1",
    ]
    arguments = [text, "--base", "scratch", "--size", "200k", "--name", "small"]
    arguments += [part for each in sets for part in ("--set", each)]
    plan = json.loads(ownchat(home, "plan", *arguments, "--json").stdout.splitlines()[-1])
    weights = home / "runs" / "small" / "4-model" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert plan["measured_memory"] and plan["model"]["parameters"] == pytest.approx(200_000, rel=0.1)
    again = json.loads(ownchat(home, "plan", *arguments, "--no-probe", "--json").stdout.splitlines()[-1])
    assert again["tokens"] == plan["tokens"] and weights.stat().st_mtime_ns == made
    report = json.loads(ownchat(home, "train", *arguments, "--json").stdout.splitlines()[-1])
    assert weights.stat().st_mtime_ns == made
    assert report["training"]["trained_weights"] == plan["model"]["parameters"]
    phases = json.loads((home / "runs" / "small" / "5-train" / "manifest.json").read_text())["report"]["details"][
        "phases"
    ]
    assert {name: facts["steps"] for name, facts in phases.items()} == {
        phase["name"]: phase["steps"] for phase in plan["phases"]
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "gpt5"], "is no size of a model"),
        (["--size", "10k"], "the smallest model has"),
        (["--size", "13B"], "GB of memory"),
        (["--set", "model.shape={layers: 2, width: 100, heads: 3}"], "cannot be shared by 3 heads"),
    ],
)
@pytest.mark.slow
def test_mistakes(arguments: list[str], message: str, home: Path, text: Path) -> None:  # noqa: F811
    done = ownchat(home, "plan", text, "--base", "scratch", *arguments, "--name", "mistakes", code=2)
    assert message in done.stderr and "What to do" in done.stderr
