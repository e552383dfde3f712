"""A training with a tracker: the loop's own rows arrive, once, through an interruption; results do not depend on it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ownchat.config import load_config
from ownchat.errors import Interrupted
from ownchat.monitor.events import read_lines
from ownchat.train import loop
from ownchat.train.stage import run

SETS = ["train.batch_tokens=400", "model.dtype=float32", "train.epochs=2", "train.validate_every=3", "train.threads=1"]


def test_the_curves_of_an_interrupted_training(inputs: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'ownchat[trackers]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked, plain = load_config(sets=[*SETS, "train.trackers=[tensorboard]"])[0], load_config(sets=SETS)[0]
    output, one_step, done = tmp_path / "5-train", loop.train_step, []

    def interrupted(*arguments: object, **keywords: object) -> object:
        done.append(1)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Interrupted):
        run(tracked, inputs, output)
    report = run(tracked, inputs, output)
    rows = read_lines(output / "sft" / "metrics.jsonl")
    found = EventAccumulator(str(output / "sft" / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    for name in ("loss", "validation_loss", "learning_rate", "gradient_norm", "tokens"):
        shown = [(event.step, event.value) for event in found.Scalars(name)]
        assert shown == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row], name
    assert len(done) == report.counts["steps"] > 5
    assert run(plain, inputs, output).seconds == report.seconds, "who watches is no other training"
    other = run(plain, inputs, tmp_path / "plain")
    assert other.details["best_loss"] == report.details["best_loss"]
