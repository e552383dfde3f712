"""Is it safe to show? What training on one's own text can leak, break or make worse, measured on every run.

Each check is a function of a :class:`Subject`, the run's two models with its records, and gives a :class:`Check`:
figures of the base beside those of the tuned model, what they mean, and what to do. What is measured is set by
``evaluate.care``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ownchat.artifacts import CLEAN
from ownchat.config import Config
from ownchat.config.sections import CareKey
from ownchat.data.records import Record, read_records
from ownchat.errors import ConfigError, UserError, nearest, printable
from ownchat.evaluate.documents import windows
from ownchat.evaluate.passes import passes
from ownchat.evaluate.probe_files import Kind, read_probe
from ownchat.evaluate.scores import Interval
from ownchat.generate.engine import Sampling
from ownchat.monitor.progress import progress
from ownchat.tokenizer.canaries import planted, planting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ownchat.evaluate.answers import Answer

Side = Literal["base", "tuned"]
CheckName = Literal["memorisation", "forgetting", "bias", "toxicity", "truth", "scope"]
Level = Literal["good", "note", "warning", "danger"]

CHECKS: tuple[CheckName, ...] = get_args(CheckName)
READS: dict[Kind, CheckName] = {  # the check for each kind of probe file
    "pairs": "bias", "bbq": "bias", "truth": "truth", "scope": "scope", "prompts": "toxicity", "general": "forgetting",
}  # fmt: skip
WHERE = "evaluate.care"
ROWS, SAMPLES = 64, 32  # enough for a warning, and little beside a training
MOST_ROWS, MOST_SAMPLES = 100_000, 10_000
WINDOW_TOKENS = 2048  # longest piece that is scored in one forward pass
GREEDY = Sampling()


@dataclass(frozen=True)
class Figure:
    """One number of a check, of both models. ``difference``: tuned - base, paired where both saw the same rows."""

    name: str  # snake_case, once in its check
    title: str
    meaning: str  # a line for a lay reader
    unit: Literal["percent", "nats", "bits", "share", "count"]
    better: Literal["lower", "higher", "zero", "none"]
    base: Interval | None  # None: not measured, or there is no base
    tuned: Interval | None
    difference: Interval | None


@dataclass(frozen=True)
class Finding:
    """What the figures of a check come to, and what to do about it."""

    level: Level
    text: str
    advice: str | None = None


@dataclass(frozen=True)
class Check:
    """What one check found. ``examples``: a few, short, with what is private masked. ``conditions``: rows, seeds, the
    probe's name, version and hash. ``skipped``: why it could not be measured."""

    name: CheckName
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]
    conditions: dict[str, Any]
    examples: tuple[dict[str, str], ...] = ()
    skipped: str | None = None


@dataclass(frozen=True)
class Options:
    """``evaluate.care``, understood. ``rows``: records that are scored by likelihood; ``samples``: answers that are
    written; ``canaries`` and ``repeats``: what is planted; ``probes``: files of questions besides those that ship."""

    checks: tuple[CheckName, ...]
    rows: int
    samples: int
    canaries: int
    repeats: tuple[int, ...]
    probes: tuple[Path, ...]


def options(config: Config) -> Options:
    """Raises :class:`~ownchat.errors.ConfigError`, naming the key, for what cannot be meant.

    >>> options(Config()).rows
    64
    """
    given = config.evaluate.care
    wanted = planting(config)
    return Options(
        checks=_checks(given.get("checks")),
        rows=_count(given, "rows", ROWS, least=2, most=MOST_ROWS),
        samples=_count(given, "samples", SAMPLES, least=0, most=MOST_SAMPLES),
        canaries=wanted.canaries,
        repeats=wanted.repeats,
        probes=_probes(given.get("probes")),
    )


def _checks(value: Any) -> tuple[CheckName, ...]:
    if value is None:
        return CHECKS
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"checks = {value!r} is no list of names", where=WHERE, fix=f"choose of {', '.join(CHECKS)}")
    for name in names:
        if name not in CHECKS:
            fix = nearest(name, CHECKS) or f"checks are {', '.join(CHECKS)}"
            raise ConfigError(f'there is no check "{name}"', where=f"{WHERE}.checks", fix=fix)
    return tuple(name for name in CHECKS if name in names)


def _count(given: Mapping[CareKey, Any], key: CareKey, default: int, *, least: int, most: int) -> int:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(
            f"{key} = {value!r} is out of range", where=WHERE, fix=f"give a whole number from {least} to {most:,}"
        )
    return value


