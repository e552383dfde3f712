"""Several answers to one prompt, each with a score: UltraFeedback, Nectar, Stack Exchange preferences, and the like.

The best answer beside the worst makes a preference; its ``rating`` is the difference of their scores, and a tag holds
all of them. Published forms: ``{"instruction", "completions": [{"response", "fine-grained_score", "annotations"}]}``
(UltraFeedback), ``{"prompt", "answers": [{"answer", "rank"}]}`` (Nectar), ``{"question", "answers": [{"text",
"pm_score"}]}`` (H4 Stack Exchange), ``{"prompt", "responses": [...], "scores": [...]}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownchat.data.datasets.preferences import TIE, dialogue, number, preference, scores_tag
from ownchat.data.datasets.sharegpt import Items, prompt_of, side
from ownchat.data.messages import checked
from ownchat.data.reading import dropped
from ownchat.data.records import message
from ownchat.errors import DataError

_LISTS = ("completions", "responses", "answers", "candidates", "outputs", "generations")
_TEXTS = ("response", "text", "answer", "content", "completion", "output", "body")
_SCORES = ("fine-grained_score", "fine_grained_score", "score", "rating", "pm_score", "reward", "overall_score")
_PARALLEL = ("scores", "ratings", "rewards", "ranks", "rank")
_PROMPTS = ("instruction", "prompt", "question", "query", "messages", "conversations")


def is_ranked(row: Mapping[str, Any]) -> bool:
    """Whether an object has a prompt and a list of answers with scores.

    >>> is_ranked({"prompt": "Hi", "responses": ["Hello", "No"], "scores": [5, 1]})
    True
    """
    return any(row.get(name) for name in _PROMPTS) and bool(_name(row))


def read_ranked(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    """The preference of one object; a single answer is a conversation with its score as rating."""
    found = _answers(row)
    prompt = _prompt(row, line, file)
    place: dict[str, Any] = {"file": file, "format": format, "line": line, "offset": offset}
    known = [(score, text) for text, score in found if score is not None and text.strip()]
    known.sort(key=lambda item: -item[0])  # stable: of equal ones the first
    if len(known) < 2:
        texts = [text for _, text in known] or [text for text, _ in found if text.strip()]
        if len(texts) == 1:
            rating = known[0][0] if known else None
            yield checked([*prompt, message("assistant", texts[0])], None, group, rating=rating, **place)
        else:
            yield dropped(file, line, "no answer" if not texts else "no scores", offset)
        return
    (best, chosen), (worst, rejected) = known[0], known[-1]
    if best == worst:
        yield dropped(file, line, TIE, offset)
        return
    tags = [scores_tag([score for score, _ in known])]
    yield preference(
        prompt, [message("assistant", chosen)], [message("assistant", rejected)], round(best - worst, 6), None, group,
        tags=tags, **place,
    )  # fmt: skip


def _name(row: Mapping[str, Any]) -> str:
    """The key of the list of answers."""
    for name in _LISTS:
        found = row.get(name)
        if not isinstance(found, list) or not found:
            continue
        if isinstance(found[0], dict) and any(isinstance(found[0].get(key), str) for key in _TEXTS):
            if any(_score(one) is not None for one in found if isinstance(one, dict)):
                return name
        elif isinstance(found[0], str) and _parallel(row, len(found)):
            return name
    return ""


def _parallel(row: Mapping[str, Any], length: int) -> str:
    return next((key for key in _PARALLEL if isinstance(row.get(key), list) and len(row[key]) == length), "")


def _answers(row: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    name = _name(row)
    found = row[name]
    if key := _parallel(row, len(found)):
        sign = -1 if key.startswith("rank") else 1
        scores = [number(value) for value in row[key]]
        pairs = zip(found, scores, strict=True)
        return [(str(text), None if score is None else sign * score) for text, score in pairs if isinstance(text, str)]
    answers = []
    for one in found:
        text = next((one[key] for key in _TEXTS if isinstance(one.get(key), str)), "") if isinstance(one, dict) else ""
        answers.append((text, _score(one) if isinstance(one, dict) else None))
    return answers


def _score(answer: Mapping[str, Any]) -> float | None:
    """How good an answer is: its own score, the mean of its annotations, or its rank turned around."""
    annotations = answer.get("annotations")
    for name in _SCORES:
        if name == "overall_score" and isinstance(annotations, dict):  # in UltraFeedback some of these are wrong
            found = [number(one.get("Rating")) for one in annotations.values() if isinstance(one, dict)]
            known = [score for score in found if score is not None]
            if known:
                return sum(known) / len(known)
        if (score := number(answer.get(name))) is not None:
            return score
    rank = number(answer.get("rank"))
    return None if rank is None else -rank


def _prompt(row: Mapping[str, Any], line: int, file: str) -> list[dict[str, Any]]:
    name = next(name for name in _PROMPTS if row.get(name))
    value = row[name]
    if isinstance(value, str):
        turns = dialogue(value)  # Nectar: ends with an empty turn of the assistant
        while turns and not turns[-1]["content"].strip():
            turns.pop()
        return turns or [message("user", prompt_of(row) or value)]
    if not isinstance(value, list | dict):
        raise DataError(f"line {line}: {name} must be text", where=file, fix="write it as text")
    return side(value, "user", f"line {line}: {name}", file)
