"""Multiple choice: a question, its options, and which one is right (BBQ, MMLU, ARC, HellaSwag and the like).

The forms: ``{"context", "question", "ans0", "ans1", ..., "label"}``; ``{"question", "choices": [...], "answer": 2}``;
``{"question", "choices": {"text": [...], "label": [...]}, "answerKey": "B"}``; ``{"ctx", "endings": [...], "label"}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownchat.data.datasets.sharegpt import Items
from ownchat.data.reading import dropped, question_answer

QUESTIONS = ("question", "ctx", "query", "prompt", "question_stem")
VERDICTS = ("label", "answer", "answerKey", "answer_index", "gold", "correct")
_LISTS = ("choices", "options", "endings")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def is_choice(row: Mapping[str, Any]) -> bool:
    """Whether an object holds a question with options and the right one.

    >>> is_choice({"question": "1 + 1?", "choices": ["1", "2"], "answer": 1})
    True
    """
    if not any(isinstance(row.get(name), str) and row[name].strip() for name in QUESTIONS):
        return False
    options, labels = _options(row)
    return len(options) >= 2 and any(row.get(name) is not None for name in VERDICTS) and len(options) == len(labels)


def read_choice(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """The question with its options under letters, and the right one as the answer."""
    options, labels = _options(row)
    right = _right(row, options, labels)
    if right is None:
        yield dropped(file, line, "no answer", offset)
        return
    asked = next(row[name] for name in QUESTIONS if isinstance(row.get(name), str) and row[name].strip())
    context = row.get("context")
    parts = [context] if isinstance(context, str) and context.strip() else []
    shown = "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))
    question = "\n\n".join([*parts, asked, shown])
    answer = f"{_LETTERS[right]}. {options[right]}"
    yield question_answer(question, answer, "", group, file=file, format=format, line=line, offset=offset)


def _options(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The options and what each is called in the row."""
    for name in _LISTS:
        found = row.get(name)
        if isinstance(found, dict):
            texts, labels = found.get("text"), found.get("label")
            if isinstance(texts, list) and isinstance(labels, list) and all(isinstance(text, str) for text in texts):
                return texts[: len(_LETTERS)], [str(label) for label in labels]
        elif isinstance(found, list) and 2 <= len(found) <= len(_LETTERS):
            if all(isinstance(text, str) for text in found):
                return found, [str(place) for place in range(len(found))]
            if all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in found):
                return [one["text"] for one in found], [str(one.get("label", "")) for one in found]
    for stem in ("ans", "option_", "option"):
        texts = []
        while len(texts) < len(_LETTERS) and isinstance(row.get(f"{stem}{len(texts)}"), str):
            texts.append(row[f"{stem}{len(texts)}"])
        if texts:
            return texts, [str(place) for place in range(len(texts))]
    return [], []


def _right(row: Mapping[str, Any], options: list[str], labels: list[str]) -> int | None:
    value = next(row[name] for name in VERDICTS if row.get(name) is not None)
    text = str(value).strip()
    for names in (labels, list(_LETTERS[: len(options)]), options):
        if text in names:
            return names.index(text)
    return None
