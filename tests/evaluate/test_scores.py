from __future__ import annotations

import math

import numpy as np
import pytest
from sacrebleu.metrics.chrf import CHRF

from ownchat.evaluate import scores
from ownchat.evaluate.scores import Interval, bootstrap, bootstraps, chrf, chrf_statistics, proportion, ratio


def naive_bootstrap(nll, tokens, groups, draws, seed):
    """Draw whole groups, one record at a time, with the same random numbers."""
    order = list(dict.fromkeys(groups))
    rng = np.random.default_rng(seed)
    values = []
    for counts in rng.multinomial(len(order), [1 / len(order)] * len(order), size=draws):
        total = length = 0.0
        for group, times in zip(order, counts, strict=True):
            for _ in range(times):
                for record, other in enumerate(groups):
                    if other == group:
                        total += nll[record]
                        length += tokens[record]
        values.append(total / length)
    return np.quantile(values, [0.025, 0.975])


def test_bootstrap_equals_a_naive_one():
    rng = np.random.default_rng(3)
    nll, tokens = rng.gamma(5, 4, 24), rng.integers(1, 30, 24).astype(float)
    groups = [f"g{number}" for number in rng.integers(0, 9, 24)]
    got = bootstrap(np.stack([nll, tokens], axis=1), ratio, groups, draws=300, seed=5)
    assert got is not None
    assert got.value == pytest.approx(nll.sum() / tokens.sum())
    assert (got.low, got.high) == pytest.approx(tuple(naive_bootstrap(nll, tokens, groups, 300, 5)))


def test_chunks_do_not_change_the_draws(monkeypatch):
    sums = np.random.default_rng(0).gamma(2, 2, (40, 2))
    whole = bootstrap(sums, ratio, [None] * 40, draws=500)
    monkeypatch.setattr(scores, "CHUNK_ELEMENTS", 40 * 7)
    assert bootstrap(sums, ratio, [None] * 40, draws=500) == whole


def test_interval_covers_the_truth_and_only_when_groups_are_respected():
    rng = np.random.default_rng(11)
    covered = {"clustered": 0, "independent": 0}
    for trial in range(150):
        level = np.repeat(rng.normal(3.0, 0.5, 30), 8)  # 30 customers, 8 tickets each, alike within a customer
        tokens = rng.integers(20, 60, 240).astype(float)
        sums = np.stack([(level + rng.normal(0, 0.2, 240)) * tokens, tokens], axis=1)
        groups = [f"customer-{number}" for number in np.repeat(np.arange(30), 8)]
        for name, grouping in (("clustered", groups), ("independent", [None] * 240)):
            interval = bootstrap(sums, ratio, grouping, draws=300, seed=trial)
            covered[name] += interval.low <= 3.0 <= interval.high
    assert 0.88 <= covered["clustered"] / 150 <= 0.99
    assert covered["independent"] / 150 < 0.7


