"""What each step of cleaning did to some records, as data: counts, changes before and after, and what was dropped.

Nothing is written. Texts pass through ``mask`` before they are kept, so that what is shown holds no private data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import count_messages
from ownchat.clean.boilerplate import Learned
from ownchat.clean.steps import STEPS, SWITCHES, needs_learning, run_steps, steps_for
from ownchat.clean.topic import learn_topic, read_description
from ownchat.config import CleanConfig
from ownchat.data.ledger import Entry

EXAMPLES = 4  # of each rule
CONTEXT = 160  # characters shown around a change
MOST_SHOWN = 1_200  # characters of one text
OPEN, CLOSE = "\ue000", "\ue001"  # stand around the type of what was masked; private-use characters, in no text

_TOKEN = re.compile(rf"{OPEN}[^{CLOSE}]*{CLOSE}|\w+|\s+|[^\w\s]")
_MASKED = re.compile(rf"{OPEN}([^{CLOSE}]*){CLOSE}")
_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_]*[A-Z])(?:_\d+)?\]")  # [PERSON_1], as redaction writes it
_DANGLING = re.compile(rf"{OPEN}[^{CLOSE}]*$|^[^{OPEN}]*{CLOSE}")  # half a mask, where a text was cut

Kind = Literal["same", "cut", "new", "private", "gap"]
Segment = tuple[Kind, str]  # a piece of text and what happened to it; private: the type of what stood there
Mask = Callable[[Sequence[str]], list[str]]  # all texts of a record: a name in one is known in the others


@dataclass
class Example:
    """A record that a step changed or dropped: its place, the rule, and its texts with what changed in them."""

    place: str
    rule: str
    detail: str
    texts: list[tuple[str, list[Segment]]]  # (role, pieces)


@dataclass
class Pair:
    """Two records beside each other, with what only one of them says; ``texts``: role, the first's, the second's."""

    places: tuple[str, str]
    rule: str
    detail: str
    texts: list[tuple[str, list[Segment], list[Segment]]]


@dataclass
class StepView:
    """One step: what came in, what was left, what it did by rule, and examples."""

    name: str
    switch: str | None  # the setting that turns it off; none: it always runs
    is_on: bool
    records: tuple[int, int] = (0, 0)  # before and after
    messages: tuple[int, int] = (0, 0)
    rules: dict[str, int] = field(default_factory=dict)  # "row dropped: too short" -> 3
    changed: list[Example] = field(default_factory=list)
    dropped: list[Example] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)  # of steps that compare records with each other


def preview_steps(
    batches: Sequence[pa.RecordBatch], config: CleanConfig, mask: Mask
) -> tuple[list[StepView], list[pa.RecordBatch]]:
    """Run the steps on ``batches`` and look at each; steps that are switched off are listed, too.

    Returned with the views are the batches as the steps leave them.
    """
    learned = Learned()
    if needs_learning(config):
        for batch in batches:
            learned.learn(batch)
    views = {}
    for step, is_on in STEPS:
        views[step.__name__] = StepView(step.__name__, SWITCHES.get(step), is_on(config))
    shown: Counter[str] = Counter()
    topic = learn_topic(batches, read_description(config.topic)) if config.off_topic != "off" else None
    steps = steps_for(config, learned, topic)
    cleaned = []
    for batch in batches:
        left = batch
        for name, before, after, entries in run_steps(batch, steps):
            left = after
            view = views[name]
            view.records = (view.records[0] + len(before), view.records[1] + len(after))
            sums = int(count_messages(before).sum()), int(count_messages(after).sum())
            view.messages = (view.messages[0] + sums[0], view.messages[1] + sums[1])
            rows_dropped = {entry.id for entry in entries if entry.unit == "row" and entry.fate == "dropped"}
            for entry in entries:
                if entry.unit == "row" or "#" in entry.id:
                    key = f"{entry.unit} {entry.fate}: {entry.rule}"
                    view.rules[key] = view.rules.get(key, 0) + 1  # records, however much changed in each
            for entry in _examples(entries, rows_dropped):
                kind = f"{name} {entry.fate} {entry.rule}"
                if shown[kind] < EXAMPLES:
                    shown[kind] += 1
                    example = _example(entry, before, after, mask)
                    (view.dropped if entry.id in rows_dropped else view.changed).append(example)
        cleaned.append(left)
    return list(views.values()), cleaned


def segments(text: str) -> list[Segment]:
    """A text that is shown as it is, cut at :data:`MOST_SHOWN` characters, with what was masked apart."""
    shown: list[Segment] = [("same", _DANGLING.sub("", text[:MOST_SHOWN]))]
    return _private_apart(shown + ([("gap", f"{len(text) - MOST_SHOWN:,}")] if len(text) > MOST_SHOWN else []))


def compare(before: str, after: str) -> list[Segment]:
    """What was cut and what is new, word by word, with some of the text around it.

    >>> compare("Hello Ann, bye.", "Hello Ann.")
    [('same', 'Hello Ann'), ('cut', ', bye'), ('same', '.')]
    """
    before, after = _PLACEHOLDER.sub(rf"{OPEN}\1{CLOSE}", before), _PLACEHOLDER.sub(rf"{OPEN}\1{CLOSE}", after)
    if before == after:  # what changed is masked on both sides
        return segments(after)
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    head = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = min(len(old), len(new)) - head
    tail = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    found: list[Segment] = [("same", "".join(old[:head]))]
    middle_old, middle_new = old[head : len(old) - tail], new[head : len(new) - tail]
    if len(middle_old) * len(middle_new) > 1_000_000:  # difflib is quadratic: a long stretch is replaced as a whole
        found += [("cut", "".join(middle_old)), ("new", "".join(middle_new))]
    else:
        matcher = SequenceMatcher(None, middle_old, middle_new, autojunk=False)
        for tag, i, j, k, m in matcher.get_opcodes():
            if tag == "equal":
                found.append(("same", "".join(middle_old[i:j])))
            else:
                found += [("cut", "".join(middle_old[i:j])), ("new", "".join(middle_new[k:m]))]
    found.append(("same", "".join(old[len(old) - tail :]) if tail else ""))
    return _private_apart(_shortened([(kind, text) for kind, text in found if text]))


def row_of(batch: pa.RecordBatch, id: str) -> dict[str, Any] | None:
    """The record of an id as Python values, when the batch has it."""
    index = pc.index(batch.column("id"), id).as_py()
    return batch.slice(index, 1).to_pylist()[0] if index >= 0 else None


def texts_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What a record says, each with its role."""
    texts = [("document", row["text"])] if row["text"] else []
    return texts + [(turn["role"], turn["content"] or turn["tool_calls"] or "") for turn in row["messages"] or ()]


