"""Which of the published forms a JSON object has; rows of one file may differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from ownchat.data.datasets import choices, preferences, ranked, sharegpt
from ownchat.data.datasets.sharegpt import Items
from ownchat.data.messages import conversation


class _Read(Protocol):
    def __call__(
        self, row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
    ) -> Items: ...


class Form(NamedTuple):
    """A published form: ``keys`` are tried first, one of each group must be there; then ``fits`` looks at values."""

    name: str
    keys: tuple[tuple[str, ...], ...]
    fits: Callable[[Mapping[str, Any]], bool]
    read: _Read


_SPEAKERS = {"from", "speaker", "sender", "author", "who"}
_BETTER = ("chosen", "preferred_output", "preferred_completion", "chosen_response", "preferred")
_FIRST = ("human_ref_A", "answer_0", "response_0", "response_a", "conversation_a", "response_A")
_MANY = ("completions", "responses", "answers", "candidates", "outputs", "generations")


def _is_messages(row: Mapping[str, Any]) -> bool:
    found = row["messages"]
    if isinstance(found, list) and found and isinstance(found[0], dict) and "role" not in found[0]:
        return not _SPEAKERS.intersection(found[0])  # somebody speaks, but not in OpenAI's form
    return found is not None


def _read_messages(
    row: Mapping[str, Any], group: str, *, file: str, format: str, line: int, offset: int | None = None
) -> Items:
    yield conversation(row, group, file=file, format=format, line=line, offset=offset)


# The first one that fits is it: the more specific come first.
_FORMS = (
    Form("preferences", (_BETTER,), preferences.is_preference, preferences.read_preference),
    Form("preferences", (_FIRST,), preferences.is_verdict, preferences.read_verdict),
    Form("ranked answers", (_MANY,), ranked.is_ranked, ranked.read_ranked),
    Form("judged answers", (("label", "kto_tag", "desirable"),), preferences.is_judged, preferences.read_judged),
    Form("messages", (("messages",),), _is_messages, _read_messages),
    Form("sharegpt", (sharegpt.LISTS,), sharegpt.is_sharegpt, sharegpt.read_sharegpt),
    Form("alpaca", (("history",),), sharegpt.is_alpaca, sharegpt.read_alpaca),
    Form("self-instruct", (("instances",),), sharegpt.is_self_instruct, sharegpt.read_self_instruct),
    Form("prompt and completion", (("prompt",), ("completion",)), sharegpt.is_pair, sharegpt.read_pair),
    Form("multiple choice", (choices.QUESTIONS, choices.VERDICTS), choices.is_choice, choices.read_choice),
)


def form_of(row: Mapping[str, Any]) -> Form | None:
    """The form of an object; None for a row of a table.

    >>> form_of({"prompt": "Hi", "chosen": "Hello", "rejected": "No"}).name, form_of({"question": "Why?"})
    ('preferences', None)
    """
    for form in _candidates(tuple(row)):
        if form.fits(row):
            return form
    return None


@lru_cache(4096)  # the rows of a file have few sets of keys
def _candidates(names: tuple[str, ...]) -> tuple[Form, ...]:
    known = set(names)
    return tuple(form for form in _FORMS if all(known.intersection(group) for group in form.keys))
