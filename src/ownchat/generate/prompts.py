"""Prompts as versioned files: system text, examples, variables, parameters; and a prompt put before a conversation.

A prompt is ``$OWNCHAT_HOME/prompts/NAME/v0001.yaml``. A version is never written again: a change is the next version.
System text and examples are templates (:mod:`ownchat.generate.prompt_text`) in which ``{{name}}`` is a variable. What a
person asks is never a template.
"""

from __future__ import annotations

import getpass
import os
import re
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ownchat.artifacts import home, home_path, owner_only
from ownchat.errors import ConfigError, UserError, nearest
from ownchat.generate.engine import Message, Sampling
from ownchat.generate.prompt_text import check_template, escape, render

Parameter = float | int | str | list[str]

MOST_FILE_BYTES = 1_000_000
MOST_RENDERED = 2_000_000  # characters of all examples together
MOST_RETRIEVED = 64
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop")
PARAMETERS = ("max_tokens", *SAMPLING)
FIELDS = ("made", "by", "note", "system", "variables", "examples", "retrieve", "parameters")
HEADER = (
    "# A prompt of ownchat. This version stays as it is; a change is a new one: ownchat prompt new NAME --file FILE\n"
)


@dataclass(frozen=True)
class Prompt:
    """What stands before a conversation.

    ``system``: the system text; None leaves the one that a conversation has. ``examples``: questions with answers,
    shown as turns. ``retrieve``: so many more, which are looked up for each question among the rows of the train
    split. ``variables``: values for ``{{name}}`` in system text and examples. ``parameters``: how answers are sampled,
    named as in the ``generate`` section. ``note``: why it was made.
    """

    system: str | None
    examples: tuple[tuple[str, str], ...] = ()
    retrieve: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    name: str | None = None
    version: int | None = None
    note: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """As a command takes it.

        >>> Prompt("Be brief.", name="support", version=2).label
        'support@2'
        """
        if self.name is None:
            return "prompt"
        return self.name if self.version is None else f"{self.name}@{self.version}"


def apply(
    prompt: Prompt,
    messages: Sequence[Message],
    *,
    retrieved: Sequence[tuple[str, str]] = (),
    variables: Mapping[str, str] | None = None,
) -> list[Message]:
    """The conversation as a model gets it: system message, examples as turns, then ``messages``.

    The prompt's system text takes the place of a system message at the start of ``messages``. ``retrieved``: examples
    for this question, the most similar first; the most similar stands last, next to the question. They and
    ``messages`` are never templates. ``variables`` go over those of the prompt. Raises
    :class:`~ownchat.errors.ConfigError` for a variable that has no value.

    >>> apply(Prompt("You answer for {{company}}.", (("Hi", "Hello."),), variables={"company": "Acme"}),
    ...       [{"role": "user", "content": "{{open?}}"}])[0::3]
    [{'role': 'system', 'content': 'You answer for Acme.'}, {'role': 'user', 'content': '{{open?}}'}]
    """
    values = {**prompt.variables, **(variables or {})}
    turns = [_sent(message) for message in messages]
    head = [turns.pop(0)] if turns and turns[0]["role"] == "system" else []
    if prompt.system is not None:
        text = render(prompt.system, values, where=f"{prompt.label}, system")
        head = [{"role": "system", "content": text}] if text.strip() else []
    shown, chars = [], 0
    for number, pair in enumerate(prompt.examples, 1):
        where = f"{prompt.label}, example {number}"
        question, reply = (render(text, values, where=where) for text in pair)
        shown.append((question, reply))
        chars += len(question) + len(reply)
        if chars > MOST_RENDERED:
            raise ConfigError(f"examples of more than {MOST_RENDERED:,} characters", where=where, fix="shorten them")
    for question, reply in [*shown, *reversed(retrieved)]:
        head += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return head + turns


def _sent(message: Message) -> Message:
    """What a model is sent of a record's message."""
    return {key: value for key, value in message.items() if value is not None and key not in ("weight", "time")}


def system_text(prompt: Prompt) -> str | None:
    """The system text with the prompt's own variables; None where there is none."""
    if prompt.system is None:
        return None
    return render(prompt.system, prompt.variables, where=f"{prompt.label}, system").strip() or None


def sampling(prompt: Prompt) -> Sampling:
    """How answers are sampled; greedy where the prompt says nothing.

    >>> sampling(Prompt(None, parameters={"temperature": 0.7, "max_tokens": 50})).temperature
    0.7
    """
    given: dict[str, Any] = {name: value for name, value in prompt.parameters.items() if name in SAMPLING}
    if "stop" in given:
        given["stop"] = (given["stop"],) if isinstance(given["stop"], str) else tuple(given["stop"])
    return Sampling(**given)


