"""Trackers beside metrics.jsonl: each step once, also after kill -9; nothing private; never the end of a training.

Every tracker is the real package; those that are not installed are skipped (make trackers installs them).
"""

from __future__ import annotations

import getpass
import json
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ownchat.config import load_config
from ownchat.errors import ConfigError, Interrupted
from ownchat.monitor import trackers
from ownchat.monitor.events import Events, JsonLines, read_lines

SECRETS = ["Be kind to Aunt Hedwig", "hedwig@example.org", "confidential-topic", "hidden-folder"]
SETS = [
    f"data.system={SECRETS[0]}", f"data.assistant=[{SECRETS[1]}]", f"clean.topic={SECRETS[2]}",
    f"model.base=/home/{SECRETS[3]}/tiny",
]  # fmt: skip
STEPS = 8

# The rows and events that the loop writes from step FIRST to LAST, going on from what a checkpoint of step FIRST - 1
# knows; then an end of some kind.
LOOP = """
import json, os, signal, sys
from pathlib import Path
from ownchat.config import load_config
from ownchat.errors import Interrupted
from ownchat.monitor import trackers
from ownchat.monitor.events import Events, JsonLines, read_lines

directory, sets, first, last, wait, end = Path(sys.argv[1]), *json.loads(sys.argv[2])
trackers.SEND_SECONDS = wait
config, _ = load_config(sets=sets)
with trackers.follow(config, directory, {"total_steps": 8, "schedule": "cosine"}) as followers:
    events = Events(directory / "events.jsonl", also=followers.event)
    metrics = JsonLines(directory / "metrics.jsonl", also=followers.row)
    kept = [row for row in read_lines(metrics.path) if row["step"] < first]
    metrics.path.write_text("".join(json.dumps(row) + chr(10) for row in kept))
    events.emit("resumed" if first else "started", step=first, records=["customer-7"], file="secret-file.csv")
    for step in range(first, last + 1):
        if step:
            metrics.write(step=step, loss=4.0 - step / 4, learning_rate=1e-3, gradient_norm=float("nan"), seconds=step)
        if step % 2 == 0:
            metrics.write(step=step, validation_loss=4.5 - step / 4, seconds=step + 0.5)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "stop":
        raise Interrupted("SIGTERM")
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("MLFLOW_TRACKING_URI", "TRACKIO_DIR", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    made = tmp_path / "home" / "runs" / "inbox" / "5-train" / "sft"
    made.mkdir(parents=True)
    return made


def write(directory: Path, name: str, first: int, last: int, end: str = "finish", wait: float = 0.0) -> str:
    arguments = json.dumps([[*SETS, f"train.trackers=[{name}]"], first, last, wait, end])
    done = subprocess.run([sys.executable, "-c", LOOP, str(directory), arguments], capture_output=True, text=True)
    expected = {"kill": -9, "stop": 1, "finish": 0}[end]
    assert done.returncode == expected, done.stderr
    return done.stdout + done.stderr


Points = dict[str, list[tuple[int, float]]]  # metric -> (step, value), as the tracker has them


def in_tensorboard(directory: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def in_wandb(directory: Path) -> Points:
    from ownchat.monitor.wandb_files import history

    (id,) = {path.stem.removeprefix("run-") for path in directory.glob("wandb/offline-run-*/*.wandb")}  # of all starts
    points: Points = {}
    for row in history(directory / "wandb", id):
        for key in row.keys() - {"step"}:
            if not key.startswith("_"):
                points.setdefault(key, []).append((row["step"], row[key]))
    return points


def in_mlflow(directory: Path) -> Points:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{directory / 'mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "ownchat"]
    (run,) = client.search_runs([experiment.experiment_id])
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: [(metric.step, metric.value) for metric in metrics] for key, metrics in history.items()}


def in_trackio(directory: Path) -> Points:
    points: Points = {}
    with sqlite3.connect(directory.parents[3] / "trackio" / "ownchat.db") as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    for _, step, metrics in rows:
        for key, value in json.loads(metrics).items():
            points.setdefault(key, []).append((step, value))
    return points


READ: dict[str, Callable[[Path], Points]] = {
    "tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow, "trackio": in_trackio,
}  # fmt: skip


@pytest.fixture(params=list(READ))
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param, reason="pip install 'ownchat[trackers]'")
    return str(request.param)


@pytest.mark.parametrize("end, wait", [("kill", 0.0), ("kill", 99.0), ("stop", 99.0)])
def test_each_step_once_after_an_end_in_the_middle(name: str, end: str, wait: float, directory: Path) -> None:
    """The process ends at step 6, the last checkpoint is of step 4: steps 5 and 6 are made twice, and stand once."""
    write(directory, name, 0, 6, end, wait)
    write(directory, name, 5, STEPS, wait=wait)
    points = READ[name](directory)
    losses = [(step, 4.0 - step / 4) for step in range(1, STEPS + 1)]
    assert sorted(points["loss"]) == losses
    assert sorted(points["validation_loss"]) == [(step, 4.5 - step / 4) for step in range(0, STEPS + 1, 2)]
    assert sorted(points["seconds"]) == [(step, step) for step in range(1, STEPS + 1)]
    assert "gradient_norm" not in points, "what is no number is left out"
    truth = read_lines(directory / "metrics.jsonl")
    assert Counter(row["step"] for row in truth if "loss" in row) == Counter(step for step, _ in losses)


def test_only_numbers_and_settings_leave(name: str, directory: Path, tmp_path: Path) -> None:
    printed = write(directory, name, 0, STEPS)
    assert not printed.strip(), "a training's screen is its own"
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not {"logs"} & set(path.parts)]
    files = [path for path in files if path.name not in ("metrics.jsonl", "events.jsonl") and path.suffix != ".log"]
    content = {path: path.read_bytes() for path in files}
    assert any(b"learning_rate" in data for data in content.values()), "it was looked at where it is"
    private = [*SECRETS, "customer-7", "secret-file", str(tmp_path), socket.gethostname()]
    if getpass.getuser() != "root":  # a word of its own in other places
        private.append(getpass.getuser())
    for text in private:
        found = [path for path, data in content.items() if text.encode() in data]
        assert not found, (text, found)


def test_settings_arrive(name: str, directory: Path, tmp_path: Path) -> None:
    write(directory, name, 0, 2)
    data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for key in (b"train.batch_tokens", b"model.lora_rank", b"plan.total_steps", b"plan.schedule", b"model.base"):
        assert key in data
    assert b"data.system" not in data and b"clean.topic" not in data


def test_a_tracker_that_breaks_is_a_warning_once(directory: Path, monkeypatch, capsys) -> None:
    """MLflow's database is destroyed while the training runs; TensorBoard beside it goes on."""
    for package in ("mlflow", "tensorboard"):
        pytest.importorskip(package, reason="pip install 'ownchat[trackers]'")
    monkeypatch.setattr(trackers, "SEND_SECONDS", 0.0)
    config, _ = load_config(sets=["train.trackers=[mlflow, tensorboard]"])
    with trackers.follow(config, directory, {}) as followers:
        metrics = JsonLines(directory / "metrics.jsonl", also=followers.row)
        metrics.write(step=1, loss=3.0)
        with sqlite3.connect(directory / "mlflow.db") as database:
            database.execute("DROP TABLE metrics")
        for step in range(2, STEPS + 1):
            metrics.write(step=step, loss=3.0 - step / 10)
    failures = [row for row in read_lines(directory / "events.jsonl") if row["event"] == "tracker_failed"]
    assert [row["tracker"] for row in failures] == ["mlflow"]
    assert capsys.readouterr().err.count("mlflow gets no more of this run") == 1
    assert [step for step, _ in in_tensorboard(directory)["loss"]] == list(range(1, STEPS + 1))
    assert [row["step"] for row in read_lines(directory / "metrics.jsonl")] == list(range(1, STEPS + 1))


