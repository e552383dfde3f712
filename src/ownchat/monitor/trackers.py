"""Where the numbers of a run go as well: TensorBoard, Weights & Biases, MLflow, Trackio.

``metrics.jsonl`` is the truth and a tracker follows it. When one is opened it is asked what it has, gets the rows that
it lacks, and passes over rows that a resumed run makes a second time; they are the same, because a resume is exact. So
each step stands in it once, however often the run was killed. Only numbers, switches and choices of the configuration
leave the run, never text, names or paths.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ownchat import artifacts
from ownchat.artifacts import TRAIN, read_json, write_json
from ownchat.config import Config
from ownchat.errors import ConfigError, Interrupted, printable
from ownchat.monitor.events import Events, read_lines
from ownchat.monitor.progress import say

NAME = "trackers.json"  # the run's id in trackers, and what was handed to Weights & Biases
PROJECT = "ownchat"
SECTIONS = ("tokenizer", "model", "train")  # what training depends on; the others hold people's words and names
SEND_SECONDS = 5.0  # rows wait so long for company: a database or a network is not asked at every step

Row = Mapping[str, Any]
Place = tuple[int, int]  # step, and 0 for training or 1 for the validation after it: rows come in this order
End = Literal["finished", "stopped", "failed"]
NOTHING: Place = (-1, 0)


@dataclass
class Tracker:
    """An open tracker: the row that it had last, and how to give it more."""

    name: str
    last: Place
    send: Callable[[Sequence[Row]], None]
    tell: Callable[[str, int, str], None]  # event, step, text
    close: Callable[[End], None]
    waiting: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Opening:
    """What every tracker is opened with."""

    directory: Path  # of the phase: files of a tracker lie here, unless a variable of its own says where
    label: str
    id: str
    settings: Mapping[str, Any]
    note: Place  # the row that was handed to it last, where it writes late


def check(names: Sequence[str]) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` for a tracker that is not installed, before any work."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f"{name} is not installed",
                where="train.trackers",
                fix=f"pip install {name} (all four: pip install 'ownchat[trackers]'), or take it out",
            )


def shared_settings(config: Config) -> dict[str, Any]:
    """What trackers get of the configuration: numbers, switches and choices, and the base's name without its path.

    >>> from ownchat.config import load_config
    >>> config, _ = load_config(sets=["data.system=You are Anna's assistant.", "model.base=/home/anna/models/small"])
    >>> settings = shared_settings(config)
    >>> settings["model.base"], settings["train.epochs"], [key for key in settings if key.startswith("data")]
    ('small', 2.0, [])
    """
    settings = {f"{section}.{key}": value for section in SECTIONS for key, value in getattr(config, section)}
    settings["model.base"] = Path(config.model.base).name
    return {key: value for key, value in settings.items() if isinstance(value, bool | int | float | str)}


class Trackers:
    """The open trackers of a phase. One that fails is left out with one warning: training goes on."""

    def __init__(self, trackers: Sequence[Tracker], directory: Path) -> None:
        self._open, self._directory, self._sent = list(trackers), directory, time.monotonic()

    def row(self, row: Row) -> None:
        """A row of ``metrics.jsonl``; it is sent with the next ones, at most :data:`SEND_SECONDS` later."""
        for tracker in self._open:
            if place(row) > tracker.last:
                tracker.waiting.append(row)
                tracker.last = place(row)
        if time.monotonic() - self._sent >= SEND_SECONDS:
            self.send()

    def event(self, fields: Row) -> None:
        """A line of ``events.jsonl``: its name and its numbers, for trackers that take text."""
        numbers = {key: value for key, value in fields.items() if isinstance(value, bool | int | float)}
        numbers.pop("time", None)
        step = int(numbers.pop("step", 0))
        text = " ".join([str(fields["event"]), *(f"{key}={value}" for key, value in numbers.items())])
        for tracker in list(self._open):
            with self._failing(tracker):
                tracker.tell(str(fields["event"]), step, text)

    def send(self) -> None:
        """Everything that waits."""
        self._sent = time.monotonic()
        for tracker in list(self._open):
            if tracker.waiting:
                with self._failing(tracker):
                    tracker.send(tracker.waiting)
                    tracker.waiting = []

    def close(self, end: End) -> None:
        self.send()
        for tracker in list(self._open):
            with self._failing(tracker):
                tracker.close(end)
        self._open = []

    @contextmanager
    def _failing(self, tracker: Tracker) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a network, a disk or a library has
            self._open.remove(tracker)
            warn(tracker.name, error, self._directory)


def warn(name: str, error: Exception, directory: Path) -> None:
    """Say once that a tracker is left out, on screen and in ``events.jsonl``."""
    why = printable(str(error).strip().split("\n")[0] or type(error).__name__)[:200]
    say(f"warning: {name} gets no more of this run ({why}); metrics.jsonl has everything, a resume sends the rest")
    Events(directory / "events.jsonl").emit("tracker_failed", tracker=name, error=why)


@contextmanager
def follow(config: Config, directory: Path, plan: Mapping[str, Any]) -> Iterator[Trackers]:
    """The trackers of ``train.trackers`` for the phase in ``directory``; ``plan``: derived numbers, shown as settings.

    Raises :class:`~ownchat.errors.ConfigError` when one cannot be opened as the phase begins; at a resume that is a
    warning, because a training that runs is worth more than its curves.
    """
    names, path = config.train.trackers, directory / NAME
    if not names:
        yield Trackers((), directory)
        return
    check(names)
    notes = read_json(path) if path.is_file() else {"id": uuid.uuid4().hex[:12]}
    known = {key: value for key, value in plan.items() if isinstance(value, bool | int | float | str)}
    settings = shared_settings(config) | {f"plan.{key}": value for key, value in known.items()}
    opened = []
    for name in dict.fromkeys(names):
        note: Place = tuple(notes.get(name, NOTHING))
        try:
            opened.append(OPEN[name](Opening(directory, label(directory), notes["id"], settings, note)))
        except Exception as error:
            if not path.is_file():
                why = str(error).strip().split("\n")[0] or type(error).__name__
                what = f"{name} cannot be opened: {why}"
                raise ConfigError(what, where="train.trackers", fix=ADVICE[name]) from error
            warn(name, error, directory)
    if not path.is_file():
        write_json(path, notes)
    trackers = Trackers(opened, directory)
    end: End = "failed"
    try:
        for row in read_lines(directory / "metrics.jsonl"):
            trackers.row(row)
        yield trackers
        end = "finished"
    except (Interrupted, KeyboardInterrupt):
        end = "stopped"
        raise
    finally:
        trackers.close(end)


def place(row: Row) -> Place:
    """Where a row stands among the others.

    >>> place({"step": 4, "loss": 2.0}) < place({"step": 4, "validation_loss": 2.1}) < place({"step": 5, "loss": 1.9})
    True
    """
    return int(row["step"]), int("validation_loss" in row)


def numbers(row: Row) -> dict[str, float]:
    """A row's numbers but the step. Those of a validation leave out its time: the step has one already.

    >>> numbers({"step": 4, "validation_loss": 2.1, "seconds": 9.0, "loss": None})
    {'validation_loss': 2.1}
    """
    hidden = ("step", "seconds") if "validation_loss" in row else ("step",)
    return {key: value for key, value in row.items() if key not in hidden and isinstance(value, int | float)}


def label(directory: Path) -> str:
    """A phase's name in trackers: the run's, and the phase.

    >>> label(Path("/home/you/.ownchat/runs/inbox/5-train/sft"))
    'inbox/sft'
    """
    runs = artifacts.home_path() / "runs"
    inside = directory.relative_to(runs) if directory.is_relative_to(runs) else Path(*directory.parts[-3:])
    return "/".join(part for part in inside.parts if part != TRAIN)


# ------------------------------------------------------------------------------------------------ one function each


def _tensorboard(opening: Opening) -> Tracker:
    """Event files in ``tensorboard/``: ``tensorboard --logdir`` on the folder of all runs shows them side by side."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    target, last = opening.directory / "tensorboard", NOTHING
    if target.is_dir():
        found = EventAccumulator(str(target), size_guidance={"scalars": 0}).Reload()
        for tag in found.Tags()["scalars"]:
            last = max([last, *((event.step, int(tag == "validation_loss")) for event in found.Scalars(tag))])
    writer = SummaryWriter(log_dir=str(target))
    if last == NOTHING:
        for part in hparams(dict(opening.settings), {"validation_loss": 0.0}):
            writer._get_file_writer().add_summary(part)  # add_hparams would make a second run of it

    def send(rows: Sequence[Row]) -> None:
        for row in rows:
            for key, value in numbers(row).items():
                writer.add_scalar(key, value, row["step"])
        writer.flush()

    def tell(event: str, step: int, text: str) -> None:
        writer.add_text("events", text, step)

    return Tracker("tensorboard", last, send, tell, lambda end: writer.close())


