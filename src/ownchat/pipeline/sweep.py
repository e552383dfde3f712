"""``ownchat sweep``: the same records and tokens, trained with different settings; the best of them by the valid split.

Import, cleaning and tokens are made once and shared. Which settings are tried and go on is decided in
:mod:`ownchat.train.sweep`, one training is in :mod:`ownchat.pipeline.trials`. Everything that is known stands in
``sweep.json``, so that the same command goes on where it was ended. The test split is never read.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ownchat import artifacts
from ownchat.artifacts import TOKENIZER, TOKENS, TRAIN, owner_only
from ownchat.clean.recipe import check_settings
from ownchat.config import FROM_NOTHING, Config, Origins, load_config, to_yaml, with_derived
from ownchat.data.remote import Source, existing
from ownchat.errors import ConfigError, Interrupted, OwnchatError, RunError, UserError, printable
from ownchat.model import quantize
from ownchat.monitor import trackers
from ownchat.pipeline.run import REQUEST, Say, base_of, elapsed_text, request_key, run_name, to_tokens
from ownchat.train import distributed
from ownchat.train import sweep as search

SWEEP, BEST, TRIALS = "sweep.json", "best.yaml", "sweep"
OPTUNA_TRIALS = 16  # when --trials is not given
MAX_STARTS = 3  # a trial that ended the program so often is passed over

Sampler = Literal["grid", "optuna"]
Configure = Callable[[Sequence[str]], tuple[Config, Origins]]  # of the texts that --set takes


@dataclass
class Trial:
    """One choice of settings, and how far it came."""

    number: int  # from 1
    settings: search.Settings
    state: Literal["waiting", "running", "tried", "dropped", "failed"] = "waiting"
    losses: list[float] = field(default_factory=list)  # best validation loss of each rung that it went through
    steps: int = 0  # trained in all rungs together
    seconds: float = 0.0
    starts: int = 0  # of the rung it is in
    why: str = ""  # it failed


@dataclass
class Sweep:
    """Contents of ``sweep.json``."""

    key: str
    source: str
    shares: list[float] = field(default_factory=list)  # of the whole training, by rung
    trials: list[Trial] = field(default_factory=list)
    full_steps: int = 0  # of all trials, had each been trained to its end
    seconds: float = 0.0  # spent, over all starts
    finished: bool = False

    def ranking(self) -> list[Trial]:
        """Best first: those that came furthest, by loss; then those that failed."""

        def place(trial: Trial) -> tuple[bool, int, float, int]:
            return trial.state == "failed", -len(trial.losses), trial.losses[-1] if trial.losses else 0.0, trial.number

        return sorted(self.trials, key=place)

    def best(self) -> Trial | None:
        return next((trial for trial in self.ranking() if trial.losses and trial.state != "failed"), None)


@dataclass(frozen=True)
class Outcome:
    """What a sweep found. ``finished``: false when the time was up first; the same command goes on."""

    run: Path
    finished: bool
    best: Trial
    config: Path  # YAML file for --config
    command: str  # that trains with it, or finds it trained
    trials: tuple[Trial, ...]  # best first
    shares: tuple[float, ...]
    steps: int
    full_steps: int
    seconds: float


@owner_only()
def sweep(
    source: Source | str,
    sets: Sequence[str],
    *,
    name: str | None = None,
    sampler: Sampler = "grid",
    trials: int | None = None,
    minutes: float | None = None,
    halving: bool = True,
    configure: Configure = lambda sets: load_config(sets=sets),
    say: Say = print,
) -> Outcome:
    """Try settings on one source; ``sets`` as :func:`ownchat.train.sweep.parse` reads them.

    ``minutes``: for all of it, over all starts; ``trials``: so many points of a larger grid, or of Optuna.
    ``halving``: false trains every trial to its end. ``configure``: the configuration of ``--set`` texts.

    Raises :class:`~ownchat.errors.ConfigError` before any work for settings that cannot be, and
    :class:`~ownchat.errors.RunError` when no trial came through.
    """
    began = time.monotonic()
    source = existing(source)
    space = search.parse(sets)
    config, _ = configure(space.fixed)
    _check(config, sampler)
    points = search.grid(space, trials, config.train.seed) if sampler == "grid" else []
    number = len(points) or trials or OPTUNA_TRIALS
    for point in points:  # that all of them can be is known before any work
        tried, _ = configure(_texts(space, point))
        quantize.check(tried.model.quantize, tried.train.method)
    key = hashlib.sha256(f"{request_key(config, source)} {(space, sampler, number, halving)}".encode()).hexdigest()
    place = str(source.resolve() if isinstance(source, Path) else source)
    run, state = _directory(name or f"{run_name(source)}-sweep", key, place)
    with artifacts.locked(run):
        work = _Work(space, run, state, configure, minutes, state.seconds - began, say)
        if not state.finished:
            work.search(source, points, number, halving)
        if (best := state.best()) is None:
            why = "the time was up before the first trial was through"
            if state.finished:
                why = f"every trial failed; the first: {state.trials[0].why}"
            raise RunError(why, where=str(run / SWEEP), fix="more --minutes, or other settings")
    command = ["ownchat", "train", str(source), "--name", run.name, "--config", str(run / BEST)]
    return Outcome(
        run, state.finished, best, run / BEST, shlex.join(command), tuple(state.ranking()), tuple(state.shares),
        sum(trial.steps for trial in state.trials), state.full_steps, state.seconds,
    )  # fmt: skip


def _check(config: Config, sampler: Sampler) -> None:
    if distributed.size() > 1:
        raise ConfigError(
            f"a sweep runs in one process, and torchrun started {distributed.size()}",
            fix="leave torchrun away; the settings it finds hold for ownchat train under torchrun",
        )
    check_settings(config)
    quantize.check(config.model.quantize, config.train.method)
    trackers.check(config.train.trackers)
    if config.model.base == FROM_NOTHING:
        raise ConfigError(
            "trials begin with a model that is there, and one from nothing follows from these settings",
            where="model.base = scratch", fix="train each of them as a run, and compare: ownchat compare",
        )  # fmt: skip
    if config.train.minutes is not None:
        raise ConfigError(
            "trials would end at different points", where="train.minutes", fix="give --minutes, for all together"
        )
    if sampler == "optuna" and find_spec("optuna") is None:
        raise ConfigError("optuna is not installed", where="--sampler", fix="pip install 'ownchat[sweep]'")


def _texts(space: search.Space, point: search.Settings) -> list[str]:
    return [*space.fixed, *(f"{key}={value}" for key, value in point.items())]


def _directory(name: str, key: str, source: str) -> tuple[Path, Sweep]:
    """The sweep NAME or NAME-n that was asked for exactly this, or the first place with no sweep and no training."""
    number, candidate = 1, name
    while True:
        run = artifacts.run_directory(candidate)
        if (run / SWEEP).is_file():
            content = artifacts.read_json(run / SWEEP)
            if content["key"] == key:
                return run, Sweep(**content | {"trials": [Trial(**trial) for trial in content["trials"]]})
        elif not (run / TRAIN).exists():
            return run, Sweep(key, source)
        number += 1
        candidate = f"{name}-{number}"


class _OutOfTime(Exception):
    """The time of the sweep is up; what a trial had begun is saved."""


@dataclass(frozen=True)
class _Work:
    """A sweep at work in a run that is held."""

    space: search.Space
    run: Path
    state: Sweep
    configure: Configure
    minutes: float | None
    clock: float  # added to time.monotonic() it is what was spent over all starts
    say: Say

    @property
    def inputs(self) -> dict[str, Path]:
        config, _ = self.configure(self.space.fixed)
        return {"tokens": self.run / TOKENS, "tokenizer": self.run / TOKENIZER, "base": base_of(config, self.run)}

    @property
    def deadline(self) -> float | None:
        """Of ``time.monotonic``."""
        return None if self.minutes is None else 60 * self.minutes - self.clock

    def out_of_time(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def save(self) -> None:
        self.state.seconds = time.monotonic() + self.clock
        artifacts.write_json(self.run / SWEEP, asdict(self.state))

    def search(self, source: Source, points: Sequence[search.Settings], number: int, halving: bool) -> None:
        """Data, all rungs, and the model of the best trial, as far as the time allows."""
        config, origins = self.configure(self.space.fixed)
        self.save()
        to_tokens(source, self.run, config, origins, self.say)
        state = self.state
        if not state.shares:
            self.begin([self.configure(_texts(self.space, point))[0] for point in points] or [config], number, halving)
            state.trials = [Trial(at + 1, point) for at, point in enumerate(points)]
        try:
            alive = list(self.first_rung(number, config.train.seed))
            for rung in range(1, len(state.shares)):
                through = {trial.number: trial.losses[rung - 1] for trial in alive if len(trial.losses) >= rung}
                through = {at: loss for at, loss in through.items() if state.trials[at - 1].state != "failed"}
                going_on = [state.trials[at - 1] for at in search.promoted(through)]
                for trial in alive:
                    if trial not in going_on and trial.state == "tried":
                        trial.state = "dropped"
                        self.clear(trial)
                alive = going_on
                for trial in alive:
                    self.attempt(trial, rung)
            self.deliver(source)
            state.finished = True
        except _OutOfTime:
            self.say("           the time is up; the same command with more --minutes goes on")
            self.write_best()
        finally:
            self.save()

    def begin(self, configs: Sequence[Config], number: int, halving: bool) -> None:
        """Fix the rungs, which hold for all starts."""
        from ownchat.pipeline import trials

        tokens = self.run / TOKENS
        trials.check_samples(configs, tokens)
        totals = [trials.total_steps(config, tokens) for config in configs]
        self.state.shares = list(search.rungs(number, min(totals), halving=halving))
        self.state.full_steps = sum(totals) * number // len(totals)

    def first_rung(self, number: int, seed: int) -> Iterator[Trial]:
        """Every trial; those of Optuna as it suggests them."""
        trials = self.state.trials
        for at in range(number):
            if at == len(trials):
                tried = [(trial.settings, trial.losses[0] if trial.losses else None) for trial in trials]
                trials.append(Trial(at + 1, search.suggest(self.space, tried, at, seed)))
            self.attempt(trials[at], 0)
            yield trials[at]

    def attempt(self, trial: Trial, rung: int) -> None:
        """Train a trial for a rung, unless it was; what fails is recorded and passed over."""
        if len(trial.losses) > rung or trial.state in ("failed", "dropped"):
            return
        if trial.starts >= MAX_STARTS:
            self.failed(trial, f"it ended the program {MAX_STARTS} times")
            return
        if self.out_of_time():
            raise _OutOfTime
        trial.state, trial.starts = "running", trial.starts + 1
        self.save()
        began = time.monotonic()
        from ownchat.pipeline import trials

        try:
            loss = self.train(trial, rung)
        except Interrupted:
            trial.state, trial.starts = "waiting", trial.starts - 1
            if self.out_of_time():
                raise _OutOfTime from None
            raise
        except (OwnchatError, RuntimeError, ValueError, MemoryError) as error:
            if trials.disk_is_full(error):
                raise
            what = error.what if isinstance(error, UserError) else str(error).strip().split("\n")[0]
            self.failed(trial, what or type(error).__name__)
        else:
            trial.state, trial.starts = "tried", 0
            trial.losses.append(loss)
            seconds = elapsed_text(time.monotonic() - began)
            of = f"trial {trial.number}, rung {rung + 1} of {len(self.state.shares)}"
            self.say(f"{'sweep':>9}  {of}: loss {loss:.4f}, {described(trial.settings)}  ({seconds})")
        finally:
            trial.seconds += time.monotonic() - began
            self.save()

    def train(self, trial: Trial, rung: int) -> float:
        """The best validation loss of a rung."""
        from ownchat.pipeline import trials
        from ownchat.train import decisions
        from ownchat.train.signals import StopRequest

        config, inputs, chosen = self.configure(_texts(self.space, trial.settings))[0], self.inputs, self.run / TRIALS
        decisions.decide(config, chosen)  # what is measured is measured once: all trials compute alike
        with StopRequest(self.deadline) as stop:
            score = trials.train_share(
                config, inputs, self.output(trial, rung), self.state.shares[rung], stop, like=chosen
            )  # fmt: skip
        going_on = trials.goes_on(config, inputs["tokens"])
        trial.steps = score.steps if going_on else trial.steps + score.steps
        if rung and not going_on:
            trials.clear(self.output(trial, rung - 1))
        return score.loss

    def output(self, trial: Trial, rung: int) -> Path:
        """Where a rung trains: in a directory of its own, unless it goes on from the rung before."""
        from ownchat.pipeline import trials

        config, _ = self.configure(_texts(self.space, trial.settings))
        name = "training" if trials.goes_on(config, self.run / TOKENS) else f"rung-{rung + 1}"
        return self.run / TRIALS / f"trial-{trial.number:03d}" / name

    def failed(self, trial: Trial, why: str) -> None:
        trial.state, trial.why = "failed", printable(why)
        self.say(f"{'sweep':>9}  trial {trial.number} failed, {described(trial.settings)}: {trial.why}")
        self.clear(trial)

    def clear(self, trial: Trial) -> None:
        from ownchat.pipeline import trials

        for output in (self.run / TRIALS / f"trial-{trial.number:03d}").glob("*"):
            trials.clear(output)

    def write_best(self) -> tuple[Config, Origins] | None:
        """The best settings as a file for ``--config``."""
        if (best := self.state.best()) is None:
            return None
        config, origins = self.configure(_texts(self.space, best.settings))
        origins |= dict.fromkeys(best.settings, f"given (trial {best.number} of {self.run.name})")
        artifacts.write_atomic(self.run / BEST, to_yaml(config, origins))
        return config, origins

    def deliver(self, source: Source) -> None:
        """The best trial becomes the run's training, which ``ownchat train`` with its settings finds done."""
        from ownchat.pipeline import trials
        from ownchat.train import stage as training

        best, made = self.state.best(), self.write_best()
        if best is None or made is None:
            return
        config, origins = made
        trained = self.output(best, len(self.state.shares) - 1)
        report = trials.hand_over(config, self.inputs, trained, self.run / TRAIN)
        settings = to_yaml(*with_derived(config, origins, training.derived(config, report)))
        artifacts.write_atomic(self.run / "config.yaml", settings)
        asked = {"source": self.state.source, "key": request_key(config, source)}
        artifacts.write_json(self.run / REQUEST, asked)
        for trial in self.state.trials:
            self.clear(trial)