def _probes(value: Any) -> tuple[Path, ...]:
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConfigError(f"probes = {value!r} is no list of files", where=WHERE, fix="write probes: [FILE, ...]")
    paths = tuple(Path(name).expanduser() for name in names)
    for path in paths:
        if not path.is_file():
            raise ConfigError("there is no such file", where=f"{WHERE}.probes: {path}", fix="check the path")
    return paths


def check(config: Config, run: Path | None = None) -> None:
    """Raise what is wrong with the settings or with a probe file, before any work begins. ``run``: a finished one, in
    which nothing can be planted any more."""
    wanted = options(config)
    if run is not None and "canaries" in config.evaluate.care:
        found = planted(run)
        repeats = [] if found is None else [canary.repeats for canary in found[0]]
        if repeats != [wanted.repeats[at % len(wanted.repeats)] for at in range(wanted.canaries)]:
            raise ConfigError(
                "canaries are planted before training, and this run has others or none", where=f"{WHERE}.canaries",
                fix="give it to ownchat train, or leave it out",
            )  # fmt: skip
    for path in wanted.probes:
        kind = read_probe(path).kind
        if READS[kind] not in wanted.checks and not (kind == "general" and config.train.replay):
            raise ConfigError(
                f"no check that is made reads this file (of {kind})", where=f"{WHERE}.probes: {path}",
                fix=f"add {READS[kind]} to evaluate.care.checks, or leave the file out",
            )  # fmt: skip
    for name in wanted.checks:
        if (check_probes := getattr(_modules()[name], "check_probes", None)) is not None:
            check_probes(wanted.probes)


