"""A tokenizer of one's own, learned from text and saved as a standard Hugging Face directory.

Every kind is a byte-level BPE model of the ``tokenizers`` library with all 256 bytes in it, so that any text comes
back exactly: what a tokenizer has no token for is written in bytes. ``bpe`` learns merges (Sennrich et al. 2016, on
bytes: Radford et al. 2019); ``word`` and ``char`` have whole words or characters and no merges; ``byte`` has nothing
but bytes. A word that is a token is taken whole (``ignore_merges``), as Llama 3's tokenizer does, whose split pattern
this is: llama.cpp knows both by the name ``llama-bpe``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ownchat.errors import ConfigError, DataError
from ownchat.tokenizer.chatml import CHATML_TEMPLATE, CONTROL_TOKENS, END_OF_TEXT, END_OF_TURN, PADDING
from ownchat.tokenizer.texts import cut

Kind = Literal["bpe", "word", "char", "byte"]

# GPT-4's (tiktoken, cl100k_base), written out as llama.cpp has it: contractions; a word with the one character before
# it; up to three digits; punctuation with the space before and the line ends after it; white space.
SPLIT = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LONGEST = 64  # characters of a "word" when learning: text without spaces would fill the memory, and teach nothing
BLOCK = 2 * LONGEST  # bytes: where a whole one is one run, a text is looked at closely

RESERVED = len(CONTROL_TOKENS) + 256  # tokens of every vocabulary
MULTIPLE = 64  # vocabularies are whole multiples: matrix products of such widths are faster
LEAST, MOST = 512, 32_768
HUGE_BYTES, HUGE = 10 * 10**9, 65_536
PER_ROOT = 1.2  # tokens for each square root of the bytes
SEEN = 2  # times that something stands in the text before it becomes a token; once teaches nothing
SEEN_WORD = 10  # a whole word needs a row of its own, and a row needs so many examples
PER_CHUNK = 64  # texts looked at together


def learn(
    texts: Iterable[str], *, kind: Kind = "bpe", vocab: int | None = None, num_bytes: int, output: Path, context: int
) -> PreTrainedTokenizerBase:
    """Learn a tokenizer, write it to ``output`` and return it. The same texts give the same files.

    ``vocab``: tokens in all, the 4 control tokens and 256 bytes included; none: :func:`derived_vocab` of ``num_bytes``
    (UTF-8 bytes of the texts), or what the texts support. ``context``: the longest sequence (``model_max_length``).
    Raises :class:`~ownchat.errors.ConfigError` for a vocabulary that the texts do not support, and
    :class:`~ownchat.errors.DataError` when there is no text.

    >>> import tempfile
    >>> lines = [f"The pump number {n} makes a noise." for n in range(20)]
    >>> made = learn(lines, num_bytes=600, output=Path(tempfile.mkdtemp()), context=512)
    >>> ids = made.encode("A noise? Größe 1234.")
    >>> made.decode(ids), len(ids) < len("A noise? Größe 1234.".encode())
    ('A noise? Größe 1234.', True)
    """
    _check(kind, vocab)
    counted = _Counted(texts)
    with all_cores():
        match kind:
            case "bpe":
                backend = _merges(counted, vocab or derived_vocab(num_bytes))
            case "word":
                backend = _whole(counted, Regex(SPLIT), vocab or MOST, SEEN if vocab else SEEN_WORD)
            case "char":
                backend = _whole(counted, Regex(r"[\s\S]"), vocab or HUGE, SEEN)
            case "byte":
                backend = _assembled({}, [], None)
    if kind != "byte" and counted.texts == 0:
        raise DataError("there is no text to learn a tokenizer from", fix="look at: ownchat import PATH --preview")
    found = backend.get_vocab_size()
    if vocab is not None and found < vocab:
        raise _too_large(kind, vocab, found, num_bytes)
    if vocab is None and kind in ("bpe", "word") and found >= RESERVED + MULTIPLE:
        backend = first_tokens(backend, found // MULTIPLE * MULTIPLE)
    return _saved(backend, output, context)


def derived_vocab(num_bytes: int) -> int:
    """Tokens for so much text: the power of two nearest to 1.2 x the square root of its bytes.

    So tokens and the examples for each of them grow alike: the learned token in the middle stands in the text some
    hundred times (docs/tokenizer.md). At least 512, at most 32,768; 65,536 from 10 GB.

    >>> [derived_vocab(size) for size in (10_000, 1_000_000, 100_000_000, 10**9, 10**11)]
    [512, 1024, 16384, 32768, 65536]
    """
    if num_bytes >= HUGE_BYTES:
        return HUGE
    wanted = PER_ROOT * math.sqrt(max(1, num_bytes))
    return min(MOST, max(LEAST, 2 ** round(math.log2(wanted))))


def first_tokens(backend: Tokenizer, vocab: int) -> Tokenizer:
    """The tokenizer with its first ``vocab`` tokens only: what learning so many would have given."""
    model = json.loads(backend.to_str())["model"]
    kept = {token: id for token, id in model["vocab"].items() if id < vocab}
    merges = [(left, right) for left, right in model["merges"] if {left, right, left + right} <= kept.keys()]
    return _assembled(kept, merges, backend.pre_tokenizer)


@contextmanager
def all_cores() -> Iterator[None]:
    """The ``tokenizers`` library works on all cores meanwhile; elsewhere it may not, for the sake of processes."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# Starting where a run starts, so that each character is looked at once.