def test_one_that_was_added_later_or_was_broken_is_caught_up(directory: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'ownchat[trackers]'")
    metrics = JsonLines(directory / "metrics.jsonl")
    for step in range(1, 5):
        metrics.write(step=step, loss=float(step))
    config, _ = load_config(sets=["train.trackers=[tensorboard]"])
    with trackers.follow(config, directory, {}) as followers:
        JsonLines(directory / "metrics.jsonl", also=followers.row).write(step=5, loss=5.0)
    assert in_tensorboard(directory)["loss"] == [(step, float(step)) for step in range(1, 6)]


def test_no_server_is_said_before_training_and_a_warning_at_a_resume(directory: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("mlflow", reason="pip install 'ownchat[trackers]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")  # nobody listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config, _ = load_config(sets=["train.trackers=[mlflow]"])
    with pytest.raises(ConfigError, match="mlflow cannot be opened") as refused, trackers.follow(config, directory, {}):
        pytest.fail("training began")
    assert "MLFLOW_TRACKING_URI" in str(refused.value)
    (directory / trackers.NAME).write_text('{"id": "abc"}')  # it was opened once
    with trackers.follow(config, directory, {}) as followers:
        JsonLines(directory / "metrics.jsonl", also=followers.row).write(step=1, loss=1.0)
    assert "warning: mlflow" in capsys.readouterr().err


def test_what_is_not_installed_is_said(monkeypatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="wandb is not installed") as refused:
        trackers.check(["wandb"])
    assert "pip install wandb" in str(refused.value)
    with pytest.raises(ConfigError, match=r"train\.trackers"):
        load_config(sets=["train.trackers=[tensorbord]"])


def test_none_is_asked_for_nothing_is_loaded(directory: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ownchat.config import load_config\n"
        "from ownchat.monitor import trackers\n"
        "with trackers.follow(load_config()[0], Path(sys.argv[1]), {}) as none: none.row({'step': 1, 'loss': 2.0})\n"
        "print(sorted({'torch', 'mlflow', 'wandb', 'trackio', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and not (directory / trackers.NAME).exists()


def test_an_interruption_passes_through(directory: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'ownchat[trackers]'")
    config, _ = load_config(sets=["train.trackers=[tensorboard]"])
    with pytest.raises(Interrupted), trackers.follow(config, directory, {}) as followers:
        Events(directory / "events.jsonl", also=followers.event).emit("started", step=0)
        raise Interrupted("SIGTERM")
