"""Sweeps on a small model: the better rate is found, halving saves steps, nothing is trained twice, no test split."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ownchat import artifacts
from ownchat.config import load_config
from ownchat.errors import ConfigError, Interrupted, RunError
from ownchat.monitor.events import read_lines
from ownchat.pipeline import run as whole
from ownchat.pipeline import sweep as sweeping
from ownchat.pipeline import trials
from ownchat.pipeline.sweep import Configure
from ownchat.train import loop, stage

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
COMMON = [
    "train.batch_tokens=400", "model.dtype=float32", "train.threads=1", "train.epochs=5", "evaluate.answers=0",
    "evaluate.care={checks: []}",
    "train.compile=off",
]  # fmt: skip
RATES = "train.learning_rate=1e-7,1e-6,1e-5,2e-5,5e-5,1e-2"  # the last one learns in so few steps, the others hardly
BEST = {"train.learning_rate": "1e-2"}


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``faq.csv`` and the home of all sweeps of this file."""
    root = tmp_path_factory.mktemp("swept")
    rows = "".join(f"What about {thing} {n}?,The {thing} {n} is fine.\n" for n in range(5) for thing in THINGS)
    (root / "faq.csv").write_text("question,answer\n" + rows)
    return root


@pytest.fixture
def source(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(place / "home"))
    return place / "faq.csv"


@pytest.fixture(scope="module")
def configure(tiny_model: Path) -> Configure:
    return lambda sets: load_config(sets=[*COMMON, f"model.base={tiny_model}", *sets])


