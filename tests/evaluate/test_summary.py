from __future__ import annotations

import re

import pytest

from ownchat.evaluate.summary import summary


@pytest.mark.parametrize("width", [80, 60, 120])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_coloured(report, width):
    report["answers"][0]["tuned"] = "x" * 200 + " [bold]not markup[/bold] :smile:"
    text = summary(report, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    if width == 80:
        assert "[bold]not" in text and ":smile:" in re.sub(r"\s+", "", text)


def test_it_says_all_that_counts(report):
    text = summary(report)
    flat = re.sub(r"\s+", " ", text)
    for expected in (
        "Held-out loss fell from 3.95 to 2.96", "3.949 2.962 −0.987", "[3.801 to 4.102]", "[+6.2 to +11.3]",
        "How long does a full bathroom renovation take?", "Do I need a permit", "What guarantee do you give?",
        "(nothing)", "50 test records, 2,614 tokens", "its default prompt", "speed 1,874 tokens/s", "3 min 12 s",
        "peak memory 1.9 GB", report["model"], "ownchat chat demo", "506 503 3", "dropped: exact duplicate",
    ):  # fmt: skip
        assert expected in flat, expected
    assert "Where are you?" not in text  # three questions, the first ones


def test_control_characters_of_the_data_do_not_reach_the_terminal(report):
    report["answers"][0]["base"] = "\x1b[31mred\x07\x9b2J"
    text = summary(report)
    assert "\x1b" not in text and "\x07" not in text and "\x9b" not in text
    assert "[31mred" in text


def test_colour_only_when_asked_for(report):
    assert "\x1b[1;32m" in summary(report, color=True)


def test_without_answers_or_figures_it_still_prints(report):
    report["answers"] = []
    report["held_out"] |= {"answers": 0, "notes": ["chrF is missing: evaluate.answers is 0."]}
    for side in ("base", "tuned", "difference"):
        report["held_out"][side]["chrf"] = None
    report["training"] = {"tokens_per_second": None, "seconds": None, "peak_memory_bytes": None}
    report["ledger"] = {}
    text = summary(report)
    assert "chrF is missing: evaluate.answers is 0." in text
    assert re.search(r"chrF +– +– +–", text)


def test_requirements_and_the_recommendation_are_printed(full_report):
    text = summary(full_report)
    flat = re.sub(r"\s+", " ", text)
    for expected in ("Requirements not met: it is not promoted", "chrf at least 40: it is 27.1", "What to do",
                     "train for longer", "--epochs 4", "Token accuracy", "52.3", "Macro-F1",
                     "[+33.0 to +67.0]"):  # fmt: skip
        assert expected in flat, expected
    assert "loss better:" not in flat  # what is met needs no line
    assert max(map(len, text.splitlines())) <= 80
    full_report["gates"] = {"passed": True, "checks": full_report["gates"]["checks"][:1]}
    assert "Requirements: 1 met" in summary(full_report)


def test_control_characters_of_a_recommendation_stay_out(full_report):
    full_report["recommendation"]["text"] = "more of \x1b[31mred"
    full_report["gates"]["checks"][1]["why"] = "\x1b[2J"
    assert "\x1b" not in summary(full_report)
