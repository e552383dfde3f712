"""BM25 against its formula, written down plainly."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from ownchat.generate.retrieve import BM25, split, words

WORDS = [
    "pump", "valve", "parcel", "late", "order", "refund", "roof", "the", "is", "my", "where", "and",
    "Straße", "東京", "é",
]  # fmt: skip


def naive(texts: list[str], query: str, k1: float = 1.2, b: float = 0.75) -> list[float]:
    """https://en.wikipedia.org/wiki/Okapi_BM25, with Lucene's inverse document frequency, k1 = 1.2, b = 0.75."""
    split = [words(text) for text in texts]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for text in split:
        total = 0.0
        for word in words(query):
            holding = sum(word in other for other in split)
            rarity = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
            count = text.count(word)
            total += rarity * count / (count + k1 * (1 - b + b * len(text) / mean)) if count else 0.0
        scores.append(total)
    return scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k1", [1.2, 0.0])
def test_equal_to_the_formula(seed: int, k1: float) -> None:
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(0, 12))) for _ in range(60)]
    index = BM25(texts, k1=k1)
    for _ in range(20):
        query = " ".join(draw.choices([*WORDS, "unseen"], k=draw.randint(1, 6)))
        expected = naive(texts, query, k1)
        assert np.allclose(index.scores(query), expected, rtol=1e-12, atol=0)
        best = sorted(range(60), key=lambda row: (-index.scores(query)[row], row))
        assert index.top(query, 7) == best[:7]


def test_a_word_is_rarer_the_fewer_texts_hold_it() -> None:
    index = BM25(["pump pump valve", "pump roof", "pump"])
    assert index.rarity("pump") < index.rarity("valve") == index.rarity("roof") < index.rarity("unseen")
    assert index.rarity("roof") == pytest.approx(math.log(1 + 2.5 / 1.5))


def test_ties_are_in_order_and_words_are_unicode() -> None:
    index = BM25(["STRASSE a", "Tür", "tür", "", "東京 へ"])
    assert index.top("TÜR", 5) == [1, 2, 0, 3, 4]
    assert index.top("東", 1) == [4], "scripts without spaces are taken apart"
    assert index.top("nothing of it", 2) == [0, 1] and index.top("tür", 0) == []
    assert len(index.top("tür", 99)) == 5


def test_ascii_is_split_like_everything_else() -> None:
    text = "".join(map(chr, range(128))) + " It's No. 7_b, x-Y 3.5"
    assert split(text) == words(text)


def test_few_texts_and_none() -> None:
    assert BM25([]).top("a", 3) == [] and BM25([""]).top("a", 3) == [0]
