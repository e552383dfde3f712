"""Instructions whose fulfilment a program can see: "in one word", "three items, separated by commas", "in capitals".

The idea is that of IFEval (Zhou et al. 2023): no judge is needed, and an answer follows or it does not. The rules here
are shorter ones, for small models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ownchat.errors import nearest

_SENTENCE_END = re.compile(r"[.!?…](?=[\"'”’)]*(?:\s|$))")
_AROUND = " \t\n\"'“”‘’`*.,;:!?()"  # what may stand around an answer and changes nothing
ITEM_WORDS = 3  # more words are no item of a list


def words(text: str) -> int:
    """Words with at least one letter or digit.

    >>> words("well - yes!")
    2
    """
    return sum(any(character.isalnum() for character in word) for word in text.split())


def sentences(text: str) -> int:
    """Sentences; one that does not end in a sign counts too.

    >>> sentences("It rains. Stay at home"), sentences("Version 2.5 is out.")
    (2, 1)
    """
    parts = _SENTENCE_END.split(text)
    return sum(1 for part in parts if words(part))


def _items(text: str, count: int) -> bool:
    parts = text.split(",")
    return len(parts) == count and all(1 <= words(part) <= ITEM_WORDS for part in parts)


def _case(text: str, wanted: str) -> bool:
    letters = "".join(filter(str.isalpha, text))
    return bool(letters) and letters == (letters.upper() if wanted == "upper" else letters.lower())


def _ends(text: str, end: str) -> bool:
    """A sign ends the text as it is; a word also where a full stop or quotation mark follows it."""
    if not any(character.isalnum() for character in end):
        return text.rstrip(" \"'”’").endswith(end)
    return re.search(rf"(?<!\w){re.escape(end.casefold())}$", text.casefold().rstrip(_AROUND)) is not None


def _has(text: str, part: str) -> bool:
    """A word as a whole word, a sign anywhere."""
    if not part[:1].isalnum():
        return part in text
    return re.search(rf"(?<!\w){re.escape(part.casefold())}(?!\w)", text.casefold()) is not None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


# By name: what its value is, in words; whether a value is that; whether an answer follows it.
RULES: dict[str, tuple[str, Callable[[Any], bool], Callable[[str, Any], bool]]] = {
    "words": ("a whole number above 0", _is_count, lambda text, count: words(text) == count),
    "most_words": ("a whole number above 0", _is_count, lambda text, count: 0 < words(text) <= count),
    "sentences": ("a whole number above 0", _is_count, lambda text, count: sentences(text) == count),
    "lines": (
        "a whole number above 0", _is_count,
        lambda text, count: sum(1 for line in text.splitlines() if words(line)) == count,
    ),
    "items": ("a whole number above 0", _is_count, _items),
    "case": ('"upper" or "lower"', lambda value: value in ("upper", "lower"), _case),
    "number": (
        "true", lambda value: value is True,
        lambda text, _: re.fullmatch(r"[-+]?\d+(?:[.,]\d+)*", text.strip(_AROUND)) is not None,
    ),
    "starts": (
        "a text", _is_text,
        lambda text, start: re.match(rf"{re.escape(start)}(?!\w)", text.lstrip(_AROUND), re.I) is not None,
    ),
    "ends": ("a text", _is_text, _ends),
    "contains": ("a list of texts", _are_texts, lambda text, parts: all(_has(text, part) for part in parts)),
    "without": (
        "a list of texts", _are_texts, lambda text, parts: bool(words(text)) and not any(_has(text, p) for p in parts),
    ),
    "one_of": (
        "a list of texts", _are_texts,
        lambda text, parts: text.strip(_AROUND).casefold() in [part.strip(_AROUND).casefold() for part in parts],
    ),
}  # fmt: skip


def follows(answer: str, rules: Mapping[str, Any]) -> bool:
    """Whether an answer keeps all rules; one without a word keeps none.

    >>> follows("Cat, dog, bird", {"items": 3}), follows("I like cats.", {"items": 3})
    (True, False)
    """
    return bool(words(answer)) and all(RULES[name][2](answer.strip(), value) for name, value in rules.items())


def problem(rules: Any) -> str | None:
    """What is wrong with the rules of an instruction, for people; None: nothing.

    >>> problem({"word": 1})
    'there is no rule "word": did you mean "words"?'
    """
    if not isinstance(rules, dict) or not rules:
        return 'rules must be like {"words": 1}; they are ' + ", ".join(RULES)
    for name, value in rules.items():
        if name not in RULES:
            return f'there is no rule "{name}": {nearest(str(name), RULES) or "rules are " + ", ".join(RULES)}'
        if not RULES[name][1](value):
            return f'the rule "{name}" takes {RULES[name][0]}, not {value!r}'
    return None
