"""Texts with a label of a small closed set (intents, topics, sentiment): the label becomes the answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ownchat.config import DataConfig
from ownchat.data.columns import is_prose
from ownchat.data.ledger import Entry
from ownchat.data.reading import question_answer
from ownchat.data.records import Record

_NAMES = (
    "label labels category categories intent class class_name topic sentiment emotion tag type target label_text "
    "label_name intent_name coarse_label fine_label priority queue department polarity spam toxic toxicity v1"
)
_TEXTS = "text sentence utterance query message content body tweet review comment question title document v2"
MOST_LABELS = 500
LONGEST_LABEL = 60  # characters
LONGEST_LIST = 4_000  # characters of all labels in the system message
FEWEST_ROWS = 4


@dataclass(frozen=True)
class Labelled:
    """One column of texts, one of labels."""

    text: str
    label: str
    system: str
    count: int  # labels

    def rows(
        self, values: Mapping[str, str], *, file: str, format: str, line: int, offset: int | None = None
    ) -> Iterable[Record | Entry]:
        text, label = values.get(self.text, ""), values.get(self.label, "").strip()
        return (question_answer(text, label, self.system, "", file=file, format=format, line=line, offset=offset),)

    def rest(self) -> Iterable[Record | Entry]:
        return ()

    def texts(self) -> Sequence[str]:
        return (self.text, self.label)

    def understood(self, names: Sequence[str]) -> str:
        unused = ", ".join(name for name in names if name not in (self.text, self.label))
        said = f'labelled texts: question = "{self.text}", answer = "{self.label}" ({self.count} labels)'
        return said + (f"; not used: {unused}" if unused else "")

    def named(self) -> dict[str, str]:
        return {"question": self.text, "answer": self.label}


def find_labels(
    names: Sequence[str], sample: Sequence[Mapping[str, str]], data: DataConfig, all_rows: Iterable[Mapping[str, str]]
) -> Labelled | None:
    """The columns of labelled texts, or None: the label has a usual name, few values and they recur.

    >>> rows = [{"text": f"Where is my card number {i}?", "category": "card"} for i in range(9)]
    >>> find_labels(["text", "category"], rows, DataConfig(), rows).understood(["text", "category"])
    'labelled texts: question = "text", answer = "category" (1 labels)'
    """
    if len(sample) < FEWEST_ROWS:
        return None
    label = next(
        (name for wanted in _NAMES.split() for name in names if _plain(name) == wanted and _recurs(name, sample)), ""
    )
    texts = [name for name in names if name != label and is_prose([row.get(name, "") for row in sample])]
    known = [name for wanted in _TEXTS.split() for name in texts if _plain(name) == wanted]
    if not label or not texts or (len(texts) > 1 and not known):
        return None
    counted: Counter[str] = Counter()
    for row in all_rows or sample:
        counted[row.get(label, "").strip()] += 1
        if len(counted) > MOST_LABELS:
            return None
    del counted[""]
    if not counted:
        return None
    return Labelled((known or texts)[0], label, task(label, list(counted)), len(counted))


def task(name: str, labels: Sequence[str]) -> str:
    """The system message of labelled texts: what to do, and the labels where their list is not too long.

    >>> task("intent", ["refund", "delay"])
    'Answer with the intent of the text, one of: delay, refund'
    """
    name = re.sub(r"[_\W]+", " ", name).strip().lower() or "label"
    name = {"v1": "label", "class name": "class", "label text": "label"}.get(name, name)
    listed = ", ".join(sorted(labels))
    if len(listed) > LONGEST_LIST:
        return f"Answer with the {name} of the text."
    return f"Answer with the {name} of the text, one of: {listed}"


def _recurs(name: str, sample: Sequence[Mapping[str, str]]) -> bool:
    values = [value for row in sample if (value := row.get(name, "").strip())]
    if len(values) < FEWEST_ROWS or max(map(len, values)) > LONGEST_LABEL:
        return False
    if all(re.fullmatch(r"[-+\d.,]+", value) for value in values):
        return False  # numbers say nothing: what they stand for is not in the file
    return len(set(values)) * 2 <= len(values)


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")
