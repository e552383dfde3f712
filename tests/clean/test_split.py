"""Copies, components and the three splits; sections of documents."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.sections import paragraphs, sections, sentences, stretches
from ownchat.clean.signatures import signatures
from ownchat.clean.split import assign, components, connected, first_copies
from ownchat.data.records import SCHEMA, message, record
from ownchat.errors import DataError

SHARES = {"valid_share": 0.1, "test_share": 0.1, "seed": 0}


def chat(line, *turns, group=None):
    roles = ("user", "assistant") * len(turns)
    messages = [message(role, content) for role, content in zip(roles, turns, strict=False)]
    return record("conversation", file="f", format="csv", line=line, messages=messages, group=group)


def signed(*rows):
    return signatures(pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA))


def test_copies_fold_case_and_white_space_and_the_first_stays():
    rows = [chat(1, "Why?", "So."), chat(2, "who", "me"), chat(3, " WHY?\u00a0", "so.\n"), chat(4, "Why?So.", "")]
    assert first_copies(signed(*rows).content).tolist() == [0, 1, 0, 3]


def test_what_belongs_together():
    answer = "You can return it within thirty days."
    rows = [
        chat(1, "How do I return it?", answer),
        chat(2, "how do I  RETURN it?", "Other words."),  # same question
        chat(3, "Can it go back?", answer.upper()),  # same answer
        chat(4, "Yes or no?", "Yes", group="anna"),
        chat(5, "Black or white?", "Yes"),  # a short answer joins nothing
        chat(6, "Red?", "No", group="anna"),  # same customer
        chat(7, "Hi", "Hello, how can I help?", "Where is my parcel, please?", "On its way to you now."),
        chat(8, "Hi", "Hello, how can I help?", "Do you repair pumps as well?", "On its way to you now."),
        chat(9, "hi!", "Yes?", "Bye", "Bye"),
    ]
    assert components(signed(*rows)).tolist() == [0, 0, 0, 3, 4, 3, 6, 7, 8]


def test_a_stock_answer_joins_nothing():
    stock = "Please write to our support team."
    rows = [chat(line, f"Question number {line}?", stock) for line in range(1, 41)]
    assert len(set(components(signed(*rows)).tolist())) == 40


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=40))
def test_connected_agrees_with_search(rows):
    found = connected([np.array(column, np.uint64) for column in zip(*rows, strict=True)])
    expected = list(range(len(rows)))
    for _ in rows:
        for i, a in enumerate(rows):
            for j, b in enumerate(rows):
                if any(x and x == y for x, y in zip(a, b, strict=True)):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert found.tolist() == expected


def test_a_long_chain_is_one_component():
    n = 20_001
    left, right = (np.arange(n) // 2 + 1).astype(np.uint64), ((np.arange(n) + 1) // 2 + 1).astype(np.uint64)
    assert (connected([left, right]) == 0).all()


IDS = np.array([f"{i * 7919 % 10**6:024d}" for i in range(1000)], "S24")


def test_shares_and_whole_components():
    labels = np.arange(1000) // 4 * 4
    splits = assign(labels, IDS, **SHARES)
    assert np.bincount(splits).tolist() == [800, 100, 100]
    assert all(len(set(splits[labels == label])) == 1 for label in set(labels))
    assert not np.array_equal(splits, assign(labels, IDS, **SHARES | {"seed": 1}))


def test_assignment_does_not_depend_on_order():
    order = np.random.default_rng(0).permutation(1000)
    labels = np.arange(1000) // 4 * 4
    assert np.array_equal(assign(labels, IDS, **SHARES)[order], assign(labels[order], IDS[order], **SHARES))


def test_the_largest_component_trains():
    labels = np.array([0] * 90 + [90, 91, 92])
    for seed in range(20):
        splits = assign(labels, IDS[:93], **SHARES | {"seed": seed})
        assert (splits[:90] == 0).all()
        assert {1, 2} <= set(splits[90:].tolist())
        splits = assign(np.array([0] * 4 + [4] * 3 + [7] * 3), IDS[:10], valid_share=0.4, test_share=0.4, seed=seed)
        assert (splits[:4] == 0).all()  # also where it would fit


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 5))
def test_every_split_has_something_or_it_is_an_error(labels, seed):
    labels, count = np.array(labels), len(set(labels))
    if count < 3:
        with pytest.raises(DataError, match="fewer rows than three splits need") as error:
            assign(labels, IDS[: len(labels)], **SHARES | {"seed": seed})
        assert f"{count} group" in str(error.value)
        return
    splits = assign(labels, IDS[: len(labels)], **SHARES | {"seed": seed})
    assert set(splits.tolist()) == {0, 1, 2}
    assert all(len(set(splits[labels == label])) == 1 for label in set(labels.tolist()))


ESSAY = "".join(f"Paragraph {i} says something. {'It goes on and on. ' * (i % 9)}\n\n" for i in range(60))


@pytest.mark.parametrize("cutter", [paragraphs, sentences])
@given(text=st.text(st.sampled_from("ab.!? \n#。"), max_size=60))
def test_pieces_add_up(cutter, text):
    pieces = cutter(text)
    assert "".join(pieces) == text
    assert all(piece.strip() for piece in pieces) or not text.strip()


@given(st.lists(st.integers(1, 500), min_size=3, max_size=40), st.text(max_size=5))
def test_each_split_gets_one_stretch(sizes, id):
    splits = stretches(["x" * size for size in sizes], id, **SHARES)
    assert len(splits) == len(sizes)
    assert set(splits) == {0, 1, 2}
    assert sum(a != b for a, b in pairwise(splits)) == 2


def test_sections_know_their_place():
    row = record("document", file="e.txt", format="text", line=11, offset=100, text=ESSAY)
    pieces = paragraphs(ESSAY)
    made = sections(row, pieces, stretches(pieces, row["id"], **SHARES))
    assert "".join(section["text"] for _, section in made) == ESSAY
    for _, section in made:
        start = section["source"]["offset"] - 100
        assert ESSAY[start : start + len(section["text"])] == section["text"]
        assert section["source"]["line"] == 11 + ESSAY[:start].count("\n")
    share = sum(len(section["text"]) for split, section in made if split == 0) / len(ESSAY)
    assert 0.7 < share < 0.9