def _wandb(opening: Opening) -> Tracker:
    """Weights & Biases, online or as ``WANDB_MODE`` says, without what it would collect by itself.

    It counts its own steps; ours are the metric ``step``, and the axis of all others.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    from ownchat.monitor.wandb_files import history

    offline = os.environ.get("WANDB_MODE") == "offline"
    where = Path(os.environ.get("WANDB_DIR") or opening.directory)
    last = opening.note
    if offline:
        rows = history(where / "wandb", opening.id)
        last = max((place(row) for row in rows if "step" in row), default=NOTHING)
    quiet = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_meta=True,
        x_disable_stats=True, x_save_requirements=False, host=PROJECT, init_timeout=30,
    )  # fmt: skip
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        name=opening.label,
        id=opening.id,
        resume=None if offline else "allow",
        dir=str(where),
        config=dict(opening.settings),
        settings=quiet,
    )
    run.define_metric("*", step_metric="step")
    if not offline:  # what its server has of this run
        last = min(last, (int(run.summary.get("step", -1)), 1))

    def send(rows: Sequence[Row]) -> None:
        for row in rows:
            run.log({"step": row["step"], **numbers(row)})
        path = opening.directory / NAME
        write_json(path, (read_json(path) if path.is_file() else {"id": opening.id}) | {"wandb": place(rows[-1])})

    def tell(event: str, step: int, text: str) -> None:
        run.summary[f"event/{event}"] = f"step {step}: {text}"

    return Tracker("wandb", last, send, tell, lambda end: run.finish(exit_code=int(end != "finished")))


def _mlflow(opening: Opening) -> Tracker:
    """MLflow: the server of ``MLFLOW_TRACKING_URI``, else a database beside the metrics."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
    ):  # fmt: skip
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
    address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{opening.directory.resolve() / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=address)
    project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    experiment = client.get_experiment_by_name(project)
    where = experiment.experiment_id if experiment else client.create_experiment(project)
    last = NOTHING
    if found := client.search_runs([where], filter_string=f"tags.ownchat_id = '{opening.id}'"):
        run = found[0].info.run_id
        client.update_run(run, status="RUNNING")
        for key in found[0].data.metrics:
            steps = [metric.step for metric in client.get_metric_history(run, key)]
            last = max([last, *((step, int(key == "validation_loss")) for step in steps)])
    else:
        made = client.create_run(where, run_name=opening.label, tags={"ownchat_id": opening.id})
        run = made.info.run_id
        client.log_batch(run, params=[Param(key, str(value)) for key, value in opening.settings.items()])

    def send(rows: Sequence[Row]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, row["step"]) for row in rows for key, value in numbers(row).items()]
        for start in range(0, len(metrics), 1000):  # as many as it takes at once
            client.log_batch(run, metrics=metrics[start : start + 1000])

    def tell(event: str, step: int, text: str) -> None:
        client.set_tag(run, f"event.{event}", f"step {step}: {text}")

    ends = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    return Tracker("mlflow", last, send, tell, lambda end: client.set_terminated(run, ends[end]))


