"""A tokenizer directory as llama.cpp wants it: tokens, their kinds, merges, and the name of the pre-tokenizer.

llama.cpp does not read a tokenizer's split pattern, it knows a list of names and has the pattern of each built in
(llama-vocab.cpp, ``llm_tokenizer_bpe``). So the name is found by the pattern, and whether both give the same tokens is
tried on real text afterwards (:mod:`ownchat.generate.exports.parity`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownchat.errors import ModelError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType

# Two ways to write the same contractions.
_ANY_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_EACH_CASE = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # what ByteLevel splits by
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_O200K_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
)
# Patterns that are applied one after the other -> llama.cpp's name for them. Of the names with one pattern, one that
# takes no token but by merges.
NAMES: dict[tuple[str, ...], str] = {
    (GPT2,): "gpt-2",
    (r"\p{N}", GPT2): "smollm",
    (_WORDS + r"\p{N}{1,3}" + _REST,): "dbrx",
    (_WORDS + r"\p{N}" + _REST,): "qwen2",
    (_O200K_WORDS + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",): "gpt-4o",
}
# The same patterns, and a word that is a token is taken as it is, merges or not ("ignore_merges").
WHOLE_WORDS = {"dbrx": "llama-bpe"}

# llama.cpp refuses a file without merges; this one, of a character that byte-level text never holds, merges nothing.
NO_MERGE = "\u2581 \u2581"


@dataclass(frozen=True)
class Vocabulary:
    """``tokens`` and ``kinds`` by id; ``merges`` by rank, as ``"left right"``; ``pre``: llama.cpp's name."""

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str

    def pieces(self) -> list[bytes]:
        """What each token writes into an answer; control tokens write nothing."""
        letters = [*range(33, 127), *range(161, 173), *range(174, 256)]  # stand for themselves, the others follow 255
        others = [byte for byte in range(256) if byte not in letters]
        values = {chr(byte): byte for byte in letters} | {chr(256 + n): byte for n, byte in enumerate(others)}
        return [
            bytes(values[character] for character in token) if kind == NORMAL
            else token.encode() if kind == USER_DEFINED else b""
            for token, kind in zip(self.tokens, self.kinds, strict=True)
        ]  # fmt: skip


def read_vocabulary(directory: Path, rows: int) -> Vocabulary:
    """The vocabulary of ``directory``'s ``tokenizer.json``, filled up to the ``rows`` of the model's embedding.

    Raises :class:`~ownchat.errors.ModelError` for a tokenizer that llama.cpp has no equal of.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise ModelError("no tokenizer.json: GGUF is written from fast tokenizers", where=str(directory))
    stored = json.loads(path.read_text(encoding="utf-8"))
    model = stored["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or _affixes(model):
        raise _no_equal(f"a {model['type']} tokenizer that is not byte-level BPE", path)
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    named = {id: token for token, id in model["vocab"].items()}
    kinds = dict.fromkeys(named, NORMAL)
    for token in stored["added_tokens"]:
        named[token["id"]] = token["content"]
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    if len(named) > rows:
        raise ModelError(f"the tokenizer has {len(named):,} tokens and the model {rows:,} rows", where=str(directory))
    return Vocabulary(
        tokens=tuple(named.get(id, f"[PAD{id}]") for id in range(rows)),
        kinds=tuple(kinds.get(id, UNUSED) for id in range(rows)),
        merges=merges or (NO_MERGE,),
        pre=pre_tokenizer(stored, path),
    )


def pre_tokenizer(stored: dict[str, Any], path: Path) -> str:
    """llama.cpp's name for what a ``tokenizer.json`` does before it merges; raises where there is none."""
    if stored.get("normalizer") not in (None, {"type": "NFC"}):
        raise _no_equal(f"a tokenizer with the normalizer {stored['normalizer'].get('type')}", path)
    patterns, is_bytes = _patterns(stored.get("pre_tokenizer"), path)
    if not is_bytes:
        raise _no_equal("a tokenizer that does not work on bytes", path)
    if not stored["model"]["merges"] and not stored["model"].get("ignore_merges"):
        return "gpt-2"  # where nothing is merged it does not matter where a text is split
    name = NAMES.get(patterns)
    if name is None:
        raise _no_equal(f"a tokenizer that splits by {' then '.join(patterns) or 'nothing'}", path)
    if not stored["model"].get("ignore_merges"):
        return name
    if name not in WHOLE_WORDS:
        raise _no_equal(f"a tokenizer that splits by {' then '.join(patterns)} and ignores merges", path)
    return WHOLE_WORDS[name]


def _patterns(step: dict[str, Any] | None, path: Path) -> tuple[tuple[str, ...], bool]:
    """The patterns that a pre-tokenizer splits by, in order, and whether it ends in bytes."""
    patterns: list[str] = []
    is_bytes = False
    steps = [] if step is None else step["pretokenizers"] if step["type"] == "Sequence" else [step]
    for part in steps:
        match part:
            case {"type": "ByteLevel", "add_prefix_space": False}:
                patterns += [GPT2] if part.get("use_regex", True) else []
                is_bytes = True
            case {"type": "Digits", "individual_digits": True}:
                patterns.append(r"\p{N}")
            case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}:
                patterns.append(regex.replace(_EACH_CASE, _ANY_CASE))
            case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Removed", "invert": True}:
                patterns.append(
                    regex.replace(_EACH_CASE, _ANY_CASE)
                )  # the same for a pattern that leaves nothing out, as those of NAMES do
            case _:
                raise _no_equal(f"a tokenizer with the pre-tokenizer {part['type']}", path)
    return tuple(patterns), is_bytes


def _affixes(model: dict[str, Any]) -> bool:
    return bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))


def _no_equal(what: str, path: Path) -> ModelError:
    return ModelError(
        f"llama.cpp has no equal of {what}",
        where=str(path),
        fix="export it --to vllm, which uses the tokenizer as it is; byte-level BPE goes to GGUF and Ollama, too",
    )