# ------------------------------------------------------------------------------------------------------------ files


def directory() -> Path:
    """Where prompts are kept, whether one is there or not."""
    return home_path() / "prompts"


def names() -> list[str]:
    """Names of the prompts that are kept."""
    return sorted(path.name for path in directory().glob("*") if path.is_dir() and versions(path.name))


def versions(name: str) -> list[int]:
    """Versions of a prompt, the oldest first; none: there is no such prompt."""
    found = (re.fullmatch(r"v(\d{4,9})\.yaml", path.name) for path in (directory() / name).glob("v*.yaml"))
    return sorted(int(match[1]) for match in found if match)


def path_of(name: str, version: int) -> Path:
    """The file of a version."""
    return directory() / name / f"v{version:04d}.yaml"


def check_name(name: str) -> str:
    """The name, if it can be a prompt's; raises :class:`~ownchat.errors.ConfigError`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ConfigError(
            "this cannot be a prompt's name", where=repr(name),
            fix="letters, digits, dashes and underscores; a file is given with its folder: ./prompt.yaml",
        )  # fmt: skip
    return name


def name_from(text: str) -> str:
    """A name that can be a prompt's, as near to ``text`` as may be.

    >>> name_from("Büro v1.2"), name_from("..."), name_from("inbox-2")
    ('Buro-v1-2', 'prompt', 'inbox-2')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-_")[:64] or "prompt"


def load(name_or_path: str | Path) -> Prompt:
    """The prompt ``NAME`` (its newest version), ``NAME@2``, or that of a file: a path has a separator.

    Raises :class:`~ownchat.errors.ConfigError` for a prompt, a version or a file that is not there (with the nearest
    name), and for a file that is no prompt.
    """
    if isinstance(name_or_path, Path) or os.sep in name_or_path:
        path = Path(name_or_path).expanduser()
        return replace(read(path), name=str(path))
    name, at, wanted = name_or_path.partition("@")
    known = versions(check_name(name))
    if not known:
        others = names()
        fix = nearest(name, others) or (f"prompts are {', '.join(others)}" if others else f"ownchat prompt new {name}")
        raise ConfigError(f'there is no prompt "{name}"', where=str(directory()), fix=fix)
    number = known[-1] if not at else int(wanted) if re.fullmatch(r"[0-9]{1,9}", wanted) else 0
    if number not in known:
        raise ConfigError(
            f'the prompt "{name}" has no version "{wanted}"', where=str(directory() / name),
            fix=f"versions are {', '.join(map(str, known))}: {name}@{known[-1]}",
        )  # fmt: skip
    return replace(read(path_of(name, number)), name=name, version=number)


@owner_only()
def save(prompt: Prompt, name: str, *, note: str | None = None) -> int:
    """Keep a prompt as the next version of ``name``; returns its number.

    The file says when, by whom and why (``note``; none: the prompt's own), and is for its owner alone. Raises
    :class:`~ownchat.errors.ConfigError` for a name or a template that cannot be.
    """
    folder = home() / "prompts" / check_name(name)
    check(prompt, where=name)
    prompt = prompt if note is None else replace(prompt, note=note)
    text = HEADER + to_yaml(prompt, made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), by=_who())
    if len(text.encode()) > MOST_FILE_BYTES:
        raise ConfigError("too large for a prompt", where=name, fix=f"{MOST_FILE_BYTES:,} bytes at most")
    folder.mkdir(parents=True, exist_ok=True)
    version = max(versions(name), default=0) + 1
    aside = folder / f".{os.getpid()}.tmp.yaml"
    try:
        aside.write_text(text, encoding="utf-8")
        while True:
            try:
                os.link(aside, path_of(name, version))  # fails where the file is there: nothing is overwritten
                return version
            except FileExistsError:
                version += 1
    finally:
        aside.unlink(missing_ok=True)


def read(path: Path) -> Prompt:
    """The prompt of a YAML file, or of a text file (``.txt``, ``.md``), which is a system text without variables.

    Raises :class:`~ownchat.errors.ConfigError` with the line of what is wrong.
    """
    where = str(path)
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise ConfigError("too large for a prompt", where=where, fix=f"{MOST_FILE_BYTES:,} bytes at most")
        text = path.read_text(encoding="utf-8-sig")
        values = {"system": escape(text.strip())} if path.suffix.lower() in (".txt", ".md") else _yaml(text, where)
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", where=where, fix="check the path") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        what = getattr(error, "problem", None) or "no YAML"
        raise ConfigError(f"{place}{what}", where=where, fix="see docs/prompts.md for the form") from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: a date that is none, bytes that are no UTF-8
        raise ConfigError(f"not readable: {error}", where=where, fix="see docs/prompts.md for the form") from error
    return _prompt(values, where)