_ENDLESS = re.compile(
    rf"(?<![^\W\d_])[^\W\d_]{{{LONGEST + 1},}}"
    rf"|(?<![^\w\s]|_)(?:[^\w\s]|_){{{LONGEST + 1},}}|(?<!\s)\s{{{LONGEST + 1},}}"
)


class _Counted:
    """Texts on their way to the library, without endless words, and how many there were.

    One after another: the library takes 256 things at once from Python while its other threads wait, and of texts these
    are few enough that they wait for nothing (LOG.md).
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._source, self.texts = texts, 0

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._chunks())

    def _chunks(self) -> Iterator[list[str]]:
        held: list[str] = []
        for text in self._source:
            held += [text] if len(text) <= 2**16 else cut(text)
            if len(held) >= PER_CHUNK:
                yield self._ready(held)
                held = []
        yield self._ready(held)

    def _ready(self, held: list[str]) -> list[str]:
        self.texts += len(held)
        if not _has_long_run(" ".join(held)):
            return held  # nearly all text: one look at many texts costs next to nothing
        return [part for text in held for part in (_without_endless(text) if _has_long_run(text) else [text])]


def _has_long_run(text: str) -> bool:
    """Is a whole block of :data:`BLOCK` bytes white space, or none of it? In a run of twice as many one is."""
    raw = np.frombuffer(text.encode(), np.uint8)
    blocks = raw[: len(raw) // BLOCK * BLOCK].reshape(-1, BLOCK)
    if not len(blocks):
        return False
    return int(blocks.min(axis=1).max()) > ord(" ") or int(blocks.max(axis=1).min()) <= ord(" ")


def _without_endless(text: str) -> Iterator[str]:
    """The text, end to end, cut within runs of letters, of punctuation and of white space that are too long."""
    start = 0
    for run in _ENDLESS.finditer(text):
        for end in range(run.start() + LONGEST, run.end(), LONGEST):
            yield text[start:end]
            start = end
    yield text[start:]


def _merges(texts: Iterable[str], vocab: int) -> Tokenizer:
    backend = Tokenizer(models.BPE(ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence([_split(SPLIT), _bytes()])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=SEEN,
        special_tokens=[*CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    return _assembled(model["vocab"], [tuple(pair) for pair in model["merges"]], None)


def _whole(texts: Iterable[str], pattern: Regex, vocab: int, seen: int) -> Tokenizer:
    """Control tokens, bytes, and the most frequent words or characters; no merges."""
    counting = Tokenizer(models.WordLevel(unk_token=PADDING))
    split = pre_tokenizers.Split(pattern, "isolated")
    counting.pre_tokenizer = pre_tokenizers.Sequence([split, _bytes()])
    trainer = trainers.WordLevelTrainer(vocab_size=vocab + RESERVED, min_frequency=seen, show_progress=False)
    counting.train_from_iterator(texts, trainer)
    by_rank = sorted(counting.get_vocab().items(), key=lambda item: item[1])
    words = [word for word, _ in by_rank if len(word) > 1]  # one character is a byte, and there already
    tokens = dict(_reserved())
    for word in words[: vocab - RESERVED]:
        tokens[word] = len(tokens)
    return _assembled(tokens, [], pre_tokenizers.Sequence([split, _bytes()]))


def _reserved() -> Iterator[tuple[str, int]]:
    """The tokens of every vocabulary: control tokens, then the 256 bytes as the library writes them."""
    for id, token in enumerate([*CONTROL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]):
        yield token, id


def _assembled(tokens: dict[str, int], merges: list[tuple[str, str]], split: Any) -> Tokenizer:
    backend = Tokenizer(models.BPE(vocab=tokens or dict(_reserved()), merges=merges, ignore_merges=True))
    backend.pre_tokenizer = split or pre_tokenizers.Sequence([_split(SPLIT), _bytes()])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return backend


def _split(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _bytes() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _saved(backend: Tokenizer, output: Path, context: int) -> PreTrainedTokenizerBase:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        add_bos_token=False,
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )
    tokenizer.chat_template = CHATML_TEMPLATE
    tokenizer.save_pretrained(output)
    return tokenizer


def _check(kind: Kind, vocab: int | None) -> None:
    if kind == "byte" and vocab not in (None, RESERVED):
        raise ConfigError(
            f"tokenizer.vocab = {vocab:,}, and a byte tokenizer has {RESERVED}: {len(CONTROL_TOKENS)} control tokens "
            "and 256 bytes",
            fix="leave it out, or choose tokenizer.kind = bpe",
        )
    if vocab is not None and vocab <= RESERVED and kind != "byte":
        raise ConfigError(
            f"tokenizer.vocab = {vocab:,} leaves nothing to learn: {len(CONTROL_TOKENS)} control tokens and 256 bytes "
            "are in every vocabulary",
            fix=f"choose more than {RESERVED}, or tokenizer.kind = byte",
        )


def _too_large(kind: Kind, vocab: int, found: int, num_bytes: int) -> ConfigError:
    things = {"bpe": "pairs of tokens", "word": "words", "char": "characters"}[kind]
    return ConfigError(
        f"tokenizer.vocab = {vocab:,} is more than this text supports: {found:,} with all {things} that stand in it "
        "at least twice",
        fix=f"choose {found:,} or fewer, or leave it out ({derived_vocab(num_bytes):,} or what there is), or give "
        f"more text than {num_bytes / 1e6:,.1f} MB",
    )