class Subject:
    """A run's two models with its records; use as a context manager.

    ``base`` is None for a model from nothing. The tokenizer is that of the tuned model for both, so that both are
    scored on identical tokens. Models are loaded when they are asked for, and as many are held as fit into the memory.
    ``answered``: greedy answers to questions of the test split that are there already. ``dtype``: in which rows are
    scored, the one that training measured as the faster; answers are written in float32, as in a chat.
    """

    def __init__(
        self,
        *,
        config: Config,
        base: Path | None,
        tuned: Path,
        run: Path | None = None,
        seed: int = 0,
        block_tokens: int = WINDOW_TOKENS,
        answered: Sequence[Answer] = (),
        dtype: str = "float32",
    ) -> None:
        self.run, self.config, self.seed = run, config, seed
        self.answered = answered
        self.options = options(config)
        self.base, self.tuned = base, tuned
        self.title = "care"  # of the check that is at work, for the progress line
        self.dtype = dtype if dtype == "bfloat16" else "float32"
        self._block_tokens = block_tokens
        self._held: dict[tuple[Side, str], Any] = {}  # a model that scores, an engine that answers

    @property
    def sides(self) -> tuple[Side, ...]:
        """The models that there are."""
        return ("tuned",) if self.base is None else ("base", "tuned")

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        from ownchat.tokenizer.stage import load_tokenizer

        return load_tokenizer(self.tuned)

    @cached_property
    def context(self) -> int:
        """Tokens that the model can attend to."""
        from ownchat.tokenizer.stage import context_tokens

        return context_tokens(self.tuned)

    def render(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """The conversation so far as ids, opened for the assistant's turn."""
        from ownchat.tokenizer.render import prompt_ids

        return prompt_ids(self.tokenizer, messages)

    def records(self, split: Literal["train", "valid", "test"]) -> Iterator[Record]:
        """Of the cleaned data; none without a run."""
        return iter(()) if self.run is None else read_records(self.run / CLEAN / split)

    def losses(self, side: Side, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """For each row (ids, mask): the natural-log probabilities of the tokens whose mask is 1, in their order.

        The first token of a row has nothing before it: its mask must be 0. Rows that are longer than the context are
        scored in windows that overlap. A beginning that neighbouring rows share, such as a question before its choices,
        is computed once.
        """
        return [values.tolist() for values, _ in self.scored(side, rows)]

    def scored(
        self, side: Side, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """:meth:`losses` as float64 [masked], and bool [masked]: was this token the likeliest one?"""
        from ownchat.model.block import shares_prefix
        from ownchat.model.score import score_documents

        if not rows:
            return []
        limit = min(self.context, WINDOW_TOKENS)
        cut = [windows((list(ids), [int(bool(one)) for one in mask]), limit) for ids, mask in rows]
        assert not any(pieces[0][1][0] for pieces in cut), "a first token has no probability"
        model, pieces = self._model(side), [piece for parts in cut for piece in parts]
        with progress(f"{self.title}: scoring the {self._named(side)}", len(pieces), "pieces") as advance:
            scores, hits = [np.zeros(0)] * len(pieces), [np.zeros(0, bool)] * len(pieces)
            for places in passes([ids for ids, _ in pieces]) if shares_prefix(model) else [list(range(len(pieces)))]:
                likeliest: list[np.ndarray] = []
                found = score_documents(
                    model,
                    [pieces[place] for place in places],
                    block_tokens=self._block_tokens,
                    progress=advance,
                    likeliest=likeliest,
                )
                for place, values, right in zip(places, found, likeliest, strict=True):
                    scores[place], hits[place] = values, right
        ends = np.cumsum([len(parts) for parts in cut])
        return [
            (np.concatenate(scores[end - len(parts) : end]), np.concatenate(hits[end - len(parts) : end]))
            for parts, end in zip(cut, ends, strict=True)
        ]

    def answers(
        self, side: Side, prompts: Sequence[Sequence[int]], max_tokens: int, *, sampling: Sampling = GREEDY
    ) -> list[str]:
        """Answers of at most ``max_tokens`` to rendered prompts, without special tokens and white space around them.

        Sampled ones depend on ``sampling.seed`` (none: the subject's), and on the prompt's place in the list.
        """
        from dataclasses import replace

        if not prompts:
            return []
        if not sampling.greedy and sampling.seed is None:
            sampling = replace(sampling, seed=self.seed)
        engine = self._engine(side)
        with progress(f"{self.title}: answers of the {self._named(side)}", len(prompts), "answers") as advance:
            made = engine.answer_batch(prompts, max_tokens, sampling=sampling, progress=advance)
        return [engine.text(ids).strip() for ids in made]

    def close(self) -> None:
        """Let go of all models."""
        for key in list(self._held):
            self._drop(key)

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ inside

    def _named(self, side: Side) -> str:
        return "base" if side == "base" else "tuned model"

    def _directory(self, side: Side) -> Path:
        if side == "tuned":
            return self.tuned
        if self.base is None:
            raise UserError("a model from nothing has no base", where=self.title)
        return self.base

    def _model(self, side: Side) -> Any:
        """Scores packed rows, and does not generate."""
        from ownchat.model.load import load_model

        if (side, "scores") not in self._held:
            self._make_room(side)
            self._held[side, "scores"] = load_model(self._directory(side), dtype=self.dtype, packed=True)
        return self._held[side, "scores"]

    def _engine(self, side: Side) -> Any:
        from ownchat.generate.hf import chat_engine

        if (side, "answers") not in self._held:
            self._make_room(side)
            self._held[side, "answers"] = chat_engine(self._directory(side), tokenizer=self.tuned)
        return self._held[side, "answers"]

    def _make_room(self, side: Side) -> None:
        """Before a model is loaded: the others go, unless there is room for it twice over beside them."""
        if not self._held:
            return
        files = self._directory(side).glob("*.safetensors")
        wanted = 2 * 2 * sum(path.stat().st_size for path in files)  # half-precision files become float32
        free = _free_bytes()
        if free is not None and free < wanted:
            self.close()

    def _drop(self, key: tuple[Side, str]) -> None:
        from ownchat.model.out_of_memory import make_room

        held = self._held.pop(key)
        if key[1] == "answers":
            held.close()
        del held
        make_room()


def _free_bytes() -> int | None:
    """Memory where models run; None where it is not known."""
    import torch

    from ownchat.model.load import best_device
    from ownchat.model.out_of_memory import Guard

    return int(torch.cuda.mem_get_info()[0]) if best_device() == "cuda" else Guard().available()


# ------------------------------------------------------------------------------------------------- measuring


def measure(subject: Subject) -> dict[str, Any]:
    """``{"checks": [...], "seconds": s, "dtype": ...}``: all checks of the options, as values for JSON.

    A check that cannot be made (no suitable records, a probe that does not fit the model) says why and stops nothing.
    """
    start = time.monotonic()
    found = []
    for name in subject.options.checks:
        subject.title, began = name, time.monotonic()
        try:
            made = _modules()[name].measure(subject)
        except UserError as error:
            made = Check(name, (), (), {}, skipped=printable(error.what))
        found.append(asdict(made) | {"seconds": round(time.monotonic() - began, 1)})
    return {"checks": found, "seconds": round(time.monotonic() - start, 1), "dtype": subject.dtype}


def headline(name: str) -> str:
    """The figure of a check that stands for it where only one is asked for."""
    return str(_modules()[name].HEADLINE)


def _modules() -> dict[str, Any]:
    """The module of each check. They import the words above, so they come last."""
    from ownchat.evaluate import bias, forgetting, memorisation, scope, toxicity, truth

    modules: dict[str, Any] = {
        "memorisation": memorisation, "forgetting": forgetting, "bias": bias, "toxicity": toxicity, "truth": truth,
        "scope": scope,
    }  # fmt: skip
    return modules
