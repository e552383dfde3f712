from __future__ import annotations

import math

import numpy as np
import pytest

from ownchat.evaluate.comparison import Comparison, Scored, Scores, Side, compare
from ownchat.evaluate.scores import Interval

ANSWERS = ["The roof is guaranteed for ten years.", "", "We build in Zaragoza.", "ab", "«¿Cuánto cuesta?» 12 € / m²"]
REFERENCES = ["The guarantee on roofs is ten years.", "Yes.", "We build in  Zaragoza.", "abc", "Cuesta 12 € por m²."]


def made(base_nll, tuned_nll, tokens, *, num_bytes=None, hits=None, base=(), tuned=(), references=()) -> Comparison:
    tokens = np.asarray(tokens, float)
    nothing = np.zeros(len(tokens))
    before, after = hits if hits is not None else (nothing, nothing)
    scored = Scored(
        base=Side(np.asarray(base_nll, float), np.asarray(before, float), base),
        tuned=Side(np.asarray(tuned_nll, float), np.asarray(after, float), tuned),
        tokens=tokens,
        num_bytes=4 * tokens if num_bytes is None else num_bytes,
        groups=[None] * len(tokens),
        references=references,
        answer_groups=[None] * len(references),
    )
    return compare(scored)


def test_paired_difference_is_narrower_than_the_two_scores_apart():
    rng = np.random.default_rng(2)
    tokens = rng.integers(20, 60, 60).astype(float)
    hard = rng.normal(3.0, 0.8, 60)  # some questions are hard for both
    result = made(hard * tokens, (hard - 0.5 + rng.normal(0, 0.1, 60)) * tokens, tokens)
    base, tuned, difference = result.base.loss, result.tuned.loss, result.difference.loss
    assert difference.value == pytest.approx(tuned.value - base.value)
    assert difference.high - difference.low < 0.3 * (base.high - base.low)
    assert difference.below(0)
    assert result.improvement.value == pytest.approx(100 * (1 - tuned.value / base.value))
    assert result.improvement.above(0)
    assert result.base.perplexity.value == pytest.approx(math.exp(base.value))
    assert result.base.perplexity.low == pytest.approx(math.exp(base.low))
    assert result.base.bits_per_byte.value == pytest.approx(base.value / math.log(2) / 4)


def test_equal_models_have_a_difference_of_exactly_nothing():
    nll, tokens, hits = [30.0, 50.0, 10.0, 4.0, 9.0], [10.0, 20.0, 5.0, 2.0, 3.0], [4.0, 9.0, 5.0, 0.0, 1.0]
    result = made(nll, nll, tokens, hits=(hits, hits), base=ANSWERS, tuned=ANSWERS, references=REFERENCES)
    nothing = Interval(0.0, 0.0, 0.0)
    assert result.difference == Scores(*[nothing] * 7)
    assert result.improvement == nothing
    assert result.base == result.tuned
    assert result.base.token_accuracy.value == pytest.approx(100 * 19 / 40)
    assert result.base.exact.value == 20


def test_better_answers_and_tokens_have_a_difference_above_zero():
    tokens = [10.0] * 5
    result = made(
        [20.0] * 5, [10.0] * 5, tokens, hits=([3.0] * 5, [8.0] * 5),
        base=["no"] * 5, tuned=REFERENCES, references=REFERENCES,
    )  # fmt: skip
    assert result.difference.token_accuracy == Interval(50.0, 50.0, 50.0)
    assert result.difference.exact == Interval(100.0, 100.0, 100.0)
    assert result.tuned.exact.value == 100 > result.tuned.exact.low > 40, "five answers: Wilson's width"
    assert result.difference.rouge_l.above(90) and result.difference.chrf.above(80)


def test_without_answers_or_bytes_the_score_is_none():
    result = made([3.0, 4.0], [2.0, 3.0], [1.0, 1.0], num_bytes=np.zeros(2))
    for side in (result.base, result.tuned, result.difference):
        assert side.chrf is side.rouge_l is side.exact is side.bits_per_byte is None
    assert result.base.loss.value == pytest.approx(3.5)
