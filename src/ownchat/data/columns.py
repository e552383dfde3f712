"""Which column is what: as the user says it, else by name, else by content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ownchat.data.files import UnreadableFile
from ownchat.data.given import TAGS
from ownchat.data.ledger import Entry
from ownchat.data.reading import document, question_answer
from ownchat.data.records import Record
from ownchat.errors import ConfigError, DataError, nearest

ROLES = ("question", "answer", "system", "group", "text", "review", "rating", "product")

# Names in the order in which they are preferred. The strong ones hold whatever stands in the column; the weak ones
# ("customer" may be a question or a number) count only where the content is prose, and may stand inside a longer name.
_STRONG = {
    "question": "question q prompt instruction query user_message customer_message fråga frage pregunta domanda vraag",
    "answer": "answer a response reply completion output assistant_message agent_reply svar antwort respuesta réponse",
    "system": "system system_prompt system_message",
    "group": "group group_id conversation_id thread_id ticket_id session_id chat_id dialogue_id dialog_id case_id "
    "customer_id user_id customer_email conversation thread ticket session dialogue customer client user",
}
_WEAK = {
    "question": "input customer user human request message body description subject title",
    "answer": "agent assistant bot support solution resolution",
}
_USUAL = "text id nr date time name category label tags language url source"
_COMPANIONS = ("input", "context")  # what stands beside an instruction belongs to the question
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # Thai, Lao, Japanese, Chinese
_LONGEST_GROUP = 100  # characters: a longer value is prose, not the name of a customer or thread


@dataclass(frozen=True)
class Columns:
    """The columns of a table by their part; empty: there is none."""

    question: tuple[str, ...] = ()
    answer: str = ""
    system: str = ""
    group: str = ""
    text: str = ""
    by_content: bool = False

    def named(self) -> dict[str, str]:
        """``{"question": "q", "answer": "a"}``, only the parts that exist."""
        parts = {"question": " + ".join(self.question), "answer": self.answer, "system": self.system}
        return {part: name for part, name in (parts | {"group": self.group, "text": self.text}).items() if name}

    def understood(self, names: Sequence[str]) -> str:
        """For people: what each column is, and which are not used."""
        named = self.named()
        used = {*self.question, *named.values()}
        text = ", ".join(f'{part} = "{name}"' for part, name in named.items())
        unused = ", ".join(name for name in names if name not in used)
        return text + (" (by content)" if self.by_content else "") + (f"; not used: {unused}" if unused else "")

    def row(
        self, values: Mapping[str, str], *, file: str, format: str, line: int, offset: int | None = None
    ) -> Record | Entry:
        """The record of one row, or the reason why there is none."""
        group = values.get(self.group, "")
        if self.text:
            return document(values.get(self.text, ""), group, file=file, format=format, line=line, offset=offset)
        question = "\n\n".join(part for name in self.question if (part := values.get(name, "")).strip())
        answer, system = values.get(self.answer, ""), values.get(self.system, "")
        return question_answer(question, answer, system, group, file=file, format=format, line=line, offset=offset)


@dataclass(frozen=True)
class _Content:
    """What stands in a column, over the first rows."""

    characters: float  # mean over the cells that are not empty
    words: float
    question_marks: float  # share of cells
    longest: int
    structures: float  # share of cells that are a list or an object, written down

    @property
    def is_prose(self) -> bool:
        return (
            self.structures < 0.5 and self.words >= 3 and self.characters >= max(8, 2.5 * self.words)
        )  # "O O B-name O" is not


def check_map(mapping: Mapping[str, str]) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` for a part that does not exist."""
    for part in mapping:
        if part not in ROLES and part not in TAGS:
            fix = nearest(part, [*ROLES, *TAGS]) or f"parts are {', '.join(ROLES)}; {' and '.join(TAGS)} name files"
            raise ConfigError(f'"{part}" is no part of a conversation', where="data.map", fix=fix)


