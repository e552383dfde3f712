"""Tokens as OpenAI's logprobs show them: their text and their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ownchat.generate.detokenize import BYTE_TOKEN, special_ids
from ownchat.generate.engine import Delta

LEAST = -9999.0  # what OpenAI gives for a token that cannot be; JSON has no infinity


class TokenTexts:
    """Texts and bytes of a tokenizer's tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = special_ids(tokenizer)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._byte_level = "ByteLevel" in str(getattr(backend, "decoder", ""))

    def bytes_of(self, id: int) -> bytes:
        """The bytes that a token stands for, also where they are half a character; of a control token its name's."""
        token = self._tokenizer.convert_ids_to_tokens(id)
        if token is None:  # beyond the vocabulary: rows that only pad a matrix
            return b""
        if id in self._special:
            return str(token).encode()
        if BYTE_TOKEN.fullmatch(token):  # <0x0A>
            return bytes([int(token[3:5], 16)])
        table = _bytes_of_characters()
        if self._byte_level and all(character in table for character in token):
            return bytes(table[character] for character in token)
        if not self._byte_level and "▁" in token:  # a word-initial mark, which decoding one token alone drops
            return str(token).replace("▁", " ").encode()
        return str(self._tokenizer.decode([id])).encode()

    def shown(self, delta: Delta, *, ends: bool = False) -> list[dict[str, Any]]:
        """The tokens of a delta with their log-probabilities.

        The end of a turn has no text and is no content: it is left out, but with ``ends`` (bare completions).
        """
        tops: Sequence[Sequence[tuple[int, float]]] = delta.top or ((),) * len(delta.ids)
        return [
            self.one(id, logprob) | self.silent(id) | {"top_logprobs": [self.one(*pair) for pair in top]}
            for id, logprob, top in zip(delta.ids, delta.logprobs, tops, strict=False)
            if ends or id not in self._special
        ]

    @staticmethod
    def unnamed(number: int) -> list[dict[str, Any]]:
        """In the place of tokens that an engine counted and did not name, such as half a character at the end."""
        return [{"token": "", "logprob": None, "bytes": [], "top_logprobs": []} for _ in range(number)]

    def silent(self, id: int, text: str = "") -> dict[str, bool]:
        """A mark on a control token that does not stand in ``text``, so that it takes no place there."""
        name = str(self._tokenizer.convert_ids_to_tokens(id))
        return {"silent": True} if id in self._special and name not in text else {}

    def one(self, id: int, logprob: float) -> dict[str, Any]:
        """A token as it stands in a list of alternatives."""
        raw = self.bytes_of(id)
        try:
            text = raw.decode()
        except UnicodeDecodeError:  # a part of a character; all of them would look alike, so OpenAI writes them so
            text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
        return {"token": text, "logprob": max(logprob, LEAST), "bytes": list(raw)}


@lru_cache(maxsize=1)
def _bytes_of_characters() -> dict[str, int]:
    """Byte-level BPE writes bytes as characters that can be seen (GPT-2's table)."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in seen}
    rest = [byte for byte in range(256) if byte not in set(seen)]
    return table | {chr(256 + number): byte for number, byte in enumerate(rest)}
