"""Public benchmarks: tasks of EleutherAI's lm-evaluation-harness on a model directory, or on a model behind a URL.

The harness asks, scores and estimates the standard error; the model, its precision and its tokenizer are ours, and no
code that comes with a model or a data set is run. Where the harness keeps a score for each question and the metric is
their mean, base and tuned are compared on the same questions with a paired bootstrap.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ownchat.artifacts import TRAIN, fingerprint, read_json, write_json
from ownchat.errors import UserError, nearest, printable
from ownchat.evaluate.scores import Interval, bootstrap
from ownchat.evaluate.wording import FEW_GROUPS

NAME = "benchmarks.json"  # beside a run's report
INSTALL = 'pip install "ownchat[benchmarks]"'
BATCH = {"cpu": 4, "cuda": 64}  # rows in a forward pass to begin with; halved when memory runs out
REQUESTS_AT_ONCE = 4  # to a model behind a URL
MEAN_TOLERANCE = 1e-6  # a metric this near to the mean of its questions' scores is that mean

Key = tuple[str, str, str]  # task, metric, filter
Questions = dict[Any, float]  # the harness's number of a question -> its score


@dataclass(frozen=True)
class Figure:
    """One metric of one task, for one model or for two. Scores are the harness's own, in its own unit."""

    task: str
    metric: str
    filter: str  # how an answer was taken out of the text; "none" for most tasks
    questions: int | None
    scores: dict[str, dict[str, float | None]]  # {"base": {"value": 0.31, "stderr": 0.02}, "tuned": ...}
    difference: Interval | None  # tuned - base on the same questions; None: one model, or no mean of questions
    higher_is_better: bool | None
    conditions: dict[str, Any]  # limit, shots, chat, version of the task


@dataclass(frozen=True)
class Benchmarks:
    """What was measured, with the version of the harness and the models by name."""

    harness: str
    models: dict[str, str]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Settings:
    """What is asked, and how. ``shots``: examples before each question; None: as many as the task wants."""

    tasks: tuple[str, ...]
    limit: int | None = None  # of questions in each task; None: all
    shots: int | None = None
    chat: bool = False  # questions as turns of a conversation, through the model's chat template
    include: Path | None = None  # folder with task files of the user's own


# -------------------------------------------------------------------------------------------------------- measuring


def measure(models: Mapping[str, Path], settings: Settings) -> Benchmarks:
    """Every task on every model directory; ``models`` by name, two of them are ``base`` and ``tuned``.

    Raises :class:`~ownchat.errors.UserError` without the harness, for a task that does not exist, and for a data set
    that cannot be had.
    """
    found = find_tasks(settings)
    results = {}
    for name, directory in models.items():
        results[name] = _with_smaller_batches(directory, found, settings)
    return summarize(
        {name: str(directory) for name, directory in models.items()}, results, settings, version("lm-eval")
    )


def measure_url(url: str, model: str, settings: Settings, *, tokenizer: Path | None = None) -> Benchmarks:
    """Every task on a model behind an OpenAI-compatible URL (``.../v1``).

    With ``settings.chat`` through ``/chat/completions``, which writes answers; else through ``/completions``, where
    the probability of given text can be asked for: that needs the model's ``tokenizer``. The key is
    ``OPENAI_API_KEY``'s. Raises :class:`~ownchat.errors.UserError` as :func:`measure` does, and for a server that
    cannot be reached or cannot do what a task wants.
    """
    found = find_tasks(settings)
    lm = _api_model(url, model, settings, tokenizer)
    try:
        result = _evaluate(lm, found, settings, where=url)
    except UserError:
        raise
    except Exception as error:  # of two HTTP libraries and one that tries again; or an answer of another form
        last = getattr(error, "last_attempt", None)  # what it failed with after the last try
        reason = _first_line(error if last is None else last.exception() or error)
        raise UserError(
            f"the server did not answer as the harness needs it: {reason}", where=url,
            fix="check the URL, the model's name and the server's log; without --chat its /completions has to give the "
            "probabilities of a prompt (echo and logprobs)",
        ) from error  # fmt: skip
    return summarize({"model": f"{url}#{model}"}, {"model": result}, settings, version("lm-eval"))


def summarize(
    models: dict[str, str], results: Mapping[str, dict[str, Any]], settings: Settings, harness: str
) -> Benchmarks:
    """Figures from what the harness returned for each model; ``harness``: its version."""
    scores = {name: read_scores(result) for name, result in results.items()}
    any_result = next(iter(results.values()))
    figures = []
    for key in dict.fromkeys(key for found in scores.values() for key in found):
        task, metric, filter = key
        known = {name: found[key] for name, found in scores.items() if key in found}
        conditions = {
            "limit": settings.limit, "shots": any_result.get("n-shot", {}).get(task), "chat": settings.chat,
            "version": any_result.get("versions", {}).get(task),
        }  # fmt: skip
        both = [found[2] for found in known.values()]
        figures.append(
            Figure(
                task, metric, filter, questions=_questions(any_result, task),
                scores={name: {"value": value, "stderr": stderr} for name, (value, stderr, _) in known.items()},
                difference=paired(*both) if list(known) == ["base", "tuned"] else None,
                higher_is_better=any_result.get("higher_is_better", {}).get(task, {}).get(metric),
                conditions=conditions,
            )
        )  # fmt: skip
    return Benchmarks(harness, models, tuple(figures))


