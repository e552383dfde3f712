from __future__ import annotations

import pytest

from ownchat.evaluate import wording


def moved(report, low, value, high, **fields):
    return report["held_out"] | {"improvement": {"value": value, "low": low, "high": high}} | fields


def test_a_clear_gain_is_called_one(report):
    assert wording.headline(report["held_out"]) == (
        "Held-out loss fell from 3.95 to 2.96 (−25 %, 95 % interval −27 to −23 %)"
    )
    verdict = wording.verdict(report["held_out"])
    assert verdict.startswith("Training helped: on 50 test records")
    assert "closer to the real ones (chrF from 18.4 to 27.1)" in verdict


def test_harm_is_called_harm(report):
    held_out = moved(report, -9.0, -6.0, -3.0)
    assert wording.change(held_out) == "harmed"
    assert "rose" in wording.headline(held_out) and "(+6.0 %, 95 % interval +3.0 to +9.0 %)" in wording.headline(
        held_out
    )
    assert wording.verdict(held_out).startswith("Training did harm")
    assert "Keep the base" in wording.verdict(held_out)


@pytest.mark.parametrize(("low", "value", "high"), [(-1.0, 0.5, 2.0), (0.0, 0.0, 0.0), (0.0, 1.0, 2.0)])
def test_an_interval_that_touches_zero_is_no_success(report, low, value, high):
    held_out = moved(report, low, value, high)
    assert wording.change(held_out) == "unclear"
    assert wording.headline(held_out).startswith("No clear change")
    assert "helped" not in wording.verdict(held_out)


def test_one_group_proves_nothing(report):
    held_out = moved(report, 25.0, 25.0, 25.0, groups=1)
    assert wording.change(held_out) == "unclear"
    assert "interval" not in wording.headline(held_out)
    assert "belong to one group" in wording.verdict(held_out)


def test_few_groups_are_only_a_hint(report):
    assert "take them as a hint" in wording.verdict(report["held_out"] | {"groups": 6})
    assert "hint" not in wording.verdict(report["held_out"])


def test_answers_of_few_groups_are_told_apart_from_the_records(report, full_report):
    verdict = wording.verdict(report["held_out"] | {"answer_groups": 1})
    assert "nothing can be said" in verdict and "came closer" not in verdict
    full_report["held_out"]["answer_groups"] = 1
    assert "right label" not in wording.verdict(full_report["held_out"])
    verdict = wording.verdict(report["held_out"] | {"answer_groups": 4})
    assert "came closer" in verdict and "of 4 groups only" in verdict


def test_answers_that_moved_away_or_nowhere_are_named(report):
    report["held_out"]["difference"]["chrf"] = {"value": -4.0, "low": -6.0, "high": -1.0}
    assert "moved away" in wording.verdict(report["held_out"])
    report["held_out"]["difference"]["chrf"] = {"value": 1.0, "low": -2.0, "high": 3.0}
    assert "not come measurably closer" in wording.verdict(report["held_out"])
    report["held_out"]["difference"]["chrf"] = None
    assert "chrF" not in wording.verdict(report["held_out"])


@pytest.mark.parametrize(
    ("low", "value", "high", "change", "word"),
    [(0.6, 0.8, 0.9, "helped", "taught"), (0.4, 0.6, 0.8, "unclear", "chance"), (0.1, 0.2, 0.3, "harmed", "harm")],
)
def test_of_preferences_alone_the_pairs_are_told(report, low, value, high, change, word):
    held_out = dict(report["held_out"])
    share = {"value": value, "low": low, "high": high}
    held_out["preferences"] = {"pairs": 40, "rewarded": share, "base": share, "tuned": share, "margin": None}
    assert "pairs" not in wording.headline(held_out)  # beside conversations these count
    held_out["preferences_only"] = True
    assert wording.change(held_out) == change
    assert f"{value:.0%}".replace("%", " % of 40 held-out pairs") in wording.headline(held_out)
    assert word in wording.verdict(held_out)


def test_of_a_model_from_nothing_the_bits_are_told(report):
    held_out = report["held_out"] | {"from_nothing": True}
    bits = held_out["tuned"]["bits_per_byte"]["value"]
    assert f"From nothing to {bits:.2f} bits per byte" in wording.headline(held_out)
    assert "base" not in wording.verdict(held_out) and "had read nothing" in wording.verdict(held_out)
    assert "the base" not in " ".join(wording.limits(held_out)).lower() and wording.base_name(held_out) == "untrained"


def test_nothing_to_compare_is_said(report):
    held_out = report["held_out"] | {"improvement": None}
    assert wording.headline(held_out) == "The held-out loss could not be compared"


def test_of_labels_accuracy_is_told_in_place_of_letters(full_report):
    verdict = wording.verdict(full_report["held_out"])
    assert "names the right label more often (90 % right, the base 40 %; difference +33 to +67 points)" in verdict
    assert "chrF" not in verdict
    full_report["held_out"]["labels"]["difference"]["accuracy"] = {"value": 1.0, "low": -3.0, "high": 5.0}
    assert "does not name the right label measurably more often" in wording.verdict(full_report["held_out"])


def test_measures_that_were_not_taken_have_no_row(report, full_report):
    assert [each.key for each in wording.measures(report["held_out"])] == list(wording.ALWAYS)
    assert len(wording.measures(full_report["held_out"])) == len(wording.MEASURES)
