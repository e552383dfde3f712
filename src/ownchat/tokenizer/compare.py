"""What a tokenizer makes of a run's text, beside others: bytes per token, tokens nobody needs, the round trip.

Held-out text (valid and test) says how well it does on text that it was not learned from; the train split says which
of its tokens a model would see often enough to learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ownchat.artifacts import SPLITS
from ownchat.errors import ModelError
from ownchat.monitor.progress import progress
from ownchat.tokenizer.learn import all_cores
from ownchat.tokenizer.texts import amount_of, texts

RARE = 10  # times seen in train, below which a token's row learns little
LOOK_BYTES = 16_000_000  # of train, for what others' tokens are seen there
SHOWN = 10
BATCH, BATCH_CHARACTERS = 512, 2_000_000  # texts at a time, at most
WORTH_SAVING = 0.02  # of the tokens, from which a tokenizer of one's own pays
TAUGHT = 0.5  # share of a vocabulary that occurs often enough; below, most of it would be dead weight


@dataclass(frozen=True)
class Measured:
    """A tokenizer on the held-out text.

    ``taught``: the share of its tokens, control tokens and single bytes aside, that stand in train ten times or more.
    """

    name: str
    vocab: int
    num_bytes: int
    num_tokens: int
    taught: float

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / max(1, self.num_tokens)


@dataclass(frozen=True)
class Comparison:
    """``measured``: the run's own tokenizer first. Control tokens and single bytes are neither rare nor unused."""

    measured: tuple[Measured, ...]
    learned: int  # tokens that are neither control tokens nor single bytes
    rare: int  # of these, seen less than ten times in train, but seen
    unused: int  # never seen: parts of longer tokens, mostly
    rare_examples: tuple[str, ...]
    unused_examples: tuple[str, ...]
    longest: tuple[str, ...]
    texts: int  # pieces of text whose round trip was tried: all of the run's
    text_bytes: int
    not_exact: int
    first_not_exact: str
    recommendation: str


@dataclass
class _Pass:
    """What is counted while texts go through a tokenizer."""

    backend: Tokenizer
    counts: np.ndarray = field(init=False)  # int64 [vocab]: how often each token came
    num_bytes: int = 0
    texts: int = 0
    not_exact: int = 0
    first: str = ""

    def __post_init__(self) -> None:
        self.backend.no_truncation()
        self.backend.no_padding()
        self.backend.encode_special_tokens = True  # a control token in somebody's text is text
        self.counts = np.zeros(max(self.backend.get_vocab().values()) + 1, np.int64)

    def take(self, batch: Sequence[str], *, back: bool) -> None:
        """Count a batch; ``back``: and compare what comes back with what went in."""
        encoded = [made.ids for made in self.backend.encode_batch_fast(list(batch), add_special_tokens=False)]
        ids = np.fromiter((id for one in encoded for id in one), np.int64)
        self.counts += np.bincount(ids, minlength=len(self.counts))
        self.num_bytes += sum(len(text.encode()) for text in batch)
        self.texts += len(batch)
        if not back:
            return
        for text, again in zip(batch, self.backend.decode_batch(encoded, skip_special_tokens=False), strict=True):
            if text != again:
                self.not_exact += 1
                self.first = self.first or _difference(text, again)


