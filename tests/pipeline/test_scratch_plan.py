"""``ownchat plan --base scratch``: what a model from nothing would be and take, also where it cannot be run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import faq, home, ownchat  # noqa: F401 - fixtures


@pytest.mark.slow
def test_a_model_that_cannot_be_run_here(home: Path, faq: Path) -> None:  # noqa: F811
    """Thirteen billion weights on eight devices: planned in seconds, and no weight is written."""
    arguments = ["--base", "scratch", "--size", "gpt3-13b", "--device", "h100", "--count", 8, "--json"]
    done = ownchat(home, "plan", faq, *arguments, "--name", "large")
    plan = json.loads(done.stdout.splitlines()[-1])
    assert plan["model"]["parameters"] == pytest.approx(12.6e9, rel=0.01) and plan["fits"]
    assert plan["memory"]["weights"] == plan["model"]["parameters"] * 2 // 8
    assert "from nothing, 12.59 billion weights" in done.stdout and "8 x h100" in done.stdout
    run = home / "runs" / "large"
    assert not list(run.rglob("*.safetensors")) and (run / "4-model" / "config.json").is_file()
    assert plan["phases"][0]["name"] == "pretrain" and plan["phases"][0]["steps"] > 0

    alone = ownchat(home, "plan", faq, *arguments[:-3], "--json", "--name", "large")
    assert "IT DOES NOT FIT" in alone.stdout and "--size" in alone.stdout and "--method lora" not in alone.stdout


@pytest.mark.slow
def test_planned_and_then_made_as_planned(home: Path, faq: Path) -> None:  # noqa: F811
    """The probe needs the weights, and a training that follows takes them."""
    sets = ["evaluate.answers=0", "train.pretrain={epochs: 2}", "train.epochs=1", "train.threads=1"]
    arguments = [faq, "--base", "scratch", "--size", "200k", "--name", "small"]
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
def test_mistakes(arguments: list[str], message: str, home: Path, faq: Path) -> None:  # noqa: F811
    done = ownchat(home, "plan", faq, "--base", "scratch", *arguments, "--name", "mistakes", code=2)
    assert message in done.stderr and "What to do" in done.stderr