def choose(
    names: Sequence[str],
    sample: Sequence[Mapping[str, str]],
    mapping: Mapping[str, str],
    *,
    where: str,
    text_is_document: bool = False,
) -> Columns:
    """The columns of a table from its names, its first rows and what the user said (``mapping``).

    ``text_is_document``: rows whose only prose is called "text" are documents (the custom of JSON Lines corpora).
    Raises :class:`~ownchat.errors.DataError` for a mapped column that is not there and
    :class:`~ownchat.data.files.UnreadableFile` when no column can be an answer.

    >>> choose(["id", "q", "a"], [], {}, where="faq.csv")
    Columns(question=('q',), answer='a', system='', group='', text='', by_content=False)
    """
    for part, name in mapping.items():
        if name not in names:
            fix = nearest(name, names) or f"columns are {_listed(names)}"
            raise DataError(f'there is no column "{name}" (mapped as {part})', where=where, fix=fix)
    content = {name: _content([row.get(name, "") for row in sample]) for name in names}
    if "text" in mapping and "answer" not in mapping:
        return Columns(text=mapping["text"], group=_group(names, content, mapping, {mapping["text"]}))
    question, answer, by_content = _pair(names, content, mapping)
    prose = [name for name in names if content[name].is_prose]
    if (
        text_is_document
        and not (question and answer and not by_content)
        and "text" in names
        and prose in ([], ["text"])
    ):
        return Columns(text="text", group=_group(names, content, mapping, {"text"}))
    if by_content and question and answer and "answer" not in mapping and _are_twins(question, answer, sample):
        text = next((name for name in ("text", "full_text") if name in (question, answer)), "")
        if text and text_is_document:
            return Columns(text=text, group=_group(names, content, mapping, {question, answer}))
        what = f'columns "{question}" and "{answer}" hold nearly the same text: no question with its answer'
        fix = "say which is which: --map question=COLUMN --map answer=COLUMN (or --map text=COLUMN for plain text)"
        raise UnreadableFile(what, where=where, fix=fix)
    if not (question and answer):
        missing = "an answer" if not answer else "a question"
        raise UnreadableFile(
            f"no column can be {missing}; columns are {_listed(names)}",
            where=where,
            fix="say which is which: --map question=COLUMN --map answer=COLUMN (or --map text=COLUMN for plain text)",
        )
    questions = [question]
    if "question" not in mapping and _plain(question) in ("instruction", "prompt", "question"):
        questions += [name for name in names if _plain(name) in _COMPANIONS and name != answer]
    used = {*questions, answer}
    system = mapping.get("system") or _by_name("system", names, used)
    group = _group(names, content, mapping, used | {system})
    return Columns(tuple(questions), answer, system, group, by_content=by_content)


def is_named(names: Sequence[str]) -> bool:
    """Whether a question and an answer can be told by their names alone: then the first row is a header."""
    return bool(_by_name("question", names, set()) and _by_name("answer", names, set()))


def is_title(cells: Sequence[str]) -> bool:
    """Whether one cell alone is filled, as in the title above a table."""
    return sum(bool(cell.strip()) for cell in cells) == 1


def title_rows(rows: Sequence[Sequence[str]], mapping: Mapping[str, str]) -> int:
    """How many rows of one cell stand above the row that names a question and an answer, or the mapped columns.

    >>> title_rows([["Our FAQ", ""], ["Question", "Answer"], ["How long?", "Ten weeks"]], {})
    1
    """
    for count, cells in enumerate(rows[:10]):
        names = [cell.strip() for cell in cells]
        if is_named(names) or (len(names) > 1 and set(mapping.values()) & set(names)):
            return count
        if not is_title(cells):
            break
    return 0


def is_header(cells: Sequence[str]) -> bool:
    """Whether the cells look like names of columns, one of which is a name that columns often have."""
    known = {*_USUAL.split(), *" ".join([*_STRONG.values(), *_WEAK.values()]).split()}
    return any(len(cell.split()) <= 2 and known & set(_plain(cell).split("_")) for cell in cells)


def group_of(row: Mapping[str, object], mapping: Mapping[str, str]) -> str:
    """The group of a JSON object that holds messages: its mapped key, or the first key with a known name."""
    for name in _group_keys(tuple(row), mapping.get("group", "")):
        value = row[name]
        if isinstance(value, str | int) and 0 < len(text := str(value).strip()) <= _LONGEST_GROUP:
            return text
    return ""