def read_scores(result: Mapping[str, Any]) -> dict[Key, tuple[float, float | None, Questions | None]]:
    """Value, standard error and each question's score, where the value is their mean.

    >>> result = {"results": {"quiz": {"alias": "quiz", "acc,none": 0.5, "acc_stderr,none": 0.5}},
    ...           "samples": {"quiz": [{"doc_id": 0, "filter": "none", "acc": 1.0},
    ...                                {"doc_id": 1, "filter": "none", "acc": 0.0}]}}
    >>> read_scores(result)
    {('quiz', 'acc', 'none'): (0.5, 0.5, {0: 1.0, 1: 0.0})}
    """
    found: dict[Key, tuple[float, float | None, Questions | None]] = {}
    for task, row in result["results"].items():
        for name, value in row.items():
            metric, _, filter = name.partition(",")
            if not filter or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = row.get(f"{metric}_stderr,{filter}")
            stderr = float(error) if isinstance(error, int | float) else None  # "N/A" where there is none
            questions: Questions = {
                sample["doc_id"]: float(sample[metric])
                for sample in result.get("samples", {}).get(task, ())
                if sample.get("filter", filter) == filter and isinstance(sample.get(metric), int | float)
            }
            is_mean = bool(questions) and abs(float(np.mean(list(questions.values()))) - value) < MEAN_TOLERANCE
            found[task, metric, filter] = float(value), stderr, questions if is_mean else None
    return found


def paired(base: Questions | None, tuned: Questions | None, *, draws: int = 1000, seed: int = 0) -> Interval | None:
    """Mean of tuned - base over the questions that both were asked, with the paired bootstrap's 95 % interval.

    >>> paired({0: 0.0, 1: 1.0}, {0: 1.0, 1: 1.0}).value
    0.5
    """
    shared = [number for number in base or () if number in (tuned or {})]
    if not base or not tuned or not shared:
        return None
    sums = np.array([[tuned[number] - base[number], 1.0] for number in shared])
    return bootstrap(sums, lambda total: total[..., 0] / total[..., 1], [None] * len(shared), draws=draws, seed=seed)


def _questions(result: Mapping[str, Any], task: str) -> int | None:
    counts = result.get("n-samples", {}).get(task)
    return None if counts is None else int(counts["effective"])


# ------------------------------------------------------------------------------------------------------ the harness


def require_harness() -> None:
    """Raise :class:`~ownchat.errors.UserError` where the harness is not installed."""
    if find_spec("lm_eval") is None:
        raise UserError("lm-evaluation-harness is not installed", where="ownchat benchmark", fix=INSTALL)


def find_tasks(settings: Settings) -> Any:
    """The harness's manager of tasks that knows all that are asked; their data sets are read, or fetched, once."""
    require_harness()
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of what we do on purpose; progress is on screen
    if settings.include is not None and not settings.include.is_dir():
        raise UserError(
            "there is no such folder", where=f"--include {settings.include}", fix="give one with task files"
        )
    manager = None
    if settings.include is not None:  # alone first: to read all of the harness's own files takes seconds
        manager = TaskManager(include_path=str(settings.include), include_defaults=False)
    if manager is None or any(name not in manager.all_tasks for name in settings.tasks):
        manager = TaskManager(include_path=None if settings.include is None else str(settings.include))
    for name in settings.tasks:
        if name not in manager.all_tasks:
            fix = nearest(name, manager.all_tasks) or "lm-eval ls tasks lists them; --include FOLDER adds your own"
            raise UserError("there is no such task", where=name, fix=fix)
    for name in settings.tasks:
        _load_task(name, manager)
    return manager


def _load_task(name: str, manager: Any) -> None:
    from lm_eval.tasks import get_task_dict

    try:
        get_task_dict([name], manager)
    except Exception as error:  # of the harness, datasets, the hub's client and its HTTP library: each has its own
        raise UserError(
            f"the task's data cannot be read: {_first_line(error)}",
            where=name,
            fix="most tasks come from the Hugging Face hub: check the network; without one, tasks of your own with "
            "local files work (--include FOLDER)",
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return printable(text.splitlines()[0][:300]) if text else type(error).__name__


def _with_smaller_batches(directory: Path, manager: Any, settings: Settings) -> dict[str, Any]:
    """The tasks on a model directory; in half as many rows at a time when memory runs out."""
    from lm_eval.models.huggingface import HFLM

    from ownchat.model.load import best_device, load_model, load_tokenizer
    from ownchat.model.out_of_memory import is_out_of_memory, make_room
    from ownchat.monitor.progress import say

    batch = BATCH[best_device()]
    model, tokenizer = load_model(directory), load_tokenizer(directory)
    while True:
        try:
            lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, trust_remote_code=False)
            return _evaluate(lm, manager, settings, where=str(directory))
        except Exception as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
        batch //= 2
        make_room()
        say(f"out of memory: {batch} rows at a time from now on, same scores")


