"""``ownchat prompt``: prompts kept as versions, and tried on a question, with any model."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ownchat import artifacts
from ownchat.artifacts import CLEAN
from ownchat.config import FROM_NOTHING, load_config
from ownchat.errors import ConfigError, RunError, UserError, nearest
from ownchat.generate import prompts
from ownchat.generate.answering import AnswerFunction, answer_all
from ownchat.generate.engine import Engine, Message
from ownchat.generate.locate import locate
from ownchat.generate.openai import OpenAIEngine, is_url
from ownchat.generate.prompt_text import used_variables
from ownchat.generate.prompts import Prompt
from ownchat.pipeline.lines import counted

if TYPE_CHECKING:  # loads pyarrow
    from ownchat.data.records import Record

ANSWER_TOKENS = 256  # of one question that is tried

Advance = Callable[[int], object]


# ---------------------------------------------------------------------------------------------------------- keeping


def new(
    name: str, *, system: str | None = None, file: Path | None = None, variables: Mapping[str, str] | None = None,
    note: str | None = None,
) -> Prompt:  # fmt: skip
    """Keep a system text, or the prompt of a file, as the next version of ``name``.

    Raises :class:`~ownchat.errors.ConfigError` for a name, a text or a file that cannot be.
    """
    prompts.check_name(name)
    if (system is None) == (file is None):
        raise ConfigError(
            "give the system text, or a file", where=f"prompt new {name}", fix="--system TEXT or --file F"
        )
    made = prompts.read(file) if file is not None else Prompt(system)
    prompt = replace(made, variables={**made.variables, **(variables or {})})
    return prompts.load(f"{name}@{prompts.save(prompt, name, note=note)}")


@dataclass(frozen=True)
class Kept:
    """A prompt that is kept: its versions, and what the newest one says of itself."""

    name: str
    versions: tuple[int, ...]
    system: str | None
    examples: int
    retrieve: int
    note: str


def kept() -> list[Kept]:
    """All prompts of this home, by name."""
    found = []
    for name in prompts.names():
        newest = prompts.load(name)
        found.append(
            Kept(
                name, tuple(prompts.versions(name)), newest.system, len(newest.examples), newest.retrieve,
                next(iter(newest.note.splitlines()), ""),
            )
        )  # fmt: skip
    return found


def text_of(name: str) -> str:
    """The file of a prompt, as it stands."""
    prompt = prompts.load(name)
    path = prompts.path_of(prompt.name or "", prompt.version) if prompt.version is not None else Path(prompt.name or "")
    return path.read_text(encoding="utf-8-sig")


def changes(first: str, second: str) -> list[str]:
    """Lines that differ between two prompts, as ``diff -u`` has them; none: they say the same."""
    before, after = prompts.load(first), prompts.load(second)
    old, new = (prompts.to_yaml(replace(prompt, note="")).splitlines() for prompt in (before, after))
    return list(difflib.unified_diff(old, new, before.label, after.label, lineterm=""))


# ----------------------------------------------------------------------------------------------------------- models


@contextmanager
def opened(model: str) -> Iterator[tuple[Engine, str]]:
    """An engine and its name: a run, a directory, ``starter``, a hub id, or a model behind a URL (``URL#MODEL``)."""
    engine: Engine
    if is_url(model):
        engine = server = OpenAIEngine(model)
        label = f"{server.model} at {server.url}"  # asks a server for its first model where none is named
    else:
        from transformers.utils import logging

        from ownchat.generate.hf import chat_engine

        logging.disable_progress_bar()
        engine, label = chat_engine(directory_of(model)), model
    try:
        yield engine, label
    finally:
        engine.close()


def directory_of(model: str) -> Path:
    """Where a local model lies: of a run, a directory, ``starter`` or a hub id; raises where there is none."""
    path = Path(model).expanduser()
    if model != "starter" and (_is_run(model) or path.is_dir()):
        return locate(artifacts.run_directory(model) if _is_run(model) else path).model
    from ownchat.model.load import resolve_base

    return resolve_base(model) if model == "starter" or "/" in model else artifacts.existing_run(model)


def _is_run(model: str) -> bool:
    return bool(model) and not model.startswith(".") and os.sep not in model and artifacts.run_directory(model).is_dir()


def base_of(run: str) -> str:
    """The base of a run, as :func:`opened` takes it: what prompts are for, where nothing else is said."""
    settings = settings_of(run)
    config, _ = load_config(settings)
    if config.model.base == FROM_NOTHING:
        raise ConfigError("a model from nothing has no base to ask", where=run, fix=f"--model {run}, or another model")
    if (model := artifacts.finished_model(settings.parent)) is not None and (base := locate(model).base) is not None:
        return str(base)
    return config.model.base


def settings_of(run: str) -> Path:
    """The ``config.yaml`` of a run; raises :class:`~ownchat.errors.RunError` where there is none."""
    path = artifacts.existing_run(run) / "config.yaml"
    if not path.is_file():
        raise RunError("this is not a run of ownchat", where=str(path.parent), fix="ownchat runs lists them")
    return path


def answerer(engine: Engine, prompt: Prompt, max_tokens: int, advance: Advance | None = None) -> AnswerFunction:
    """How a model answers under a prompt's parameters; ``max_tokens`` where it has none."""
    given = prompt.parameters.get("max_tokens", max_tokens)
    most = given if isinstance(given, int) else max_tokens
    sampling = prompts.sampling(prompt)
    return lambda asked: answer_all(engine, asked, max_tokens=most, sampling=sampling, progress=advance)


# ----------------------------------------------------------------------------------------------------------- trying


@dataclass(frozen=True)
class Attempt:
    """One answer; ``messages``: what the model got."""

    prompt: str
    model: str
    messages: list[Message]
    answer: str
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    notes: tuple[str, ...]


def attempt(
    name: str, question: str, *, model: str = "starter", variables: Mapping[str, str] | None = None,
    run: str | None = None,
) -> Attempt:  # fmt: skip
    """The answer to one question. ``run``: whose train split examples are looked up in; none: ``model``, if it is one.

    Raises :class:`~ownchat.errors.UserError` where there is no answer, for example since the examples are longer than
    the model's context.
    """
    prompt = with_variables(prompts.load(name), variables)
    if not question.strip():
        raise UserError("the question is empty", where="prompt try", fix="ownchat prompt try NAME 'QUESTION'")
    prompts.apply(prompt, [])  # a variable without a value is said before any work
    messages: list[Message] = [{"role": "user", "content": question.strip()}]
    local = artifacts.existing_run(model) if not is_url(model) and _is_run(model) else None
    if local is not None and (system := locate(local).system) is not None:
        messages.insert(0, {"role": "system", "content": system})  # what it was trained with; the prompt's goes over it
    retrieved: Sequence[tuple[str, str]] = ()
    notes = []
    source = run or (model if local is not None else None)
    look_up = finder(prompt, source)
    if look_up is not None:
        retrieved = look_up(question)
    elif prompt.retrieve:
        notes.append(f"{not_looked_up(prompt)}; --run names one")
    sent = prompts.apply(prompt, messages, retrieved=retrieved)
    with opened(model) as (engine, label):
        answered = answerer(engine, prompt, ANSWER_TOKENS)([sent])[0]
    if answered.error is not None:
        shown = len(prompt.examples) + len(retrieved)
        fix = f"fewer or shorter examples: there are {shown}" if shown and "context" in answered.error else ""
        raise UserError(answered.error, where=f"{prompt.label} with {label}", fix=fix)
    return Attempt(
        prompt.label, label, sent, answered.text, answered.seconds, answered.prompt_tokens, answered.completion_tokens,
        tuple(notes),
    )  # fmt: skip


def finder(prompt: Prompt, run: str | None) -> Callable[[str], Sequence[tuple[str, str]]] | None:
    """What finds the examples of a prompt for a question in the train split of a run; None: it has none, or no run."""
    if not prompt.retrieve or run is None:
        return None
    from ownchat.evaluate.retrieve import Examples, pairs

    examples = Examples(pairs(records_of(run, "train")))
    return lambda question: examples.nearest(question, prompt.retrieve)


def not_looked_up(prompt: Prompt) -> str:
    """What is said where :func:`finder` has no run to look in."""
    return f"{counted(prompt.retrieve, 'example')} that the prompt looks up: left out, since there is no run to look in"


def with_variables(prompt: Prompt, variables: Mapping[str, str] | None) -> Prompt:
    """The prompt with other values; raises :class:`~ownchat.errors.ConfigError` for a variable that it does not use."""
    return with_variables_of_either([prompt], variables)[0]


def with_variables_of_either(either: Sequence[Prompt], variables: Mapping[str, str] | None) -> list[Prompt]:
    """The prompts with other values; raises :class:`~ownchat.errors.ConfigError` for a variable that none uses."""
    used: set[str] = set()
    for prompt in either:
        for text in [prompt.system or "", *(text for pair in prompt.examples for text in pair)]:
            used |= set(used_variables(text, where=prompt.label))
    for name in variables or ():
        if name not in used:
            fix = nearest(name, used) or (f"there are {', '.join(sorted(used))}" if used else "there are no variables")
            where = " and ".join(dict.fromkeys(prompt.label for prompt in either))
            raise ConfigError(f'no variable "{name}" is used', where=where, fix=fix)
    return [replace(prompt, variables={**prompt.variables, **(variables or {})}) for prompt in either]


def records_of(run: str, split: str) -> list[Record]:
    """A split of a run; raises :class:`~ownchat.errors.RunError` for one that is not cleaned."""
    from ownchat.data.records import read_records

    folder = artifacts.existing_run(run) / CLEAN
    if not (folder / artifacts.MANIFEST).is_file():
        raise RunError("it is not cleaned yet", where=str(folder.parent), fix="ownchat clean FOLDER, or ownchat train")
    return list(read_records(folder / split))
