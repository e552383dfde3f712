"""The tagger: its probabilities against all paths counted out, its tokens, and what its file may hold."""

import itertools
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.private.features import SEQUENCE, Lexicon, Tokens, Words, normalise, runs
from ownchat.clean.private.tagger import FILE, LABELS, default_tagger, label_probabilities, window_sums

EMPTY = Lexicon(np.empty(0, np.uint32), np.empty(0, np.uint8))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 1000))
def test_probabilities_are_those_of_all_paths(lengths, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(sum(lengths), 3)).astype(np.float32)
    transitions = rng.normal(size=(3, 3)).astype(np.float32)
    found = label_probabilities(scores, np.repeat(np.arange(len(lengths)), lengths), transitions)
    start = 0
    for length in lengths:
        expected = np.zeros((length, 3))
        for path in itertools.product(range(3), repeat=length):
            weight = np.exp(
                sum(scores[start + i, label] for i, label in enumerate(path))
                + sum(transitions[a, b] for a, b in itertools.pairwise(path))
            )
            for i, label in enumerate(path):
                expected[i, label] += weight
        expected /= expected.sum(axis=1, keepdims=True)
        assert np.allclose(found[start : start + length], expected, atol=1e-5)
        start += length


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(-3, 1), st.integers(0, 3))
def test_window_sums(lengths, first, more):
    sequences = np.repeat(np.arange(len(lengths)), lengths)
    values = np.arange(len(sequences), dtype=np.float32)[:, None] + 1
    found = window_sums(values, sequences, first, first + more)
    for i in range(len(values)):
        near = [values[j, 0] for j in range(i + first, i + first + more)
                if 0 <= j < len(values) and sequences[j] == sequences[i]]  # fmt: skip
        assert found[i, 0] == sum(near)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=5))
def test_tokens_are_all_that_is_no_white_space(texts):
    tokens = Tokens(texts, Words(EMPTY))
    for number, text in enumerate(texts):
        mine = tokens.texts == number
        pieces = [text[start:end] for start, end in zip(tokens.starts[mine], tokens.ends[mine], strict=True)]
        assert "".join("".join(pieces).split()) == "".join(text.split())
    assert len(tokens) == 0 or np.bincount(tokens.sequences).max() <= SEQUENCE


def test_long_texts_are_cut_after_a_sentence():
    tokens = Tokens(["one two three four. " * 60], Words(EMPTY))
    ends = np.flatnonzero(np.diff(tokens.sequences))
    assert len(ends) and all(tokens.lengths[ends] == 1)  # a full stop


def test_digits_are_not_told_apart():
    assert normalise("AB12") == normalise("ab77") and runs("AB12") == "a2d2"


def test_it_does_not_matter_what_was_read_before():
    tagger = default_tagger()
    first = tagger.probabilities(["my name is anna berg"])[1]
    tagger.probabilities(["Quite different Words 1234 zzz"])
    assert np.array_equal(first, tagger.probabilities(["my name is anna berg"])[1])
    assert len(LABELS) == first.shape[1] and np.allclose(first.sum(axis=1), 1, atol=1e-4)


def test_file_is_small_and_holds_no_text():
    assert FILE.stat().st_size <= 2_000_000
    with np.load(FILE, allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "iuf" for name in file.files)
    with zipfile.ZipFile(FILE) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist()).lower()
    for word in (b"kowalski", b"jennifer", b"christopher", b"gmail", b"password"):
        assert word not in content


def test_card_names_the_file():
    import hashlib

    card = FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() in card


def test_recall_on_held_back_chat():
    root = Path(os.environ.get("OWNCHAT_DATASETS", "../shared/datasets")) / "multidogo/turn_level/finance/dev.tsv.gz"
    if not root.exists():
        pytest.skip(f"{root} is not here: set OWNCHAT_DATASETS")
    import gzip

    from ownchat.clean.private.finder import Finder

    with gzip.open(root, "rt", encoding="utf-8") as handle:
        rows = [line.rstrip("\n").split("\t") for line in handle][1:]
    rows = [row for row in rows if len(row) > 4 and len(row[3].split()) == len(row[4].split())]
    private = {"name", "ssn", "card_number", "address", "account_number"}
    hit = total = masked = clean = 0
    for row, found in zip(rows, Finder().find([[row[3]] for row in rows]), strict=True):
        start = 0
        for word, label in zip(row[3].split(), row[4].split(), strict=True):
            touched = any(span.start < start + len(word) and start < span.end for span in found[0])
            hit, total = hit + (touched and label in private), total + (label in private)
            masked, clean = masked + (touched and label == "O"), clean + (label == "O")
            start += len(word) + 1
    assert hit / total > 0.93 and masked / clean < 0.03
