"""Requirements: a small strict grammar, and what does and does not reach it."""

from __future__ import annotations

import pytest

from ownchat.errors import ConfigError
from ownchat.evaluate import gates


def passed(text: str, held_out: dict) -> bool:
    (check,) = gates.check(gates.parse([text]), held_out)["checks"]
    assert check["require"] == text and check["why"]
    return check["passed"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss better", True), ("Loss  better", True), ("loss better by 0.9", True), ("loss better by 0.95", False),
        ("loss better by 20 %", True), ("loss better by 24%", False), ("bits per byte better by 20 %", True),
        ("perplexity better by 20", True), ("perplexity better by 30", False), ("chrf better", True),
        ("chrf better by 6", True), ("chrf better by 8", False), ("chrf at least 27", True),
        ("chrf at least 40", False),
        ("loss at most 3", True), ("loss at most 2.9", False), ("bits-per-byte at most 1.0", True),
        ("exact match better", False), ("token accuracy at least 50 %", True), ("accuracy at least 90", True),
        ("accuracy at least 90.5", False), ("accuracy better by 30", True), ("macro-F1 better", True),
        ("judge tuned wins", True), ("judge better", True), ("judge at least 70 %", False),
        ("embedding better", True), ("embedding at least 0.75", False), ("slices fall at most 5 %", True),
    ],
)  # fmt: skip
def test_each_condition_is_held_to_the_figures(full_report, text, expected):
    """Bounds of conditions on differences lie between the value and the nearer end of the interval."""
    assert passed(text, full_report["held_out"]) is expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("los better", 'did you mean "loss"'), ("bleu better", "measures are"), ("loss good", "write a measure"),
        ("chrf better by 5 %", "chrf better by 5"), ("loss at most 3 %", "leave out the %"), ("", "write a measure"),
        ("slices fall at most 5", "5 %"), ("judge better by 5", "judge at least"), ("better", "write a measure"),
        ("loss better by -1", "write a measure"), ("loss better by 5 points", "write a measure"),
        ("slices better", "slices"), ("chrf at least", "write a measure"),
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused_with_the_nearest_one(text, hint):
    with pytest.raises(ConfigError) as error:
        gates.parse(["loss better", text])
    assert hint in error.value.fix and "evaluate.require" in str(error.value)


def test_what_was_not_measured_does_not_pass(report):
    for text in ("accuracy at least 1", "judge tuned wins", "embedding better", "pairs better", "rouge_l at least 1",
                 "slices fall at most 50 %", "macro_f1 better"):  # fmt: skip
        (check,) = gates.check(gates.parse([text]), report["held_out"])["checks"]
        assert check["passed"] is False, text
        assert "not measured" in check["why"] or "no judge" in check["why"], text


def test_harm_and_chance_do_not_pass(report):
    held_out = report["held_out"]
    held_out["difference"]["chrf"] = {"value": -2.0, "low": -4.0, "high": -1.0}
    (check,) = gates.check(gates.parse(["chrf better"]), held_out)["checks"]
    assert not check["passed"] and check["why"].startswith("worse, by 2.0")
    held_out["difference"]["chrf"] = {"value": 2.0, "low": -0.1, "high": 4.0}
    assert not passed("chrf better", held_out)
    held_out["groups"] = 1
    assert not passed("loss better", held_out)
    assert passed("loss at most 3", held_out)


def test_answers_of_one_group_make_nothing_better(full_report):
    held_out = full_report["held_out"] | {"answer_groups": 1}
    for text in ("chrf better", "rouge_l better", "exact better", "accuracy better", "macro_f1 better by 5",
                 "embedding better", "judge tuned wins"):  # fmt: skip
        (check,) = gates.check(gates.parse([text]), held_out)["checks"]
        assert not check["passed"] and "one group" in check["why"], text
    assert passed("loss better", held_out) and passed("chrf at least 27", held_out)
    (check,) = gates.check(gates.parse(["chrf better"]), held_out | {"answer_groups": 0, "difference": {}})["checks"]
    assert not check["passed"] and check["why"] == "chrf was not measured"


def test_slices_of_few_groups_decide_nothing(full_report):
    held_out = full_report["held_out"]
    small = next(each for each in held_out["slices"] if each["name"] == "phone.txt")
    assert small["groups"] < 5 and small["improvement"]["value"] < -2
    (check,) = gates.check(gates.parse(["slices fall at most 2 %"]), held_out)["checks"]
    assert check["passed"] and "1 of fewer than 5 groups left out" in check["why"]
    small["groups"] = 5
    assert not passed("slices fall at most 2 %", held_out)
    for each in held_out["slices"]:
        each["groups"] = 4
    (check,) = gates.check(gates.parse(["slices fall at most 50 %"]), held_out)["checks"]
    assert not check["passed"] and "every slice has fewer than 5 groups" in check["why"]


def test_pairs_are_a_share_above_a_half(report):
    share = {"value": 0.8, "low": 0.6, "high": 0.9}
    report["held_out"]["preferences"] = {"rewarded": share}
    assert passed("pairs better", report["held_out"]) and passed("pairs at least 80", report["held_out"])
    report["held_out"]["preferences"]["rewarded"] = share | {"low": 0.45}
    assert not passed("pairs better", report["held_out"])


def test_together_all_must_pass(full_report):
    found = gates.check(gates.parse(["loss better", "chrf at least 40"]), full_report["held_out"])
    assert found["passed"] is False and [check["passed"] for check in found["checks"]] == [True, False]
    assert gates.failed({"gates": found}) == found["checks"][1:]
    assert gates.check([], full_report["held_out"]) == {"passed": None, "checks": []}
    assert gates.failed({}) == []