def _yaml(text: str, where: str) -> Any:
    """Without aliases: a few lines of them stand for more than fits into memory."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            place = f"line {event.start_mark.line + 1}: " if event.start_mark is not None else ""
            _must(False, f"{place}an alias (*NAME) cannot be used", where)
    return yaml.safe_load(text)


def _prompt(values: Any, where: str) -> Prompt:
    _must(isinstance(values, dict), "the file must hold lines such as system: TEXT", where)
    for key in values:
        if key not in FIELDS:
            fix = nearest(str(key)[:40], FIELDS) or f"known are {', '.join(FIELDS)}"
            raise ConfigError(f'unknown key "{str(key)[:40]}"', where=where, fix=fix)
    given = {key: value for key, value in values.items() if value is not None}
    _must(isinstance(given.get("system", ""), str), "system must be a text", where)
    _must(isinstance(given.get("note", ""), str), "note must be a text", where)
    retrieve = given.get("retrieve", 0)
    _must(type(retrieve) is int and 0 <= retrieve <= MOST_RETRIEVED, f"retrieve is 0 to {MOST_RETRIEVED}", where)
    variables = given.get("variables", {})
    _must(isinstance(variables, dict), "variables must be lines of name: value", where)
    for name, value in variables.items():
        _must(isinstance(name, str) and name.isidentifier(), f'"{str(name)[:40]}" cannot be a variable', where)
        good = isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 10**18)
        _must(good, f"the variable {name} must be a text", where)
    made = Prompt(
        system=given.get("system"),
        examples=_examples(given.get("examples", []), where),
        retrieve=retrieve,
        variables={name: str(value) for name, value in variables.items()},
        parameters=_parameters(given.get("parameters", {}), where),
        note=given.get("note", ""),
    )
    check(made, where=where)
    return made


def _examples(given: Any, where: str) -> tuple[tuple[str, str], ...]:
    _must(isinstance(given, list), "examples must be a list of question: and answer:", where)
    pairs: list[tuple[Any, Any]] = []
    for number, example in enumerate(given, 1):
        texts = [example.get("question"), example.get("answer")] if isinstance(example, dict) else []
        good = bool(texts) and len(example) == 2 and all(isinstance(text, str) and text.strip() for text in texts)
        _must(good, f"example {number} must have question: TEXT and answer: TEXT", where)
        pairs.append((texts[0], texts[1]))
    return tuple(pairs)


def _parameters(given: Any, where: str) -> dict[str, Parameter]:
    _must(isinstance(given, dict), "parameters must be lines of name: value", where)
    for name, value in given.items():
        if name not in PARAMETERS:
            fix = nearest(str(name)[:40], PARAMETERS) or f"known are {', '.join(PARAMETERS)}"
            raise ConfigError(f'unknown parameter "{str(name)[:40]}"', where=where, fix=fix)
        if name == "stop":
            texts = [value] if isinstance(value, str) else value
            good = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
            _must(good, "stop must be a text, or a list of texts", where)
        else:
            whole = name in ("max_tokens", "top_k", "seed")
            good = type(value) is int or (type(value) is float and not whole)
            _must(good, f"{name} must be a {'whole ' if whole else ''}number", where)
    _must(given.get("max_tokens", 1) >= 1, "max_tokens must be 1 or more", where)
    return dict(given)


def _must(good: object, what: str, where: str) -> None:
    if not good:
        raise ConfigError(what, where=where, fix="see docs/prompts.md for the form")


def check(prompt: Prompt, *, where: str = "prompt") -> None:
    """Raise :class:`~ownchat.errors.ConfigError` for an empty prompt, and templates or parameters of no use."""
    _must(prompt.system or prompt.examples or prompt.retrieve, "no system text and no examples: nothing to say", where)
    for text in [prompt.system or "", *(text for pair in prompt.examples for text in pair)]:
        check_template(text, where=where)
    try:
        sampling(prompt)
    except UserError as error:
        raise ConfigError(error.what, where=where) from error


def to_yaml(prompt: Prompt, *, made: str | None = None, by: str | None = None) -> str:
    """The file of a prompt, as people write it: what :func:`read` takes."""
    values = {
        "made": made,
        "by": by,
        "note": prompt.note,
        "system": prompt.system,
        "variables": dict(prompt.variables),
        "examples": [{"question": question, "answer": reply} for question, reply in prompt.examples],
        "retrieve": prompt.retrieve,
        "parameters": dict(prompt.parameters),
    }
    given = {key: value for key, value in values.items() if value or (key == "system" and value is not None)}
    return yaml.dump(given, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a process whose user has no name
        return f"user {os.getuid()}"