def _evaluate(lm: Any, manager: Any, settings: Settings, *, where: str) -> dict[str, Any]:
    import lm_eval

    try:
        result = lm_eval.simple_evaluate(
            model=lm,
            tasks=list(settings.tasks),
            num_fewshot=settings.shots,
            limit=settings.limit,
            log_samples=True,
            apply_chat_template=settings.chat,
            fewshot_as_multiturn=settings.chat,
            task_manager=manager,
            confirm_run_unsafe_code=False,
        )
    except NotImplementedError as error:
        raise UserError(
            f"this model cannot do what a task wants: {printable(str(error)) or 'not offered'}",
            where=where,
            fix="tasks that compare given texts need probabilities: leave out --chat, and give --tokenizer for a URL",
        ) from error
    assert result is not None, "only processes other than the first get nothing"
    return result


def _api_model(url: str, model: str, settings: Settings, tokenizer: Path | None) -> Any:
    if not settings.chat and tokenizer is None:
        raise UserError(
            "the probability of given text is asked for by tokens, and the model's tokenizer is not known",
            where=url,
            fix="add --tokenizer DIRECTORY, or --chat for tasks whose answers are written",
        )
    module = importlib.import_module("lm_eval.models.openai_completions")
    options: dict[str, Any] = {"model": model, "num_concurrent": REQUESTS_AT_ONCE, "trust_remote_code": False}
    if settings.chat:
        return module.LocalChatCompletion(base_url=f"{url.rstrip('/')}/chat/completions", **options)
    return module.LocalCompletionsAPI(
        base_url=f"{url.rstrip('/')}/completions",
        tokenizer=str(tokenizer),
        tokenizer_backend="huggingface",
        **options,
    )


# --------------------------------------------------------------------------------------------- keeping and printing


def save(found: Benchmarks, report: Path) -> Path:
    """Write beside a run's report; figures of the same task under the same conditions are replaced, others stay."""
    value = asdict(found) | {"train": fingerprint(report.parent / TRAIN)}
    mine = {_identity(figure) for figure in value["figures"]}
    earlier = (of_training(report, report.parent / TRAIN) or {"figures": []})["figures"]
    value["figures"] = [figure for figure in earlier if _identity(figure) not in mine] + list(value["figures"])
    write_json(report / NAME, value)
    return report / NAME


def of_training(report: Path, train: Path) -> dict[str, Any] | None:
    """What was saved of the model that this training made; None: nothing, or of another one."""
    if not (report / NAME).is_file():
        return None
    stored: dict[str, Any] = read_json(report / NAME)
    return stored if stored.get("train") == fingerprint(train) else None


def _identity(figure: Mapping[str, Any]) -> tuple[Any, ...]:
    conditions = figure["conditions"]
    return figure["task"], figure["metric"], figure["filter"], *(conditions[key] for key in sorted(conditions))


def lines(found: Benchmarks) -> list[str]:
    """The table for people: scores with the harness's standard error, differences with their interval."""
    names = list(found.models)
    head = ["task", "metric", "questions", *names]
    compared = names == ["base", "tuned"]
    table = [[*head, "tuned - base, 95 %"] if compared else head]
    for figure in found.figures:
        metric = figure.metric if figure.filter == "none" else f"{figure.metric} ({figure.filter})"
        row = [figure.task, metric, "" if figure.questions is None else f"{figure.questions:,}"]
        row += [_score(figure.scores.get(name)) for name in names]
        table.append([*row, _difference(figure)] if compared else row)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _score(score: Mapping[str, float | None] | None) -> str:
    if score is None or score["value"] is None:
        return "-"
    return f"{score['value']:.4f}" + ("" if score["stderr"] is None else f" ± {score['stderr']:.4f}")


def _difference(figure: Figure) -> str:
    found = figure.difference
    if found is None:
        return "-"
    said = "no clear difference"
    if figure.questions is not None and figure.questions < FEW_GROUPS:
        said = "too few questions to tell"
    elif figure.higher_is_better is not None and (found.above(0) or found.below(0)):
        said = "better" if found.above(0) == figure.higher_is_better else "worse"
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]  {said}"


def split_tasks(text: Sequence[str]) -> tuple[str, ...]:
    """Names from ``--tasks``, which may be given more than once and hold several with commas.

    >>> split_tasks(["hellaswag, arc_easy", "piqa"])
    ('hellaswag', 'arc_easy', 'piqa')
    """
    return tuple(dict.fromkeys(name.strip() for part in text for name in part.split(",") if name.strip()))
