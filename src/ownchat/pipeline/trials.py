"""One training of a sweep: a share of the whole, scored on the valid split, without a model directory at its end.

With a rate that falls over the training (cosine, linear) each rung is a training of its own, in which the rate falls to
its end: a training that is cut short ends at a high rate and looks worse than it is. With ``train.schedule=constant``
nothing depends on the length, and a trial goes on from its checkpoint. See docs/sweep.md.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ownchat import artifacts
from ownchat.config import Config
from ownchat.errors import ConfigError
from ownchat.train import decisions, memory, phases, stage
from ownchat.train.phases import Phase, Trained, phases_of
from ownchat.train.schedule import steps_in
from ownchat.train.signals import StopRequest
from ownchat.train.sweep import rung_steps
from ownchat.train.validation import validation_budget, validation_items

Inputs = dict[str, Path]  # tokens, tokenizer, base


@dataclass(frozen=True)
class Score:
    """What a trial reached: nats per trained token of the valid split at the best step, and steps trained."""

    loss: float
    steps: int


def total_steps(config: Config, tokens: Path) -> int:
    """Steps of a whole training, all phases."""
    return sum(_steps(config, phase)[1] for phase in phases_of(config, tokens))


def goes_on(config: Config, tokens: Path) -> bool:
    """Can a trial go on from its checkpoint when it gets more steps? Its rate must not depend on their number."""
    return config.train.schedule == "constant" and len(phases_of(config, tokens)) == 1


def check_samples(configs: Sequence[Config], tokens: Path) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` when trials would be judged on different samples of the valid split.

    How much of a large one a validation takes depends on the steps between two of them, and so on the batch size.
    """
    sizes = set()
    for config in configs:
        for phase in phases_of(config, tokens):
            plan = phases.make_plan(config, phase, block_tokens=1)
            sizes.add((phase.name, len(validation_items(phase.valid, validation_budget(phase.epoch_tokens, plan)))))
    if len(sizes) > len({name for name, _ in sizes}):
        raise ConfigError(
            "trials of these batch sizes would be judged on different samples of the valid split",
            where="train.batch_tokens",
            fix="sweep sizes that are nearer to each other",
        )


def train_share(config: Config, inputs: Inputs, output: Path, share: float, stop: StopRequest, *, like: Path) -> Score:
    """Train a share of the whole, or go on with it. ``like``: a directory with the decisions that all trials share.

    Raises :class:`~ownchat.errors.Interrupted` when ``stop`` asks for it, after saving, and what training raises.
    """
    memory.keep_freed_pages()
    before: Trained | None = None
    steps = 0
    for phase in phases_of(config, inputs["tokens"], inputs["base"]):
        per_epoch, total = _steps(config, phase)
        cut = rung_steps(total, share)
        directory = output / phase.name
        if not (directory / decisions.NAME).is_file():
            decisions.decide(config, directory, like=like)
        done = directory / phases.RESULT
        if done.is_file() and artifacts.read_json(done)["plan"]["total_steps"] != cut:
            done.unlink()  # of the rung before: it goes on
        warmup = max(1, round(total * phase.warmup_share))
        shorter = phase if cut == total else replace(phase, epochs=cut / per_epoch)
        if config.train.schedule == "constant" and cut > warmup:  # the rate rises as it does in the whole training
            shorter = replace(shorter, warmup_share=warmup / cut)
        before = phases.train_phase(config, inputs, shorter, output, before, stop)
        steps += before.figures["steps"]
    assert before is not None
    memory.return_freed_pages()
    return Score(before.figures["best_loss"], steps)


def hand_over(config: Config, inputs: Inputs, trained: Path, output: Path) -> artifacts.Report:
    """Make a trial that was trained to its end the training stage in ``output``, as if it had been trained there."""
    settings = {section: getattr(config, section).model_dump() for section in stage.SECTIONS}
    key = stage.key_of(config, inputs)
    artifacts.write_json(output / stage.SETTINGS, {"key": key} | settings)
    for phase in phases_of(config, inputs["tokens"], inputs["base"]):
        if (trained / phase.name).is_dir():  # else it was moved before an interruption
            os.replace(trained / phase.name, output / phase.name)
    return stage.run(config, inputs, output)


def clear(output: Path) -> None:
    """Keep the curves of a trial that is out, not its weights."""
    for checkpoints in output.glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
    for reference in output.glob("*/*.safetensors"):
        reference.unlink()


def disk_is_full(error: BaseException | None) -> bool:
    """Did this come of a full disk? No other trial would fare better."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        error = error.__cause__
    return False


def _steps(config: Config, phase: Phase) -> tuple[int, int]:
    return steps_in(phase.train.item_lengths, phase.batch_tokens, phase.epochs, phase.mix)
