"""Probes of general ability: questions with choices, instructions that a program can verify, and passages of text.

Rows of one of these forms; a file (:mod:`ownchat.evaluate.probe_files`) may hold all of them:

``{"question": "...", "choices": ["...", "..."], "answer": "..."}``  the answer is a choice, or its number from 0
``{"instruction": "...", "rules": {"words": 1}}``                    see :mod:`ownchat.evaluate.following`
``{"messages": [{"role": "user", "content": "..."}, ...]}``          of which the assistant's replies are scored
``{"text": "..."}``                                                  scored as a whole

The one that ships, ``probes/general.jsonl``, was written for ownchat: easy ones, so that also a small model has
something to forget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ownchat.errors import DataError
from ownchat.evaluate import following, probe_files
from ownchat.evaluate.probe_files import FORMS, SHIPPED, ProbeFile, of_kind, text_of

NAME = "general"  # of the one that ships
_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Question:
    question: str
    choices: tuple[str, ...]
    answer: int  # place among the choices


@dataclass(frozen=True)
class Instruction:
    instruction: str
    rules: dict[str, Any]


@dataclass(frozen=True)
class Passage:
    """Running text, or a conversation (``messages``) of which the replies count."""

    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Probe:
    """The rows of a file, by form."""

    file: ProbeFile
    questions: tuple[Question, ...]
    instructions: tuple[Instruction, ...]
    passages: tuple[Passage, ...]

    @property
    def texts(self) -> list[str]:
        """What a model must not be trained on, or the probe would measure that."""
        found = [one.question for one in self.questions] + [one.instruction for one in self.instructions]
        for passage in self.passages:
            found += [passage.text] if passage.text else [turn["content"] for turn in passage.messages]
        return found


def read_probes(paths: Sequence[Path]) -> list[Probe]:
    """The one that ships, and those of ``paths`` that are of this kind, every row checked.

    Raises :class:`~ownchat.errors.DataError` with file, line and what the row lacks.
    """
    return [read_probe(SHIPPED / f"{NAME}.jsonl"), *(_probe(file) for file in of_kind(paths, "general"))]


def read_probe(path: Path) -> Probe:
    """One file; raises what :func:`read_probes` does."""
    return _probe(probe_files.read_probe(path))


# ----------------------------------------------------------------------------------------------------------------


def _probe(file: ProbeFile) -> Probe:
    questions, instructions, passages = [], [], []
    for line, row in file.rows:
        wrong = partial(_wrong, file.path, line)
        if "choices" in row or {"question", "answer"} <= row.keys():
            questions.append(_question(file.path, line, row))
        elif "instruction" in row or "rules" in row:
            _complete(row, ("instruction", "rules"), wrong)
            if found := following.problem(row["rules"]):
                wrong(found)
            instructions.append(Instruction(text_of(file.path, line, row, "instruction"), row["rules"]))
        elif "messages" in row:
            passages.append(Passage(messages=_messages(row["messages"], wrong)))
        elif "text" in row:
            passages.append(Passage(text=text_of(file.path, line, row, "text")))
        else:
            wrong(f"its columns are: {', '.join(row) or 'none'}")
    return Probe(file, tuple(questions), tuple(instructions), tuple(passages))


def _wrong(path: Path, line: int, what: str) -> NoReturn:
    forms = "; or ".join(", ".join(columns) for columns in FORMS["general"])
    raise DataError(what, where=f"{path} line {line}", fix=f"mend the line; a row has the columns {forms}")


def _complete(row: dict[str, Any], columns: Sequence[str], wrong: Any) -> None:
    if missing := [column for column in columns if row.get(column) is None]:
        wrong(f"{'a column is' if len(missing) == 1 else 'columns are'} missing: {', '.join(missing)}")


def _question(path: Path, line: int, row: dict[str, Any]) -> Question:
    wrong = partial(_wrong, path, line)
    _complete(row, ("question", "choices", "answer"), wrong)
    choices, answer = row["choices"], row["answer"]
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c.strip() for c in choices):
        wrong('"choices" has to be a list of two or more texts')
    if len(set(choices)) < len(choices):
        wrong("two choices are the same")
    question = text_of(path, line, row, "question")
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return Question(question, tuple(choices), answer)
    if answer not in choices:
        wrong(f'"answer" has to be one of the choices or its number from 0 to {len(choices) - 1}, not {answer!r}')
    return Question(question, tuple(choices), choices.index(answer))


def _messages(value: Any, wrong: Any) -> tuple[dict[str, Any], ...]:
    good = isinstance(value, list) and all(
        isinstance(turn, dict) and turn.get("role") in _ROLES and isinstance(turn.get("content"), str) for turn in value
    )
    if not good:
        wrong(f'"messages" has to be a list of objects with "role" ({", ".join(_ROLES)}) and "content"')
    if not any(turn["role"] == "assistant" and turn["content"].strip() for turn in value):
        wrong("no message of the assistant has a text: there is nothing to score")
    return tuple({"role": turn["role"], "content": turn["content"]} for turn in value)