def test_proportion_is_wilsons_and_keeps_its_width_at_the_ends():
    """Against the published formula for independent records, and where the bootstrap has no width at all."""
    low, high = 0.2366, 0.7634  # 5 of 10: Newcombe 1998, table I
    found = proportion(np.array([1.0] * 5 + [0.0] * 5), [None] * 10)
    assert found is not None and (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    for share in (0.0, 1.0):
        found = proportion(np.full(10, share), [None] * 10)
        assert found is not None and found.high - found.low == pytest.approx(
            0.2775, abs=1e-3
        )  # 10 of 10, the same table


def test_proportion_of_one_group_is_that_of_one_record():
    found = proportion(np.array([1.0, 1.0, 0.0]), ["a", "a", "a"])
    assert found is not None and found.high - found.low > 0.7


def test_proportion_covers_the_truth_also_in_groups():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        each = rng.beta(4, 1, size=25)  # groups differ: .8 on average
        values = (rng.random((25, 4)) < each[:, None]).astype(float).ravel()
        found = proportion(values, [str(at // 4) for at in range(100)])
        assert found is not None
        hits += found.low <= 0.8 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_one_group_has_nothing_to_resample():
    interval = bootstrap(np.array([[2.0, 1.0], [6.0, 1.0]]), ratio, ["same", "same"])
    assert interval == Interval(4.0, 4.0, 4.0)


def test_a_score_that_is_not_defined_is_none():
    assert bootstrap(np.array([[2.0, 0.0]]), ratio, [None]) is None
    assert bootstrap(np.zeros((0, 2)), ratio, []) is None


def test_draws_without_bytes_are_left_out():
    interval = bootstrap(np.array([[1.0, 4.0], [1.0, 0.0]]), scores.bits_per_byte, [None, None])
    assert interval.value == pytest.approx(2 / math.log(2) / 4)
    assert math.isfinite(interval.low) and math.isfinite(interval.high)


def test_bits_per_byte_and_perplexity_of_known_numbers():
    assert scores.bits_per_byte(np.array([math.log(2) * 24, 8.0])) == pytest.approx(3.0)
    assert scores.perplexity(np.array([math.log(7) * 5, 5.0])) == pytest.approx(7.0)


ANSWERS = [
    "The roof is guaranteed for ten years.",
    "",
    "We build in Zaragoza, Huesca and Teruel.",
    "ab",
    "«¿Cuánto cuesta?» 12 € / m²",
]
REFERENCES = ["The guarantee on roofs is ten years.", "Yes.", "", "abc", "Cuesta 12 € por m²."]


def test_chrf_equals_sacrebleu_on_the_corpus_and_on_every_part_of_it():
    table = chrf_statistics(ANSWERS, REFERENCES)
    assert chrf(table.sum(axis=0)) == pytest.approx(CHRF().corpus_score(ANSWERS, [REFERENCES]).score)
    for draw in ([0, 0, 2], [1], [3], [4, 4, 4, 1], [1, 2]):
        answers, references = [ANSWERS[at] for at in draw], [REFERENCES[at] for at in draw]
        expected = CHRF().corpus_score(answers, [references]).score
        assert chrf(table[draw].sum(axis=0)) == pytest.approx(expected), draw


def test_chrf_of_unequal_lengths_is_refused():
    with pytest.raises(ValueError, match="1 answers, 2 references"):
        chrf_statistics(["a"], ["a", "b"])


def covered(num_groups: int, trials: int = 400) -> float:
    """Share of simulated sets of conversations whose interval holds the true mean. Groups of several sizes are drawn
    from a population in which groups differ, and records within them a little; lengths are skewed, as replies' are."""
    rng = np.random.default_rng(num_groups)
    hits = 0
    for trial in range(trials):
        groups = np.repeat(np.arange(num_groups), rng.integers(1, 6, num_groups))
        level = rng.normal(3.0, 0.5, num_groups)[groups]
        tokens = rng.integers(10, 80, len(groups)).astype(float)
        sums = np.stack([(level + rng.normal(0, 0.3, len(groups))) * tokens, tokens], axis=1)
        found = bootstrap(sums, ratio, [str(group) for group in groups], draws=400, seed=trial)
        assert found is not None
        hits += found.low <= 3.0 <= found.high
    return hits / trials


def test_95_percent_intervals_cover_with_forty_groups_and_fall_short_with_few():
    """The shortfall is known (Cameron, Gelbach and Miller 2008) and stands in :func:`bootstrap`."""
    with_many, with_ten, with_five = covered(40), covered(10), covered(5)
    assert 0.90 <= with_many <= 0.98
    assert 0.80 <= with_ten <= with_many
    assert 0.65 <= with_five < with_ten


def test_statistics_drawn_together_are_those_drawn_alone():
    sums = np.random.default_rng(5).gamma(2, 2, (30, 3))
    groups = [f"g{at // 2}" for at in range(30)]
    views = [ratio, lambda total: total[..., 2] / total[..., 1], lambda total: total[..., 0] / 0.0]
    assert bootstraps(sums, views, groups, draws=300) == [bootstrap(sums, view, groups, draws=300) for view in views]
    assert bootstraps(sums, views, groups, draws=300)[2] is None
    assert bootstraps(np.zeros((0, 3)), views, []) == [None] * 3
