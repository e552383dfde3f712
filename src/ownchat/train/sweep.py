"""The search of a sweep: which settings to try, and which of them are trained on. Pure functions; nothing runs here.

Successive halving (Jamieson and Talwalkar 2016): all trials get a ninth of the training, the best third of them a
third, the best of those the whole of it. How a trial that was cut short can be a fair preview, see docs/sweep.md.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ownchat.config import Config, load_config
from ownchat.errors import ConfigError

Settings = dict[str, str]  # {"train.learning_rate": "1e-3"}: the texts that --set takes

KEPT = 3  # one trial of so many goes on; the next rung is so many times longer
MAX_RUNGS = 3  # a rung below a ninth of the training says little about all of it
MIN_STEPS = 8  # of the shortest rung
MAX_GRID = 64  # points; more than these nobody means, unless --trials says how many are drawn

NOT_SWEPT = {
    "model.base": "losses of different tokenizers do not compare",
    "train.epochs": "it is the length of the whole training, of which trials get a share: give one value",
    "train.minutes": "trials would end at different points; give --minutes for all of them together",
    "train.validate_every": "trials are compared on the same sample of the valid split",
    "train.preference": "losses of different objectives do not compare",
    "train.preference_beta": "losses of different objectives do not compare",
    "train.preference_epochs": "it is the length of the whole training, of which trials get a share: give one value",
    "train.trackers": "it changes no result",
    "train.threads": "it changes no result",
}


@dataclass(frozen=True)
class Choice:
    """A setting and the values to try, as texts."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A setting and the interval to draw from; ``log``: uniform in the logarithm."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool  # integers only

    def text(self, value: float) -> str:
        """As ``--set`` takes it: whole numbers as such, others with four figures."""
        return str(round(value)) if self.whole else f"{value:.4g}"


@dataclass(frozen=True)
class Space:
    """What is tried, and what is given once and holds for every trial."""

    axes: tuple[Choice | Range, ...]
    fixed: tuple[str, ...]  # "key=value"

    @property
    def size(self) -> int:
        """Points of the grid; ranges count as one."""
        return math.prod(len(axis.values) for axis in self.axes if isinstance(axis, Choice))


def parse(sets: Sequence[str]) -> Space:
    """``key=a,b,c`` is a choice, ``key=low..high`` and ``key=low..high:log`` a range, ``key=a`` is fixed.

    Raises :class:`~ownchat.errors.ConfigError` for an unknown key, a value out of range, a range of what is no number,
    a setting that trials cannot differ in, and when nothing is left to try.

    >>> parse(["train.learning_rate=5e-4,1e-3", "train.seed=1"])
    Space(axes=(Choice(key='train.learning_rate', values=('5e-4', '1e-3')),), fixed=('train.seed=1',))
    """
    axes: list[Choice | Range] = []
    fixed: list[str] = []
    for text in sets:
        key, separator, raw = (part.strip() for part in text.partition("="))
        if not separator:
            raise ConfigError(f'"{text}" has no "="', where="--set", fix="write --set section.key=value,value")
        kind = _kind(key)
        if kind in (int, float) and ".." in raw:
            axes.append(_range(key, raw, whole=kind is int))
            continue
        values = _split(raw)
        if len(values) > 1 and not all(values):
            raise ConfigError(f"{key}: an empty value among {raw!r}", where="--set", fix="take a comma away")
        if len(values) == 1:
            load_config(sets=[text])  # what is wrong with it is said now
            fixed.append(text)
        else:
            axes.append(Choice(key, tuple(values)))
    _check(axes)
    return Space(tuple(axes), tuple(fixed))


def _check(axes: Sequence[Choice | Range]) -> None:
    keys = [axis.key for axis in axes]
    if not axes:
        raise ConfigError(
            "nothing to try: every setting has one value",
            where="--set",
            fix="give several, for example --set train.learning_rate=5e-4,1e-3,2e-3",
        )
    for number, axis in enumerate(axes):
        section = axis.key.split(".")[0]
        if axis.key in NOT_SWEPT:
            raise ConfigError(f"{axis.key} cannot be swept: {NOT_SWEPT[axis.key]}", where="--set")
        if section not in ("train", "model"):
            raise ConfigError(
                f"{axis.key} cannot be swept: all trials share the same records and tokens",
                where="--set",
                fix="sweep settings of train and model; others get one value",
            )
        if axis.key in keys[:number]:
            raise ConfigError(f"{axis.key} is given twice", where="--set", fix="put all its values into one --set")
        ends = axis.values if isinstance(axis, Choice) else (axis.text(axis.low), axis.text(axis.high))
        tried = [_value(axis.key, text) for text in ends]
        if len({repr(value) for value in tried}) < len(tried):
            raise ConfigError(f"{axis.key}: two of the values {', '.join(ends)} are the same", where="--set")


def _value(key: str, text: str) -> Any:
    """A setting's value as the configuration reads it; raises what it raises."""
    section, _, name = key.partition(".")
    return getattr(getattr(load_config(sets=[f"{key}={text}"])[0], section), name)


def _kind(key: str) -> Any:
    """The type of a setting without its None; raises for a key that is not known, with the nearest."""
    section, _, name = key.partition(".")
    model = Config.model_fields.get(section)
    field = model.annotation.model_fields.get(name) if model else None  # type: ignore[union-attr]
    if field is None:
        load_config(sets=[f"{key}=null"])
        raise AssertionError(f"{key} was taken")
    kinds = get_args(field.annotation)
    return next(kind for kind in kinds if kind is not type(None)) if type(None) in kinds else field.annotation