@lru_cache(1024)  # the rows of a file have few sets of keys
def _group_keys(names: tuple[str, ...], mapped: str) -> tuple[str, ...]:
    if mapped:
        return (mapped,) if mapped in names else ()
    plain = {_plain(name): name for name in names} | {name: name for name in names}
    return tuple(plain[name] for name in _STRONG["group"].split() if name in plain)


def is_prose(cells: Sequence[str]) -> bool:
    """Whether sentences stand in a column, not names, numbers or labels."""
    return _content(cells).is_prose


# ----------------------------------------------------------------------------------------------------------------


def _pair(names: Sequence[str], content: Mapping[str, _Content], mapping: Mapping[str, str]) -> tuple[str, str, bool]:
    """Question and answer (or empty), and whether content had to tell."""
    taken = set(mapping.values())
    answer = mapping.get("answer") or _by_name("answer", names, taken, content)
    question = mapping.get("question") or _by_name("question", names, taken | {answer}, content)
    if question and answer:
        return question, answer, False
    prose = [name for name in names if content[name].is_prose and name not in taken | {question, answer}]
    prose = sorted(prose, key=lambda name: -content[name].characters)  # stable: equal ones keep their order
    if not answer and not question:
        if len(prose) < 2:
            return "", "", True
        pair = sorted(prose[:2], key=names.index)
        asking = max(prose, key=lambda name: content[name].question_marks)
        if content[asking].question_marks >= 0.3:
            return asking, next(name for name in prose if name != asking), True
        return pair[0], pair[1], True
    if not answer:
        return question, prose[0] if prose else "", True
    asking = max(prose, key=lambda name: content[name].question_marks, default="")
    if asking and content[asking].question_marks < 0.3:
        asking = prose[0]
    return asking, answer, True


def _are_twins(one: str, other: str, sample: Sequence[Mapping[str, str]]) -> bool:
    """Whether two columns have most of their words in common: a text and its copy, masked or changed."""
    shares = []
    for row in sample:
        a, b = set(row.get(one, "").split()), set(row.get(other, "").split())
        if a and b:
            shares.append(len(a & b) / len(a | b))
    return bool(shares) and sum(shares) > 0.5 * len(shares)


def _by_name(part: str, names: Sequence[str], taken: set[str], content: Mapping[str, _Content] | None = None) -> str:
    free = {_plain(name): name for name in reversed(names) if name not in taken}
    for wanted in _STRONG[part].split():
        if wanted in free:
            return free[wanted]
    if content is None or part not in _WEAK:
        return ""
    prose = {plain: name for plain, name in free.items() if content[name].is_prose}
    for wanted in _WEAK[part].split():
        if wanted in prose:
            return prose[wanted]
    for wanted in _STRONG[part].split():  # "customer question", "best_answer": but not "answer_date"
        for plain, name in prose.items():
            if len(wanted) > 1 and wanted in plain.split("_"):
                return name
    return ""


def _group(names: Sequence[str], content: Mapping[str, _Content], mapping: Mapping[str, str], taken: set[str]) -> str:
    if "group" in mapping:
        return mapping["group"]
    free = [name for name in names if name not in taken and content[name].longest <= _LONGEST_GROUP]
    return _by_name("group", [name for name in free if content[name].words < 3], set())


def _content(cells: Sequence[str]) -> _Content:
    filled = [cell.strip() for cell in cells if cell.strip()]
    if not filled:
        return _Content(0, 0, 0, 0, 0)
    count = len(filled)
    return _Content(
        characters=sum(map(len, filled)) / count,
        words=sum(len(cell.split()) + len(_UNSPACED.findall(cell)) / 3 for cell in filled) / count,
        question_marks=sum("?" in cell or "？" in cell for cell in filled) / count,
        longest=max(map(len, filled)),
        structures=sum(cell[0] + cell[-1] in ("[]", "{}") for cell in filled) / count,
    )


def _plain(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())  # customerQuestion
    return re.sub(r"\W+", "_", spaced.lower()).strip("_")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"
