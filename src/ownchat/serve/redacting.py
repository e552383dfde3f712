"""The redactor over what is stored: every text of a conversation together, so that one person has one number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Any

from ownchat.serve.protocol.body import LONGEST_KEY, LONGEST_VALUE

TEXTS = frozenset(("content", "text", "arguments", "refusal", "instructions", "output", "summary"))  # keys of texts
LABEL_TYPES = ("email", "phone", "card", "iban", "password", "secret")  # in a label: names there are topics as a rule
SPEAKERS = ("user", "assistant", "system")  # their name is a person's; a tool's is that of a function


class Redacting:
    """Two redactors and a lock: they number what they find, so that one conversation goes through at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._texts: Any = None
        self._labels: Any = None

    def conversation(self, value: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
        """A JSON value with all its texts redacted, and how many were found of each type.

        Tokens with their probabilities are left out: they spell the text once more.
        """
        found: dict[str, Any] = _copy(value)
        places: list[tuple[Any, Any, bool]] = []
        _collect(found, places, answer=False)
        with self._lock:
            if self._texts is None:
                from ownchat.clean.private.redaction import Redactor

                self._texts = Redactor()
            self._texts.forget()
            redacted = self._texts.texts(
                [holder[key] for holder, key, _ in places], [answer for *_, answer in places]
            )  # fmt: skip
            self._texts.forget()
        types: Counter[str] = Counter()
        for (holder, key, _), one in zip(places, redacted, strict=True):
            holder[key] = one.text
            types.update(span.type for span in one.spans)
        return found, dict(types)

    def labels(self, metadata: dict[str, str]) -> dict[str, str]:
        """Metadata without addresses and secrets, in keys and in values; used on what is stored, and to tell what
        cannot be searched for. A placeholder can be longer than what it stands for: limits still hold."""
        if not metadata:
            return {}
        with self._lock:
            if self._labels is None:
                from ownchat.clean.private.redaction import Redactor

                self._labels = Redactor(types=LABEL_TYPES)
            self._labels.forget()
            texts = [one.text for one in self._labels.texts([*metadata, *metadata.values()])]
            self._labels.forget()
        keys, values = texts[: len(metadata)], texts[len(metadata) :]
        found: dict[str, str] = {}
        for key, value in zip(keys, values, strict=True):
            name = key = key[:LONGEST_KEY]
            number = 1
            while name in found:  # two that were masked alike stay two
                number += 1
                name = f"{key[: LONGEST_KEY - 4]}~{number}"
            found[name] = value[:LONGEST_VALUE]
        return found


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: None if key == "logprobs" else _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _collect(value: Any, places: list[tuple[Any, Any, bool]], *, answer: bool, all_texts: bool = False) -> None:
    """Where texts stand, and whether a model wrote them."""
    if isinstance(value, dict):
        answer = value["role"] == "assistant" if "role" in value else answer or value.get("type") == "output_text"
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return
    for key, item in items:
        inside = all_texts or (
            isinstance(value, dict) and (key in TEXTS or (key == "name" and value.get("role") in SPEAKERS))
        )
        if isinstance(item, str):
            if inside:
                places.append((value, key, answer))
        else:
            _collect(item, places, answer=answer, all_texts=all_texts or key == "arguments")
