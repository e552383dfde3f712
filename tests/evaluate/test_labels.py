from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from ownchat.data.records import Record, message, record
from ownchat.evaluate.labels import compare_labels, label_names

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))
OFF_LIST = "I do not know, sorry"


def asked(at: int, *turns: str) -> Record:
    messages = [message("assistant" if number % 2 else "user", text) for number, text in enumerate(turns)]
    return record("conversation", file="rows.csv", format="csv", line=at + 1, messages=messages)


def test_confusion_accuracy_and_macro_f1_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    names = [f"class {letter}" for letter in "dbeac"]
    for _ in range(20):
        right = [names[at] for at in rng.integers(0, 4, 60)]  # the last one is never right
        base = [names[at] if at < 5 else OFF_LIST for at in rng.integers(0, 6, 60)]
        tuned = [
            real if rng.random() < 0.7 else names[at] for real, at in zip(right, rng.integers(0, 5, 60), strict=True)
        ]
        found = compare_labels(names, right, base, tuned, [None] * 60, draws=100)
        assert found is not None and found.names == sorted(found.names)
        for side, answers in ((found.base, base), (found.tuned, tuned)):
            assert side.accuracy.value == pytest.approx(100 * accuracy_score(right, answers), abs=1e-9)
            known = sorted({*right, *answers} - {OFF_LIST})  # scikit-learn's own labels, without the one for the rest
            macro = f1_score(right, answers, labels=known, average="macro", zero_division=0)
            assert side.macro_f1.value == pytest.approx(100 * macro, abs=1e-9)
            table = confusion_matrix(right, answers, labels=[*found.names, OFF_LIST])
            assert side.confusion == table[:-1].tolist()
        gain = found.tuned.macro_f1.value - found.base.macro_f1.value
        assert found.difference.macro_f1.value == pytest.approx(gain)
        assert found.difference.accuracy.value == pytest.approx(found.tuned.accuracy.value - found.base.accuracy.value)
        assert found.difference.accuracy.above(0)


def test_where_all_answers_are_labels_macro_f1_is_that_of_scikit_learn_by_default():
    right, given = list("aabbccddd"), list("abbbccdda")
    found = compare_labels([], right, given, right, [None] * 9, draws=100)
    assert found is not None
    assert found.base.macro_f1.value == pytest.approx(100 * f1_score(right, given, average="macro"), abs=1e-9)
    assert found.tuned.macro_f1.value == found.tuned.accuracy.value == 100


def test_spelling_around_a_label_makes_no_difference_and_off_list_is_other():
    found = compare_labels(
        ["Refund", "Lost card"], ["Refund", "Lost card"], [" refund.", "?"], ['"LOST CARD"', ""], [None] * 2
    )
    assert found is not None
    assert found.names == ["Lost card", "Refund"]
    assert found.base.confusion == [[0, 0, 1], [0, 1, 0]]
    assert found.tuned.confusion == [[0, 0, 1], [1, 0, 0]]
    assert found.base.accuracy.value == 50 and found.tuned.accuracy.value == 0
    assert found.tuned.accuracy.high > 50, "two answers say little"


def test_a_label_that_was_answered_and_never_right_is_a_column():
    found = compare_labels(["a", "b", "c"], ["a", "a"], ["b", "a"], ["a", "a"], [None] * 2)
    assert found is not None and found.names == ["a", "b"]
    assert found.base.macro_f1.value == pytest.approx(100 * f1_score(["a", "a"], ["b", "a"], average="macro"))


def test_the_interval_of_macro_f1_is_that_of_drawn_groups():
    """Against scikit-learn on every draw."""
    rng = np.random.default_rng(7)
    right, given = rng.choice(list("abc"), 30).tolist(), rng.choice(list("abc"), 30).tolist()
    groups = [f"g{at // 3}" for at in range(30)]
    found = compare_labels([], right, given, right, groups, draws=200)
    values = []
    for counts in np.random.default_rng(0).multinomial(10, [0.1] * 10, size=200):
        rows = [
            row for group, times in enumerate(counts) for _ in range(times) for row in range(3 * group, 3 * group + 3)
        ]
        values.append(100 * f1_score([right[row] for row in rows], [given[row] for row in rows], average="macro"))
    assert found is not None
    assert (found.base.macro_f1.low, found.base.macro_f1.high) == pytest.approx(
        tuple(np.quantile(values, [0.025, 0.975]))
    )


def test_nothing_asked_is_none():
    assert compare_labels(["a", "b"], [], [], [], []) is None


def test_names_of_labels_come_from_every_reply():
    rows = [asked(at, f"question {at}", ("Card lost", "card lost", "Card late")[at % 3]) for at in range(30)]
    assert label_names(rows) in (["Card late", "Card lost"], ["Card late", "card lost"])
    talk = [asked(at, "hi", f"What do you need in case {at}?", "a taxi", "Bye") for at in range(30)]
    assert label_names(talk) is None, "conversations that end alike"
    assert label_names([]) is None
    document = record("document", file="a.txt", format="text", line=1, text="yes")
    assert label_names([document, *rows]) is not None


def test_a_table_of_texts_and_labels_of_a_user_is_seen_as_labels(tmp_path):
    from ownchat.config import Config
    from ownchat.data import stage
    from ownchat.data.records import read_records

    source = tmp_path / "tickets.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows([f"my parcel number {at} is not here", ("delivery", "refund")[at % 2]] for at in range(40))
    config = Config(data={"map": {"question": "text", "answer": "label"}})
    stage.run(config, {"source": source}, tmp_path / "1-data")
    assert label_names(list(read_records(tmp_path / "1-data"))) == ["delivery", "refund"]


def test_real_intents_are_labels():
    path = DATASETS / "banking77" / "train.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [asked(at, row["text"], row["category"]) for at, row in enumerate(csv.DictReader(file))]
    names = label_names(rows[::7])
    assert names is not None and len(names) == 77
    right = [row["messages"][-1]["content"] for row in rows[::50]]
    wrong = [*right[1:], right[0]]
    found = compare_labels(names, right, wrong, right, [None] * len(right), draws=100)
    assert found is not None and found.tuned.macro_f1.value == 100
    assert found.base.macro_f1.value == pytest.approx(100 * f1_score(right, wrong, average="macro"), abs=1e-9)
