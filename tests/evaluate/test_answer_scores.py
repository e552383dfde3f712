from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownchat.evaluate.answer_scores import (
    difference,
    exact,
    longest_common,
    metric_for,
    right,
    rouge_l,
    score,
    statistics,
    words,
)
from ownchat.evaluate.scores import Interval

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))
ANSWERS = [
    "The roof is guaranteed for ten years.",
    "",
    "We build in Zaragoza, Huesca and Teruel.",
    "ab",
    "Call +34 976 000 111 (9-14h), or e-mail us: info@example.org!",
    "the the the cat",
    "   \n\t ",
]
REFERENCES = [
    "The guarantee on roofs is ten years.",
    "Yes.",
    "Teruel and Zaragoza; we also build in Huesca",
    "abc",
    "E-MAIL info@example.org or call 976 000 111.",
    "The cat sat on the cat's mat",
    "Something",
]
GROUPS = [None] * len(ANSWERS)


def rouge_score(answers: list[str], references: list[str]) -> list[float]:
    """F1 by the package that papers use."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return [scorer.score(real, text)["rougeL"].fmeasure for text, real in zip(answers, references, strict=True)]


def real_pairs(most: int = 200) -> tuple[list[str], list[str]]:
    """Real texts that are alike in part: neighbouring questions of customers with the same intent."""
    path = DATASETS / "banking77" / "train.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with path.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)][: 2 * most]
    return texts[0::2], texts[1::2]


def test_rouge_l_is_that_of_rouge_score():
    ours = [rouge_l(*pair) for pair in zip(ANSWERS, REFERENCES, strict=True)]
    assert ours == rouge_score(ANSWERS, REFERENCES)
    found = score("rouge_l", ANSWERS, REFERENCES, GROUPS, draws=100)
    assert found is not None and found.value == pytest.approx(100 * float(np.mean(ours)))


def test_rouge_l_is_that_of_rouge_score_on_real_texts():
    answers, references = real_pairs()
    plain = [at for at, pair in enumerate(zip(answers, references, strict=True)) if "".join(pair).isascii()]
    answers, references = [answers[at] for at in plain], [references[at] for at in plain]
    assert len(plain) > 150
    assert [rouge_l(*pair) for pair in zip(answers, references, strict=True)] == rouge_score(answers, references)


def test_chrf_is_that_of_sacrebleu_on_real_texts():
    from sacrebleu.metrics.chrf import CHRF

    answers, references = real_pairs()
    found = score("chrf", answers, references, [None] * len(answers), draws=100)
    assert found is not None
    assert found.value == pytest.approx(CHRF().corpus_score(answers, [references]).score, abs=1e-9)


@given(st.text("abc ", max_size=40), st.text("abc ", max_size=40))
def test_longest_common_is_that_of_the_plain_table(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for row, one in enumerate(first, 1):
        for column, other in enumerate(second, 1):
            table[row, column] = (
                table[row - 1, column - 1] + 1 if one == other else max(table[row - 1, column], table[row, column - 1])
            )
    assert longest_common(first, second) == table[-1, -1]


def test_words_of_other_scripts_count():
    assert words("Grüße aus Köln") == ["grüße", "aus", "köln"]
    assert words("Cafe\u0301") == words("Café") == ["café"]
    assert words("हिन्दी में") == ["हिन्दी", "में"]
    assert rouge_l("配送は三日です", "配送は五日です") == pytest.approx(6 / 7)
    assert rouge_l("Где мой заказ", "Где заказ") == pytest.approx(0.8)


def test_exact_makes_no_difference_of_white_space_only():
    assert exact("Yes,  of\ncourse ", "Yes, of course") and exact("Cafe\u0301", "Café")
    assert not exact("yes", "Yes") and not exact("Yes.", "Yes")
    assert right(' "Card_Arrival". ', "card_arrival") and not right("card arrival please", "card arrival")


@pytest.mark.parametrize("metric", ["chrf", "rouge_l", "exact", "accuracy"])
def test_every_score_is_defined_from_nothing_to_all(metric):
    texts = ["left", "right", "up"]
    assert score(metric, [], [], []) is None
    for answers, wanted in ((texts, 100.0), (["", " \n", ""], 0.0)):
        found = score(metric, answers, texts, [None] * 3, draws=100)
        assert found is not None and found.value == pytest.approx(wanted)
        assert 0 <= found.low <= found.value <= found.high <= 100
    gain = difference(metric, ["", "", ""], texts, texts, [None] * 3, draws=100)
    assert gain is not None and gain.value == pytest.approx(100)
    assert difference(metric, texts, texts, texts, [None] * 3, draws=100) == Interval(0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="1 answers, 3 references"):
        score(metric, ["a"], texts, [None] * 3)


def test_shares_of_few_answers_keep_a_width():
    found = score("exact", ["a", "b", "c"], ["a", "b", "c"], [None] * 3)
    assert found is not None and found.value == 100 and found.low < 50


def test_the_difference_is_paired():
    rng = np.random.default_rng(1)
    references = ["the quick brown fox jumps over it"] * 40
    first = [" ".join(references[0].split()[: rng.integers(1, 7)]) for _ in references]
    second = [text + " it" for text in first]
    groups = [f"g{at // 2}" for at in range(40)]
    change = difference("rouge_l", first, second, references, groups)
    before, after = (score("rouge_l", texts, references, groups) for texts in (first, second))
    assert change is not None and before is not None and after is not None
    assert change.value == pytest.approx(after.value - before.value)
    assert change.above(0) and change.high - change.low < 0.5 * (after.high - after.low)


def test_metric_for_tells_labels_from_sentences():
    classes = [f"class_{number}" for number in range(77)]
    assert metric_for(classes * 3) == "accuracy"
    assert metric_for(["positive", "negative", "positive"] * 5) == "accuracy"
    assert metric_for(["spam"] * 40) == "chrf"  # one class is none
    assert metric_for(["Have a great day.", "Bye!", "You are welcome."] * 30) == "chrf"  # sentences
    assert metric_for(classes) == "chrf"  # all different
    assert metric_for(["yes", "no", "yes"]) == "chrf"  # three replies say nothing
    assert metric_for([]) == "chrf"


@pytest.mark.parametrize(("folder", "column"), [("banking77", "category"), ("clinc150", None)])
def test_real_classification_data_are_seen_as_such(folder, column):
    import json

    if column is None:
        paths = sorted((DATASETS / folder).rglob("*full*.json"))
        if not paths:
            pytest.skip("no clinc150")
        labels = [label for _, label in json.loads(paths[0].read_text(encoding="utf-8"))["test"]]
    else:
        path = DATASETS / folder / "train.csv"
        if not path.is_file():
            pytest.skip("no banking77")
        with path.open(newline="", encoding="utf-8") as file:
            labels = [row[column] for row in csv.DictReader(file)]
    assert metric_for(labels) == "accuracy"


def test_statistics_add_up_to_the_score():
    for metric in ("rouge_l", "exact", "accuracy"):
        sums = statistics(metric, ANSWERS, REFERENCES).sum(axis=0)
        found = score(metric, ANSWERS, REFERENCES, GROUPS, draws=100)
        assert found is not None and math.isclose(found.value, 100 * sums[0] / sums[1], abs_tol=1e-9)