def compare(tokenizers: Mapping[str, Path], clean: Path) -> Comparison:
    """Compare the tokenizers of directories on the text of 2-clean; the first is the run's own.

    Raises :class:`~ownchat.errors.ModelError` for a directory without ``tokenizer.json``.
    """
    backends = {name: _load(directory) for name, directory in tokenizers.items()}
    own, *others = backends
    amounts = {split: amount_of(clean / split).num_bytes for split in SPLITS}
    train, held_out = _Pass(backends[own]), {name: _Pass(backend) for name, backend in backends.items()}
    looked = {name: _Pass(backends[name]) for name in others}
    share = min(1.0, LOOK_BYTES / max(1, amounts["train"]))
    chance = np.random.Generator(np.random.PCG64(0))
    with all_cores(), progress("tokenizer report", sum(amounts.values()), "bytes") as advance:
        for batch in _batches(texts(clean / "train", advance=advance)):
            train.take(batch, back=True)
            for one in looked.values():
                one.take([text for text in batch if chance.random() < share], back=False)
        for split in ("valid", "test"):
            for batch in _batches(texts(clean / split, advance=advance)):
                for name, one in held_out.items():
                    one.take(batch, back=name == own)
    looked[own] = train
    measured = tuple(
        Measured(
            name, backends[name].get_vocab_size(), one.num_bytes, int(one.counts.sum()),
            _taught(looked[name].counts[_learned(backends[name])], 1 if name == own else share),
        )
        for name, one in held_out.items()
    )  # fmt: skip
    learned = _learned(backends[own])
    by_count = learned[np.argsort(train.counts[learned], kind="stable")]
    rare = [id for id in by_count if 0 < train.counts[id] < RARE]
    unused = [id for id in by_count if train.counts[id] == 0]
    longest = sorted(learned, key=lambda id: (-len(backends[own].id_to_token(int(id)) or ""), id))
    both = (train, held_out[own])
    return Comparison(
        measured,
        learned=len(learned),
        rare=len(rare),
        unused=len(unused),
        rare_examples=_shown(backends[own], rare),
        unused_examples=_shown(backends[own], unused),
        longest=_shown(backends[own], longest),
        texts=sum(one.texts for one in both),
        text_bytes=sum(one.num_bytes for one in both),
        not_exact=sum(one.not_exact for one in both),
        first_not_exact=next((one.first for one in both if one.first), ""),
        recommendation=recommendation(measured),
    )


def recommendation(measured: Sequence[Measured]) -> str:
    """In words: is a tokenizer of one's own worth it? ``measured``: the own one first.

    >>> own, other = Measured("own", 8192, 1000, 250, 0.9), Measured("GPT-2", 50257, 1000, 280, 0.2)
    >>> recommendation([own, other]).split(":")[0]
    'For a model from nothing it is worth it'
    """
    own, *others = measured
    never = "For fine-tuning a pre-trained model never: it knows no tokens but its own."
    if not others:
        return f"For a model from nothing it does; there is no other here to compare it with. {never}"
    best = min(others, key=lambda one: one.num_tokens)
    saved = 1 - own.num_tokens / max(1, best.num_tokens)
    tokens = f"it {'saves' if saved >= 0 else 'takes'} {abs(saved):.0%} {'of the' if saved >= 0 else 'more'} tokens"
    rows = f"{own.vocab:,} rows instead of {best.vocab:,}"
    teaches = f"your text teaches {best.taught:.0%} of {best.name}'s, {own.taught:.0%} of its own"
    if saved >= WORTH_SAVING:
        return f"For a model from nothing it is worth it: {tokens} beside {best.name}, with {rows}. {never}"
    if own.vocab < best.vocab and best.taught < TAUGHT:
        return f"For a model from nothing it is worth it: {tokens} than {best.name}, but has {rows}; {teaches}. {never}"
    return (
        f"For a model from nothing it is not worth it: {tokens} beside {best.name}, and {teaches}; "
        f"take that one (tokenizer.base). {never}"
    )


def _taught(counts: np.ndarray, share: float) -> float:
    """The share of tokens that come often enough, where ``counts`` were made on a share of the text."""
    return float((counts >= max(1, RARE * share)).mean()) if len(counts) else 1.0


def _load(directory: Path) -> Tokenizer:
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise ModelError("there is no tokenizer.json", where=str(directory), fix="ownchat tokenizer train PATH")
    return Tokenizer.from_file(str(file))


def _batches(source: Iterable[str]) -> Iterator[list[str]]:
    held: list[str] = []
    size = 0
    for text in source:
        held.append(text)
        size += len(text)
        if len(held) >= BATCH or size >= BATCH_CHARACTERS:
            yield held
            held, size = [], 0
    if held:
        yield held


def _learned(backend: Tokenizer) -> np.ndarray:
    """int64: ids of tokens that are neither control tokens nor single bytes (one character of the byte alphabet)."""
    control = set(backend.get_added_tokens_decoder())
    return np.array(
        sorted(id for token, id in backend.get_vocab().items() if id not in control and len(token) > 1), np.int64
    )


def _shown(backend: Tokenizer, ids: Iterable[int]) -> tuple[str, ...]:
    return tuple(backend.decode([int(id)]) for id in islice(ids, SHOWN))


def _difference(text: str, again: str) -> str:
    """Where two texts part, with what stands there."""
    start = next((n for n, (a, b) in enumerate(zip(text, again, strict=False)) if a != b), min(len(text), len(again)))
    return f"{text[max(0, start - 20) : start + 20]!r} came back as {again[max(0, start - 20) : start + 20]!r}"
