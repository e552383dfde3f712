"""What a training wrote into its run, as events of OpenAI's API. Only reads: the run is the training's."""

from __future__ import annotations

import base64
import csv
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ownchat.artifacts import CLEAN, IMPORT, MANIFEST, SPLITS, TRAIN, read_json
from ownchat.serve.job_store import Event

PHASES = ("sft", "prefer")  # of a job there is one: it learns from one kind of example
COPIED = "also in another split"  # the rule of ownchat.clean.given, which loads much (a test compares them)
MOST_AT_ONCE = 400  # lines
END_BYTES = 20_000  # of the file of events, in which the last one is looked for
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


class Watch:
    """Follows one run; :meth:`look` gives what is new. A reader that begins anew tells the same events again."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.total = 0  # steps, once they are known
        self.step = 0
        self._offsets: dict[Path, tuple[int, int]] = {}  # file number and bytes that were read
        self._pending: tuple[str, dict[str, Any]] | None = None  # a step whose validation may follow
        self._told: set[str] = set()
        self.num_read = 0  # lines at the last look
        self._step_seconds: list[tuple[int, float]] = []  # of training, without the pauses
        self._read_at = 0.0

    def look(self, *, over: bool = False) -> list[Event]:
        """New events, up to some number. ``over``: the process has ended; when nothing is left to read (``num_read``
        is 0) nothing follows a step any more."""
        self.num_read = 0
        found = [*self._stage(IMPORT), *self._stage(CLEAN)]
        for phase in PHASES:
            folder = self.run / TRAIN / phase
            for row in self._new(folder / "events.jsonl"):
                found += self._happened(phase, row)
            for row in self._new(folder / "metrics.jsonl"):
                found += self._measured(phase, row)
        if over and not self.num_read and self._pending is not None:
            found.append(self._metrics(*self._pending))
            self._pending = None
        return found

    def estimate(self) -> int | None:
        """When it will be done, as Unix seconds, at the speed of the last steps."""
        if len(self._step_seconds) < 2 or not self.total:
            return None
        (first, began), (last, ended) = self._step_seconds[0], self._step_seconds[-1]
        return int(self._read_at + (self.total - last) * (ended - began) / (last - first))

    # ------------------------------------------------------------------------------------------------ inside

    def _stage(self, name: str) -> Iterator[Event]:
        """What a stage left out, once it is complete: never in silence."""
        manifest = self.run / name / MANIFEST
        if name in self._told or not manifest.is_file():
            return
        self._told.add(name)
        report = read_json(manifest)["report"]
        missing = "are not learned" if self._learns_all() else "are left out"  # of either file
        rules: Mapping[str, Any] = report["details"].get("rules", {})
        for fate in ("unreadable", "dropped"):
            for rule, count in sorted(rules.get(f"row {fate}", {}).items()):
                if rule == COPIED:
                    yield Event(
                        f"{name}/copied", f"{count} example(s) of the validation file are copies of what is learned, "
                        "and left out of the validation", "warn", data={"rule": rule, "examples": count},
                    )  # fmt: skip
                    continue
                yield Event(f"{name}/{fate}/{rule}", f"{count} example(s) {missing}: {rule}", "warn",
                            data={"rule": rule, "examples": count})  # fmt: skip
        if name == CLEAN:
            sizes = {split: report["counts"].get(split, 0) for split in SPLITS}
            masked = rules.get("row changed", {}).get("private data", 0)
            yield Event(
                f"{name}/splits",
                f"Examples: {sizes['train']} to learn from, {sizes['valid']} for validation, "
                f"{sizes['test']} held out for the report", data=sizes,
            )  # fmt: skip
            if masked:
                yield Event(f"{name}/private", f"Private data masked in {masked} place(s)", data={"places": masked})

    def _learns_all(self) -> bool:
        """Whether it has no validation file, by what the import was told."""
        manifest = self.run / IMPORT / MANIFEST
        return not (manifest.is_file() and read_json(manifest)["config"]["data"]["map"])

    def _new(self, path: Path) -> list[dict[str, Any]]:
        """Whole lines that were not read yet; a file that was cut (a resumed training does that) is read again."""
        try:
            stat = path.stat()
            number, start = self._offsets.get(path, (stat.st_ino, 0))
            if stat.st_ino != number or stat.st_size < start:
                start = 0
            if stat.st_size == start:
                return []
            with open(path, "rb") as handle:
                handle.seek(start)
                lines: list[bytes] = []
                while len(lines) < MOST_AT_ONCE and (line := handle.readline()).endswith(b"\n"):
                    start += len(line)
                    lines.append(line)
        except OSError:
            return []
        self._offsets[path] = stat.st_ino, start
        self.num_read += len(lines)
        return [row for line in lines if (row := _object(line)) is not None]

    def _happened(self, phase: str, row: dict[str, Any]) -> Iterator[Event]:
        step, when = row.get("step", 0), float(row.get("time", time.time()))
        self.total = int(row.get("total_steps") or self.total)
        match row.get("event"):
            case "started":
                yield Event(f"{phase}/started", f"Training has {self.total} steps", created=when)
            case "resumed":
                self._step_seconds.clear()
                yield Event(f"{phase}/resumed/{when}", f"Fine-tuning goes on from step {step}", created=when)
            case "saved":
                yield Event(f"{phase}/saved/{step}", f"Checkpoint created at step {step}", created=when)
            case "checkpoint_damaged":
                yield Event(f"{phase}/damaged/{step}", f"The checkpoint of step {step} is damaged and not used", "warn",
                            created=when)  # fmt: skip
            case "out_of_memory":
                yield Event(
                    f"{phase}/memory/{when}", "Memory ran out; it goes on with smaller blocks", "warn", created=when
                )
            case "finished" if row.get("why"):
                yield Event(
                    f"{phase}/early", f"Ended at step {step} of {self.total}: {row['why']}; the best step is "
                    f"{row.get('best_step')}", created=when,
                )  # fmt: skip

    def _measured(self, phase: str, row: dict[str, Any]) -> Iterator[Event]:
        step = int(row.get("step", 0))
        if "validation_loss" in row:  # null where it is no number
            validation = row["validation_loss"]
            if self._pending is not None and self._pending[1]["step"] == step:
                data = self._pending[1] | {"valid_loss": validation, "full_valid_loss": validation}
                if (share := row.get("validation_token_accuracy")) is not None:
                    data |= {"valid_mean_token_accuracy": share, "full_valid_mean_token_accuracy": share}
                if (accuracy := row.get("validation_accuracy")) is not None:
                    data["valid_accuracy"] = accuracy
                self._pending = None
                yield self._metrics(phase, data)
            return  # that of the base, before the first step, belongs to no step
        if self._pending is not None:
            yield self._metrics(*self._pending)
        data = {"step": step, "total_steps": self.total, "train_loss": row.get("loss")}
        if (accuracy := row.get("accuracy")) is not None:
            data["train_accuracy"] = accuracy  # of preferences: how often the better answer is likelier
        self._pending = (phase, data)
        self.step = step
        if self._step_seconds and step <= self._step_seconds[-1][0]:
            self._step_seconds.clear()
        if (seconds := row.get("seconds")) is not None:
            self._step_seconds, self._read_at = [*self._step_seconds[-31:], (step, float(seconds))], time.time()

    def _metrics(self, phase: str, data: dict[str, Any]) -> Event:
        parts = [f"training loss={_figure(data['train_loss'])}"]
        if "valid_loss" in data:
            parts += [f"validation loss={_figure(data['valid_loss'])}"]
            parts += [f"full validation loss={_figure(data['valid_loss'])}"]
        if "valid_mean_token_accuracy" in data:
            parts += [f"validation token accuracy={_figure(data['valid_mean_token_accuracy'])}"]
        message = f"Step {data['step']}/{data['total_steps'] or '?'}: {', '.join(parts)}"
        return Event(f"{phase}/step/{data['step']}", message, data=data)


def result_file(rows: Sequence[dict[str, Any]], *, base64_encoded: bool) -> bytes:
    """The figures of the steps as CSV; a cell is empty where nothing was measured.

    Of preferences ``valid_accuracy`` follows: how often the better answer is the likelier one.

    >>> result_file([{"step": 1, "train_loss": 2.5, "valid_loss": 2.25}], base64_encoded=False).splitlines()[1]
    b'1,2.5,,2.25,'
    """
    columns = COLUMNS + (("valid_accuracy",) if any("valid_accuracy" in row for row in rows) else ())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row.get(name) is None else row[name] for name in columns])
    content = text.getvalue().encode()
    return base64.b64encode(content) if base64_encoded else content


def trained_tokens(run: Path) -> int:
    """Tokens that a finished training saw, over all its epochs."""
    return int(read_json(run / TRAIN / MANIFEST)["report"]["counts"]["tokens"])


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    found = (path.parent.name for phase in PHASES for path in (run / TRAIN / phase).glob("checkpoints/*/state.json"))
    steps = (name.removeprefix("step-") for name in found)
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def stopped_at(run: Path) -> float | None:
    """When a training ended because it was asked to (Unix seconds); None where that is not the last it told."""
    last: dict[str, Any] = {}
    for phase in PHASES:
        with suppress(OSError), open(run / TRAIN / phase / "events.jsonl", "rb") as handle:
            handle.seek(max(0, handle.seek(0, io.SEEK_END) - END_BYTES))
            for line in handle:
                row = _object(line)
                last = last if row is None or row.get("time", 0) < last.get("time", 0) else row
    return float(last["time"]) if last.get("event") == "stopped" else None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
