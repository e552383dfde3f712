"""Tokens to text, one token at a time, without ever showing something that has to be taken back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
UNFINISHED = "\ufffd"  # what half a character decodes as
JOINER = "\u200d"
FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))


class Detokenizer:
    """Text of an answer as its tokens come: :meth:`push` each, then :meth:`finish`.

    What the calls return, joined, is :func:`decode` of all tokens. Withheld until it is whole: a character of
    several tokens, a symbol (emoji, flag) that the next character may extend, and a run of byte-fallback tokens
    (the decoder of such vocabularies turns the whole run into U+FFFD when its last byte does not fit).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._special = special_ids(tokenizer)
        self._ids: list[int] = []  # tokens since the last but one release: vocabularies with word-initial marks
        self._shown = 0  # need one token of context; the first _shown of these tokens are released already
        self._symbol = ""

    def push(self, id: int) -> str:
        """The text that is certain now; often one word, sometimes empty."""
        if id in self._special:  # has no text, and must not become the context of what follows
            return ""
        self._ids.append(id)
        if BYTE_TOKEN.fullmatch(str(self._tokenizer.convert_ids_to_tokens(id))):
            return ""
        whole = decode(self._tokenizer, self._ids)
        before = decode(self._tokenizer, self._ids[: self._shown])
        if len(whole) <= len(before) or whole.endswith(UNFINISHED):
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        text = self._symbol + whole[len(before) :]
        start = _last_symbol(text)
        self._symbol = text[start:]
        return text[:start]

    def finish(self) -> str:
        """What was withheld, however unfinished."""
        text = decode(self._tokenizer, self._ids)[len(decode(self._tokenizer, self._ids[: self._shown])) :]
        text, self._ids, self._shown, self._symbol = self._symbol + text, [], 0, ""
        return text


class StopFilter:
    """Pass text through up to the first stop text; the beginning of a possible one is withheld.

    The result does not depend on how the text was cut into pieces: the stop text that is complete first wins.

    >>> stop = StopFilter(["END"])
    >>> stop.push("one E"), stop.push("N"), stop.push("tails EN"), stop.push("D two"), stop.stopped
    ('one ', '', 'ENtails ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of the text that is certain not to belong to a stop text."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        longest = min(max((len(stop) for stop in self._stops), default=1) - 1, len(text))
        held = next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self._stops)), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was withheld and did not become a stop text."""
        text, self._held = self._held, ""
        return text


def _last_symbol(text: str) -> int:
    """Where the symbol begins that ends ``text`` and may go on; the text's length if it ends otherwise.

    >>> _last_symbol("so"), _last_symbol("so 👩"), _last_symbol("so 👩\u200d👧"), _last_symbol("🇫🇷🇩🇪")
    (2, 3, 3, 2)
    """
    start = len(text) - 1
    while start > 0 and (_extends(text[start]) or text[start - 1] == JOINER):
        start -= 1
    flags = len(text[: start + 1]) - len(text[: start + 1].rstrip(FLAG_LETTERS))  # two of them make a flag
    if flags and flags % 2 == 0:
        start -= 1
    return start if text and unicodedata.category(text[start]) == "So" else len(text)


def _extends(character: str) -> bool:
    """Whether it belongs to the character before: joiner, variation selector, skin tone, tag, combining mark."""
    return (
        character == JOINER
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
        or unicodedata.category(character) in ("Mn", "Me")
    )


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of tokens without the special ones, exactly as the model wrote it."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that have no text in an answer."""
    return frozenset(id for id, token in tokenizer.added_tokens_decoder.items() if token.special)