def _range(key: str, raw: str, *, whole: bool) -> Range:
    body, _, scale = raw.partition(":")
    ends = body.split("..")
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise ConfigError(
            f'{key}: "{raw}" is no range', where="--set", fix=f"write {key}=1e-4..1e-2 or {key}=1e-4..1e-2:log"
        ) from None
    if scale not in ("", "log"):
        raise ConfigError(f'{key}: "{scale}" after the range', where="--set", fix="only :log is known")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{key}: the range {body} is empty", where="--set", fix="the smaller number comes first")
    if scale and low <= 0:
        raise ConfigError(f"{key}: a logarithm needs a range above 0", where="--set", fix="leave :log out")
    if whole and not (low.is_integer() and high.is_integer()):
        raise ConfigError(f"{key} is a whole number, the range {body} is not", where="--set")
    return Range(key, low, high, scale == "log", whole)


def _split(text: str) -> list[str]:
    """At commas that stand in no bracket and no quotation.

    >>> _split("[a, b],c"), _split("lora")
    (['[a, b]', 'c'], ['lora'])
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        if letter in "'\"":
            quote = "" if quote == letter else quote or letter
        elif not quote:
            depth += (letter in "[{") - (letter in "]}")
        parts[-1] += letter
    return [part.strip() for part in parts]


# ----------------------------------------------------------------------------------------------- which trials


def grid(space: Space, trials: int | None = None, seed: int = 0) -> list[Settings]:
    """All points, the last setting changing fastest; ``trials``: an even draw of so many, where there are more.

    Raises :class:`~ownchat.errors.ConfigError` for a range, and for a grid of more than :data:`MAX_GRID` points.
    """
    for axis in space.axes:
        if isinstance(axis, Range):
            raise ConfigError(
                f"{axis.key} has a range, and a grid needs values", where="--set", fix="give --sampler optuna"
            )
    if trials is None and space.size > MAX_GRID:
        raise ConfigError(
            f"the grid has {space.size:,} points",
            where="--set",
            fix="give fewer values, or --trials 20 to draw 20 of them, or --sampler optuna",
        )
    numbers: Sequence[int] = range(space.size)
    if trials is not None and trials < space.size:
        numbers = sorted(random.Random(seed).sample(numbers, trials))
    return [_point(space, number) for number in numbers]


def _point(space: Space, number: int) -> Settings:
    chosen: Settings = {}
    for axis in reversed(space.axes):
        assert isinstance(axis, Choice)
        number, at = divmod(number, len(axis.values))
        chosen[axis.key] = axis.values[at]
    return {axis.key: chosen[axis.key] for axis in space.axes}


def suggest(space: Space, tried: Sequence[tuple[Settings, float | None]], number: int, seed: int = 0) -> Settings:
    """Trial ``number`` by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), given earlier ones.

    ``tried``: settings and loss, None for what failed. The same arguments give the same settings, so that a sweep
    that was interrupted goes on as it would have.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {axis.key: _distribution(axis) for axis in space.axes}
    # a quarter of the trials are taken for good ones, not Optuna's tenth, which of twenty trials is two
    sampler = optuna.samplers.TPESampler(
        seed=seed * 1_000_003 + number, n_startup_trials=4, gamma=lambda trials: max(2, trials // 4)
    )
    study = optuna.create_study(sampler=sampler)
    for settings, loss in tried:
        made = optuna.trial.create_trial(
            params={axis.key: _parameter(axis, settings[axis.key]) for axis in space.axes},
            distributions=distributions,
            value=loss,
            state=optuna.trial.TrialState.COMPLETE if loss is not None else optuna.trial.TrialState.FAIL,
        )
        study.add_trial(made)
    asked = study.ask(distributions).params
    return {axis.key: axis.text(asked[axis.key]) if isinstance(axis, Range) else asked[axis.key] for axis in space.axes}


def _distribution(axis: Choice | Range) -> Any:
    from optuna import distributions

    if isinstance(axis, Choice):
        return distributions.CategoricalDistribution(axis.values)
    if axis.whole:
        return distributions.IntDistribution(round(axis.low), round(axis.high), log=axis.log)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _parameter(axis: Choice | Range, text: str) -> Any:
    if isinstance(axis, Choice):
        return text
    value = min(max(float(text), axis.low), axis.high)  # four figures may round over the end
    return round(value) if axis.whole else value


# -------------------------------------------------------------------------------------------------- which rungs


def rungs(num_trials: int, steps: int, *, halving: bool = True) -> tuple[float, ...]:
    """Shares of the whole training that trials get, shortest first; the last one is 1.

    ``steps``: of the shortest whole training among the trials.

    >>> rungs(9, 900), rungs(3, 900), rungs(9, 30), rungs(9, 900, halving=False)
    ((0.1111111111111111, 0.3333333333333333, 1.0), (0.3333333333333333, 1.0), (0.3333333333333333, 1.0), (1.0,))
    """
    shares = [1.0]
    while halving and len(shares) < MAX_RUNGS and KEPT ** (len(shares) - 1) < num_trials:
        share = 1 / KEPT ** len(shares)
        if steps * share < MIN_STEPS:
            break
        shares.insert(0, share)
    return tuple(shares)


def rung_steps(total: int, share: float) -> int:
    """Steps of a rung for a training of ``total`` steps: the same share of the data for every batch size."""
    return min(total, max(1, math.ceil(total * share - 1e-9)))


def promoted(losses: Mapping[int, float]) -> list[int]:
    """The trials that go on to the next rung, best first, of ``{trial: loss}``; the earlier one wins a tie.

    >>> promoted({0: 2.0, 1: 1.5, 2: 1.8, 3: 3.0})
    [1, 2]
    """
    return sorted(losses, key=lambda number: (losses[number], number))[: math.ceil(len(losses) / KEPT)]