def place_of(row: dict[str, Any]) -> str:
    """Where a record comes from, in words."""
    return f"{row['source']['file']}, line {row['source']['line']}"


# ---------------------------------------------------------------------------------------------------------------------


def _examples(entries: list[Entry], rows_dropped: set[str]) -> list[Entry]:
    """One entry for each record that was changed or dropped: a dropped message is a change of its record."""
    found: dict[str, Entry] = {}
    for entry in entries:
        id = entry.id.rpartition("#")[0] or entry.id
        if id and (id not in found or id in rows_dropped):
            if entry.unit == "row":
                found[id] = entry
            elif id not in found:
                found[id] = Entry("row", id, "changed", entry.rule, detail=entry.detail)
    return list(found.values())


def _example(entry: Entry, before: pa.RecordBatch, after: pa.RecordBatch, mask: Mask) -> Example:
    old, new = row_of(before, entry.id), row_of(after, entry.id)
    assert old is not None, entry
    place = place_of(old)
    if new is None:
        texts = [(role, segments(text)) for role, text in masked(texts_of(old), mask)[:6]]
    else:
        texts = _changes(texts_of(old), texts_of(new), mask)
    return Example(place, entry.rule, entry.detail, texts)


def masked(texts: list[tuple[str, str]], mask: Mask) -> list[tuple[str, str]]:
    """The texts of a record, with their roles, as the page shows them."""
    return [(role, shown) for (role, _), shown in zip(texts, mask([text for _, text in texts]), strict=True)]


def _changes(old: list[tuple[str, str]], new: list[tuple[str, str]], mask: Mask) -> list[tuple[str, list[Segment]]]:
    """The texts that changed, each compared with what it became; what nothing happened to is left out."""
    found: list[tuple[str, list[Segment]]] = []
    was, now = masked(old, mask), masked(new, mask)
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        pairs = min(j - i, m - k) if [role for role, _ in old[i:j]][: m - k] == [role for role, _ in new[k:m]] else 0
        for (role, before), (_, after) in zip(was[i : i + pairs], now[k : k + pairs], strict=True):
            found.append((role, compare(before, after)))
        found += [
            (role, _private_apart([("cut", _DANGLING.sub("", text[:MOST_SHOWN]))])) for role, text in was[i + pairs : j]
        ]
        found += [
            (role, _private_apart([("new", _DANGLING.sub("", text[:MOST_SHOWN]))])) for role, text in now[k + pairs : m]
        ]
    if not found:  # a flag or a tag: the text is as it was
        found = [(role, segments(text)) for role, text in was[:4]]
    return found[:6]


def _shortened(found: list[Segment]) -> list[Segment]:
    """Long unchanged stretches become a gap between the text around the changes."""
    result: list[Segment] = []
    for index, (kind, text) in enumerate(found):
        first, last = index == 0, index == len(found) - 1
        limit = MOST_SHOWN if kind != "same" else CONTEXT * (1 if first or last else 2)
        if len(text) <= limit + 40:
            result.append((kind, text))
        elif kind != "same":
            result += [(kind, _DANGLING.sub("", text[:limit])), ("gap", f"{len(text) - limit:,}")]
        else:
            start = "" if first else _DANGLING.sub("", text[:CONTEXT])
            end = "" if last else _DANGLING.sub("", text[-CONTEXT:])
            result += [("same", start), ("gap", f"{len(text) - len(start) - len(end):,}"), ("same", end)]
    return [(kind, text) for kind, text in result if text]


def _private_apart(found: list[Segment]) -> list[Segment]:
    result: list[Segment] = []
    for kind, text in found:
        if kind == "gap":
            result.append((kind, text))
            continue
        borders = [0, *(place for match in _MASKED.finditer(text) for place in match.span()), len(text)]
        for number, (start, end) in enumerate(pairwise(borders)):
            piece = text[start:end]
            if number % 2 and (match := _MASKED.fullmatch(piece)):
                result.append(("private", match[1]))
            elif piece:
                result.append((kind, piece))
    return result