@pytest.fixture(scope="module")
def alone(place: Path, configure: Configure) -> sweeping.Outcome:
    """A sweep that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNCHAT_HOME", str(place / "home"))
        return sweeping.sweep(place / "faq.csv", [RATES], name="alone", configure=configure, say=quiet)


def curves(run: Path) -> dict[str, list[tuple[int, float | None, float | None]]]:
    return {
        str(path.relative_to(run)): [
            (row["step"], row.get("loss"), row.get("validation_loss")) for row in read_lines(path)
        ]
        for path in sorted(run.glob("**/metrics.jsonl"))
    }


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "5-train" / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_the_better_rate_is_found_in_fewer_steps(source, configure, alone) -> None:
    found = alone
    every = sweeping.sweep(source, [RATES], name="every", halving=False, configure=configure, say=quiet)
    assert found.finished and found.best.settings == every.best.settings == BEST
    assert found.shares == (1 / 3, 1.0)
    assert every.steps == every.full_steps == found.full_steps
    assert found.steps < 0.7 * every.steps
    # the last rung is a training as it would be without a sweep, bit for bit
    assert found.best.losses[-1] == every.best.losses[-1]
    config, _ = configure([f"{key}={value}" for key, value in BEST.items()])
    base = Path(config.model.base)
    inputs = {"tokens": found.run / "4-tokens", "tokenizer": found.run / "3-tokenizer", "base": base}
    plain = stage.run(config, inputs, found.run.parent / "plain" / "5-train")
    assert plain.details["best_loss"] == found.best.losses[-1]
    assert same(weights(found.run), weights(found.run.parent / "plain"))
    assert not list((found.run / "sweep").glob("**/checkpoints")), "only curves of the others are kept"
    assert not list((found.run / "sweep").glob("**/*.safetensors"))


def test_its_result_is_a_run_that_train_finds_done(source, configure, alone, monkeypatch) -> None:
    assert "--name alone" in alone.command and str(alone.config) in alone.command
    config, origins = load_config(alone.config)
    assert config == configure(["train.learning_rate=1e-2"])[0]
    assert "given (trial 6 of alone)" in alone.config.read_text()
    monkeypatch.setattr(loop, "train_step", lambda *_, **__: pytest.fail("trained again"))
    done = whole.train(source, name="alone", config=config, origins=origins, say=quiet)
    assert done.run == alone.run and done.report["training"]["best_loss"] == alone.best.losses[-1]
    assert sweeping.sweep(source, [RATES], name="alone", configure=configure, say=quiet) == alone


def test_the_test_split_is_not_read(source, configure) -> None:
    opened: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple) -> None:
        if watching[0] and event == "open" and isinstance(arguments[0], str | os.PathLike):
            opened.append(os.fspath(arguments[0]))

    assert whole.to_tokens(source, artifacts.run_directory("watched"), configure([])[0], {}, quiet).is_dir()
    two = ["train.learning_rate=1e-3,1e-2"]
    sys.addaudithook(watch)
    try:
        sweeping.sweep(source, two, name="watched", configure=configure, say=quiet)
    finally:
        watching[0] = False
    assert any("4-tokens/valid" in path for path in opened)
    assert not [path for path in opened if "/test/" in path]


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 70])
def test_the_time_is_kept_and_the_same_command_goes_on(source, configure, alone, after, monkeypatch) -> None:
    now, late, one_step, steps = time.monotonic, [0.0], loop.train_step, []

    def step(*arguments: object, **keywords: object) -> object:
        steps.append(1)
        if len(steps) == after:
            late[0] = 3600.0  # an hour passes in this step
        return one_step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(time, "monotonic", lambda: now() + late[0])
    monkeypatch.setattr(loop, "train_step", step)
    arguments = {"name": f"timed-{after}", "configure": configure, "say": quiet}
    if after == 3:
        with pytest.raises(RunError, match="the time was up before the first trial was through"):
            sweeping.sweep(source, [RATES], minutes=50, **arguments)
    else:
        partly = sweeping.sweep(source, [RATES], minutes=50, **arguments)
        assert not partly.finished and partly.best.losses and partly.config.is_file()
        assert "The time was up" in "\n".join(sweeping.lines(partly))
    assert len(steps) == after, "the step was finished and no other begun"
    monkeypatch.setattr(loop, "train_step", one_step)
    again = sweeping.sweep(source, [RATES], minutes=500, **arguments)
    assert again.finished and again.run.name == f"timed-{after}"
    assert [trial.losses for trial in again.trials] == [trial.losses for trial in alone.trials]
    assert curves(again.run) == curves(alone.run), "no step lost, none twice"
    assert same(weights(again.run), weights(alone.run))


@pytest.mark.slow
def test_a_signal_saves_and_finished_trials_are_not_run_again(source, configure, alone, monkeypatch) -> None:
    one_step, steps = loop.train_step, []

    def step(*arguments: object, **keywords: object) -> object:
        steps.append(1)
        if len(steps) == 40:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(Interrupted, match="SIGTERM"):
        sweeping.sweep(source, [RATES], name="stopped", configure=configure, say=quiet)
    done = sweeping.sweep(source, [RATES], name="stopped", configure=configure, say=quiet)
    assert len(steps) == done.steps == alone.steps, "every step was made once"
    assert [trial.losses for trial in done.trials] == [trial.losses for trial in alone.trials]


def test_what_fails_is_recorded_and_passed_over(source, configure) -> None:
    outcome = sweeping.sweep(
        source, ["train.learning_rate=1e30,1e-4,1e-2"], name="failing", configure=configure, say=quiet
    )
    assert outcome.best.settings == BEST
    (failed,) = [trial for trial in outcome.trials if trial.state == "failed"]
    assert failed.settings == {"train.learning_rate": "1e30"} and "is not a number" in failed.why
    assert outcome.trials[-1] == failed
    assert "failed: the loss of step" in "\n".join(sweeping.lines(outcome))
    with pytest.raises(RunError, match="every trial failed; the first: the loss of step"):
        sweeping.sweep(source, ["train.learning_rate=1e30,1e31"], name="none", configure=configure, say=quiet)


@pytest.mark.slow
def test_with_a_constant_rate_a_trial_goes_on_from_its_checkpoint(source, configure) -> None:
    constant = lambda sets: configure(["train.schedule=constant", *sets])  # noqa: E731
    few = ["train.learning_rate=1e-6,1e-2"]
    outcome = sweeping.sweep(source, few, name="constant", configure=constant, say=quiet)
    assert outcome.best.settings == BEST and outcome.best.steps * 2 == outcome.full_steps, "none was made twice"
    (phase,) = (outcome.run / "5-train").glob("*/metrics.jsonl")
    rows = [row for row in read_lines(phase) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, outcome.best.steps + 1))
    config, _ = constant(["train.learning_rate=1e-2"])
    inputs = {name: outcome.run / made for name, made in (("tokens", "4-tokens"), ("tokenizer", "3-tokenizer"))}
    inputs["base"] = Path(config.model.base)
    plain = stage.run(config, inputs, outcome.run.parent / "plain" / "5-train")
    straight = read_lines(plain.output / phase.parent.name / "metrics.jsonl")
    assert [row["loss"] for row in rows] == [row["loss"] for row in straight if "loss" in row]
    assert outcome.best.losses[-1] <= plain.details["best_loss"], "it was validated at the ends of rungs as well"


@pytest.mark.long
def test_optuna_searches_ranges(source, configure) -> None:
    pytest.importorskip("optuna", reason="pip install 'ownchat[sweep]'")
    outcome = sweeping.sweep(
        source, ["train.learning_rate=1e-5..2e-2:log", "model.lora_rank=2..8"], name="ranges", sampler="optuna",
        trials=5, configure=configure, say=quiet,
    )  # fmt: skip
    assert outcome.finished and len(outcome.trials) == 5
    rates = [float(trial.settings["train.learning_rate"]) for trial in outcome.trials]
    assert all(1e-5 <= rate <= 2e-2 for rate in rates) and len(set(rates)) == 5
    assert float(outcome.best.settings["train.learning_rate"]) >= sorted(rates)[2]


@pytest.mark.slow
def test_another_sweep_and_a_trained_run_are_left_alone(source, configure, alone) -> None:
    before = curves(alone.run)
    other = sweeping.sweep(
        source, ["train.learning_rate=1e-2,1e-3"], name="alone", halving=False, configure=configure, say=quiet
    )
    assert other.run.name == "alone-2" and curves(alone.run) == before


@pytest.mark.parametrize(
    "sets, what",
    [
        (["train.minutes=3", RATES], "train.minutes"),
        (["train.learning_rate=1e-4..1e-2:log"], "--sampler optuna"),
        (["model.quantize=4bit,none", "train.method=full"], "4bit"),
    ],
)
def test_mistakes_are_told_before_any_work(source, configure, sets, what, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    monkeypatch.setattr("ownchat.data.stage.run", lambda *_: pytest.fail("imported"))
    with pytest.raises(ConfigError, match=what):
        sweeping.sweep(source, sets, configure=configure, say=quiet)
    assert not (artifacts.home() / "runs").exists()


def test_mistakes_are_two_lines_and_exit_code_2(source) -> None:
    for arguments, what in (
        (["--set", "train.learning_rates=1e-3,1e-2"], 'did you mean "train.learning_rate"'),
        (["--set", "train.learning_rate=1e-3"], "nothing to try"),
        (["--set", RATES, "--sampler", "hyperband"], "grid or optuna"),
    ):
        command = [sys.executable, "-m", "ownchat", "sweep", str(source), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2 and what in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_is_no_fault_of_a_trial() -> None:
    error = RunError("the checkpoint cannot be written")
    error.__cause__ = OSError(28, "No space left on device")
    assert trials.disk_is_full(error) and not trials.disk_is_full(RunError("not a number"))


def known(state: Path) -> list[dict]:
    return json.loads(state.read_text())["trials"] if state.is_file() else []


@pytest.mark.long
def test_the_command_survives_a_kill(source, tiny_model, place, alone) -> None:
    """kill -9 in the middle, twice; the same command ends with the result of one that was left alone."""
    options = [part for text in [*COMMON, f"model.base={tiny_model}", RATES] for part in ("--set", text)]

    def command(name: str) -> list[str]:
        return [sys.executable, "-m", "ownchat", "sweep", str(source), "--name", name, *options, "--json"]

    state = place / "home" / "runs" / "killed" / "sweep.json"
    for losses in (1, 4):
        victim = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while sum(len(trial["losses"]) for trial in known(state)) < losses:
            assert victim.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        victim.kill()
        victim.wait()
    done = json.loads(subprocess.run(command("killed"), capture_output=True, check=True).stdout.splitlines()[-1])
    assert [trial["losses"] for trial in done["trials"]] == [trial.losses for trial in alone.trials]
    assert same(weights(state.parent), weights(alone.run))
    table = subprocess.run(command("killed"), capture_output=True, text=True, check=True).stdout
    assert "learning_rate" in table and "best" in table and "ownchat train" in table
