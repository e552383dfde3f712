"""Which tokens made a character, where an engine reports only the last of them.

llama.cpp's server streams a token when the text so far ends with a whole character. Emoji and many scripts take two to
four byte-level tokens for one, and of those it sends the last, with the text of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def unfinished_ids(
    text: str, last: int, count: int, *, tokenizer: Any, pieces: Sequence[bytes], ids: Mapping[bytes, int]
) -> list[int]:
    """The ``count`` tokens before ``last`` that have ``text`` with it; an empty list where there are none.

    ``pieces``: the bytes of each token; ``ids``: the token of these bytes. Mostly they are what the tokenizer makes of
    the text. Where a model wrote the bytes in other tokens, the one way to cut them that takes the longest first.
    """
    usual = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    if len(usual) == count + 1 and usual[-1] == last:
        return list(usual[:-1])
    written, end = text.encode("utf-8", "surrogateescape"), pieces[last]
    if not written.endswith(end):
        return []
    return _cut(written[: len(written) - len(end)], count, ids) or []


def _cut(text: bytes, count: int, ids: Mapping[bytes, int]) -> list[int] | None:
    """``text`` as exactly ``count`` tokens, the longest first."""
    if count == 0:
        return [] if not text else None
    for length in range(len(text) - count + 1, 0, -1):
        if (id := ids.get(text[:length])) is not None and (rest := _cut(text[length:], count - 1, ids)) is not None:
            return [id, *rest]
    return None
