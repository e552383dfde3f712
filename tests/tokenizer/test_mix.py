"""How often parts are in an epoch: exact numbers, every document in its turn, and nothing changed where nothing is
asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.errors import ConfigError
from ownchat.tokenizer.mix import mixes
from ownchat.tokenizer.packing import Mix, epoch_tokens, num_steps, pack
from ownchat.tokenizer.store import Part, TokenStore, TokenWriter

# of the steps below, as they were before there was a mix
ORDER = "b6fc958710daaaddc521c107ebc4920747a748aa8e8f5fc282f8a0b767ed6329"


def test_without_a_mix_the_order_is_as_it_always_was() -> None:
    digest = hashlib.sha256()
    lengths = np.random.Generator(np.random.PCG64(7)).integers(5, 700, 400)
    for epoch in range(3):
        for step in pack(lengths, batch_tokens=2048, block_tokens=1024, seed=3, epoch=epoch):
            for block in step:
                digest.update(block.astype(np.int64).tobytes() + b"|")
            digest.update(b"#")
    assert digest.hexdigest() == ORDER


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    passes=st.lists(st.floats(0, 4), min_size=4, max_size=4),
    batch_tokens=st.integers(50, 2000),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 5),
)
def test_an_epoch_holds_what_was_asked_for(
    sizes: list[int], passes: list[float], batch_tokens: int, seed: int, epoch: int
) -> None:
    part = np.repeat(np.arange(len(sizes)), sizes)
    mix = Mix(np.random.default_rng(seed).permutation(part), tuple(passes[: len(sizes)]))
    if mix.num_documents == 0:
        return
    lengths = np.random.default_rng(1).integers(2, 90, len(part))
    steps = pack(lengths, batch_tokens=batch_tokens, block_tokens=100, seed=seed, epoch=epoch, mix=mix)
    assert len(steps) == num_steps(lengths, batch_tokens, mix), "the same number of steps in every epoch"
    seen = Counter(int(number) for step in steps for block in step for number in block)
    assert seen.total() == mix.num_documents
    for number, size in enumerate(sizes):
        mine = [seen[document] for document in np.flatnonzero(mix.part == number)]
        whole = int(mix.passes[number])
        assert set(mine) <= {whole, whole + 1}
        assert sum(mine) == whole * size + int((mix.passes[number] - whole) * size + 0.5)


def test_all_have_their_turn() -> None:
    mix = Mix(np.zeros(12, np.int64), (0.25,))
    epochs = [mix.documents(seed=5, epoch=epoch).tolist() for epoch in range(8)]
    assert sorted(number for epoch in epochs[:4] for number in epoch) == list(range(12))
    assert epochs[:4] == epochs[4:], "one order, again and again"
    assert mix.documents(seed=6, epoch=0).tolist() != epochs[0]
    lengths = np.arange(10, 22)
    average = np.mean([lengths[epoch].sum() for epoch in epochs])
    assert epoch_tokens(lengths, mix) == pytest.approx(average) and epoch_tokens(lengths) == lengths.sum()


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    with TokenWriter(tmp_path, vocab_size=300) as writer:
        for number in range(9):
            kind, file = ("document", "docs/manual one.txt") if number < 4 else ("conversation", "mail/faq.csv")
            writer.add([1, 2, 3], [0, 1, 1], id=str(number), record=str(number), piece=0, group=None, kind=kind,
                       source=f"{file} line {number}")  # fmt: skip
    return TokenStore(tmp_path)


def test_parts_by_kind_and_file(store: TokenStore) -> None:
    parts, part = store.parts()
    assert parts == [Part("document", "docs/manual one.txt"), Part("conversation", "mail/faq.csv")]
    assert part.tolist() == [0] * 4 + [1] * 5
    assert mixes({}, [store]) == [None]
    assert mixes({"documents": 1}, [store]) == [None], "once is what everything is without a mix"
    for wanted, passes in (
        ({"documents": 2, "conversations": 0.5}, (2, 0.5)),
        ({"documents": 2, "*manual*": 3}, (3, 1)),
        ({"*manual*": 3, "documents": 2}, (2, 1)),
        ({"faq.csv": 4}, (1, 4)),
    ):
        (mix,) = mixes(wanted, [store])
        assert mix is not None and mix.passes == passes


def test_what_is_not_there_is_named(store: TokenStore) -> None:
    with pytest.raises(
        ConfigError, match=r'"\*letters\*" is no part(.|\n)*documents; docs/manual one.txt, mail/faq.csv'
    ):
        mixes({"documents": 2, "*letters*": 2}, [store])
    with pytest.raises(ConfigError, match="give 0"):
        mixes({"documents": float("nan")}, [store])