# ------------------------------------------------------------------------------------------------------ printing


def described(settings: search.Settings) -> str:
    """Settings on one line.

    >>> described({"train.learning_rate": "1e-3", "model.lora_rank": "8"})
    'learning_rate 1e-3, lora_rank 8'
    """
    return ", ".join(f"{key.partition('.')[2]} {value}" for key, value in settings.items())


def lines(outcome: Outcome) -> list[str]:
    """The table for people, best first, and how to go on."""
    keys = list(outcome.best.settings)
    header = ["trial", *(key.partition(".")[2] for key in keys), "loss", "of the training", "steps", "time", ""]
    rows = [header]
    for trial in outcome.trials:
        share = f"{outcome.shares[len(trial.losses) - 1]:.0%}" if trial.losses else ""
        loss = f"{trial.losses[-1]:.4f}" if trial.losses else ""
        note = f"failed: {trial.why}"[:60] if trial.state == "failed" else "best" if trial is outcome.best else ""
        values = [trial.settings[key] for key in keys]
        rows.append(
            [str(trial.number), *values, loss, share, f"{trial.steps:,}", elapsed_text(trial.seconds), note]
        )  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(header))]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)) for row in rows]
    table = [f"{line}  {row[-1]}".rstrip() for line, row in zip(shown, rows, strict=True)]
    saved = f"{outcome.steps:,} steps trained; every trial to its end would be {outcome.full_steps:,}"
    settings = " ".join(f"--set {key}={value}" for key, value in outcome.best.settings.items())
    done = "It is trained; this evaluates it:" if outcome.finished else "The time was up. This trains it:"
    return [*table, "", saved, "Loss: validation, nats per token; the test split was not read.", "",
            f"Best: {settings}", f"      {outcome.config}", done, f"      {outcome.command}"]  # fmt: skip