def _trackio(opening: Opening) -> Tracker:
    """Trackio's local database, ``TRACKIO_DIR`` or ``trackio/`` in the home: one for all runs, as it is made for."""
    os.environ.setdefault("TRACKIO_DIR", str(artifacts.home() / "trackio"))
    with contextlib.redirect_stdout(io.StringIO()):  # how to open its page; docs/tracking.md says it
        import trackio

        name = f"{opening.label}-{opening.id}"
        run = trackio.init(
            project=PROJECT, name=name, resume="allow", config=dict(opening.settings), embed=False, auto_log_gpu=False
        )
    last = NOTHING
    database = Path(os.environ["TRACKIO_DIR"]) / f"{PROJECT}.db"
    if database.is_file():
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            query = "SELECT step, CAST(metrics AS TEXT) LIKE '%\"validation_loss\"%' FROM metrics WHERE run_name = ?"
            last = max([last, *connection.execute(query, (name,)).fetchall()])

    def send(rows: Sequence[Row]) -> None:
        for row in rows:
            run.log(numbers(row), step=row["step"])

    def close(end: End) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()

    return Tracker("trackio", last, send, lambda event, step, text: None, close)


OPEN: dict[str, Callable[[Opening], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
ADVICE = {
    "tensorboard": "free some space, or take it out of train.trackers",
    "wandb": "wandb login, or WANDB_MODE=offline, or take it out of train.trackers",
    "mlflow": "check MLFLOW_TRACKING_URI (unset: a file of the run), or take it out of train.trackers",
    "trackio": "check TRACKIO_DIR, or take it out of train.trackers",
}
