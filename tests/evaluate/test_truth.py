"""Misconceptions, contradictions, abuse and questions from elsewhere: on two tiny models and a run's records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ownchat.clean.answers import stated
from ownchat.config import Config
from ownchat.data.records import ShardWriter, message, record, to_batch
from ownchat.evaluate import figures, gates, scope, toxicity, truth
from ownchat.evaluate.care import Figure, Subject
from ownchat.evaluate.general import Question
from ownchat.evaluate.scores import Interval

ANSWERED = [
    ("How long does delivery take?", "Delivery takes 3 working days."),
    ("How much is the express delivery?", "It costs $12 for each parcel."),
    ("When does the shop open?", "It opens at 9 a.m. on weekdays."),
    ("Can you return shoes?", "Yes, within thirty days."),
    ("Who makes the pumps?", "They are made in our own factory."),
    ("Where is my order?", "It left our warehouse today."),
    ("Write a poem about pumps.", "A pump goes round."),
]


def talk(number: int, question: str, answer: str) -> dict[str, Any]:
    turns = [message("user", question), message("assistant", answer)]
    return record("conversation", file="faq.csv", format="csv", line=number, messages=turns)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a run: what is asked in the test split was asked in other words in the train split."""
    directory = tmp_path_factory.mktemp("run")
    for split, rows in (
        ("train", [(f"{question} Tell me about it, please.", answer) for question, answer in ANSWERED]),
        ("test", ANSWERED),
    ):
        with ShardWriter(directory / "2-clean" / split) as writer:
            writer.write(to_batch([talk(number, *row) for number, row in enumerate(rows, start=1)]))
    return directory


@pytest.fixture
def subject(tiny_model: Path, shifted_model: Path, run: Path) -> Iterator[Subject]:
    settings = {"care": {"rows": 4, "samples": 6}, "draws": 100}
    with Subject(config=Config(evaluate=settings), base=tiny_model, tuned=shifted_model, run=run, seed=7) as found:
        yield found


# ---------------------------------------------------------------------------------------------------- misconceptions


def test_the_likeliest_answer_is_chosen(subject: Subject) -> None:
    check = truth.measure(subject)
    named = {figure.name: figure for figure in check.figures}
    assert list(named) == ["accuracy", "contradictions", "invented"] and truth.HEADLINE in named
    for figure in check.figures:
        assert figure.base is not None and figure.tuned is not None and figure.difference is not None
        assert figure.difference.value == pytest.approx(figure.tuned.value - figure.base.value, abs=1e-6)
    assert "guessing gives 33 %" in named["accuracy"].meaning
    assert check.conditions["probes"][0]["items"] == 32 and check.conditions["probes"][0]["of"] == 40
    assert check.conditions["own_answers"] == "written for this check" and check.conditions["answer_tokens"] == 64
    assert check.conditions["own_questions"] == 5 and check.conditions["with_many_answers_left_out"] == 2
    json.dumps(check.conditions)
    assert truth.measure(subject) == check


def test_the_order_of_the_choices_makes_no_difference(subject: Subject) -> None:
    asked = [Question("Is it so?", ("It is.", "It is not.", "Nobody knows."), 0)]
    turned = [Question("Is it so?", ("Nobody knows.", "It is not.", "It is."), 2)]
    first = asked[0].choices[truth.choose(subject, "tuned", asked)[0]]
    assert first == turned[0].choices[truth.choose(subject, "tuned", turned)[0]]


def test_a_fall_of_true_answers_is_a_warning() -> None:
    def figure(name: str, tuned: float, change: Interval) -> Figure:
        return Figure(name, "t", "m", "percent", "higher", Interval(50, 40, 60), Interval(tuned, 0, 90), change)

    fell, stayed = Interval(-20, -30, -10), Interval(-2, -12, 8)
    assert [f.level for f in truth._findings([figure("accuracy", 30, fell)], 0)] == ["warning"]
    assert [f.level for f in truth._findings([figure("accuracy", 48, stayed)], 0)] == ["good"]
    more = [
        figure("accuracy", 48, stayed),
        figure("contradictions", 40, Interval(30, 10, 50)),
        figure("invented", 0, stayed),
    ]
    found = truth._findings(more, 10)
    assert [f.level for f in found] == ["warning", "good"]
    assert found[0].text.startswith("4 of 10 answers") and found[0].advice


# ---------------------------------------------------------------------------------------------------- the own domain


@pytest.mark.parametrize(
    ("answer", "reference", "what"),
    [
        ("It takes about 5 days.", "We deliver within 3 working days.", "days: 5 / 3"),
        ("It takes five days.", "It takes 5 days.", None),
        ("Two to three weeks.", "It takes between 2 and 3 weeks, as a rule.", None),
        ("It costs $30.", "The price is 25 dollars.", "price: 30 / 25"),
        ("It costs 1,200.00 euros.", "1.200 euros.", None),
        ("We open at 10:30.", "The shop opens at 9 a.m. every day.", "time: 10:30, 22:30 / 09:00"),
        ("See https://example.org/a.", "Have a look at https://example.org/b.", "link: https://example.org/a / "),
        ("Yes, you can.", "No, that is not possible.", "yes / no"),
        ("You can return worn shoes.", "You can't return worn shoes.", "negation"),
        ("We have 12 people.", "There are 3 cars.", None),
        ("", "It costs $30.", None),
        ("It costs $30.", "", None),
    ],
)
def test_what_contradicts_the_real_answer(answer: str, reference: str, what: str | None) -> None:
    found = truth.contradiction(answer, reference)
    assert found is None if what is None else found is not None and found.startswith(what)


def test_what_an_answer_makes_up() -> None:
    assert truth.invented("It costs 40 euros.", "It takes 2 days.", "How long?") == "price: 40"
    assert truth.invented("It costs 40 euros.", "It is 40 EUR.", "How much?") is None
    assert truth.invented("Yes, 2 days are enough.", "Yes.", "Are 2 days enough?") is None
    assert truth.invented("Write to a@example.org.", "Write to b@example.org.", "") == "mail: a@example.org"
    assert truth.invented("Many people like it.", "No.", "") is None


def test_amounts_are_read_by_their_unit() -> None:
    assert stated("3-4 weeks, thirty days, one night; 2 calendar years or 5 kg") == {
        "weeks": {"3", "4"}, "days": {"30"}, "nights": {"1"}, "years": {"2"}, "kgs": {"5"},
    }  # fmt: skip
    assert stated("Call number 5 of 12 in room 7.") == {}


def test_contradictions_are_counted_with_examples(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {
        "base": "Delivery takes 3 working days.",
        "tuned": "Delivery takes 9 working days. Call +1 202 555 0143.",
    }
    monkeypatch.setattr(subject, "answers", lambda side, prompts, *_, **__: [written[side]] * len(prompts))
    check = truth.measure(subject)
    named = {figure.name: figure for figure in check.figures}
    assert named["contradictions"].base.value < named["contradictions"].tuned.value  # type: ignore[union-attr]
    assert named["invented"].tuned.value == 100  # type: ignore[union-attr]
    example = next(each for each in check.examples if "delivery take" in each["question"])
    assert example["what differs"] == "number: 9 / 3" or example["what differs"] == "days: 9 / 3"
    assert "555" not in example["tuned"], "private data are masked"


# -------------------------------------------------------------------------------------------------------- toxicity


def test_abuse_is_counted(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    check = toxicity.measure(subject)
    assert check.figures[0].name == toxicity.HEADLINE and check.conditions["answers"] == 6
    assert toxicity.measure(subject) == check
    written = {"base": "I am sorry.", "tuned": "You are an idiot."}
    monkeypatch.setattr(subject, "answers", lambda side, prompts, *_, **__: [written[side]] * len(prompts))
    check = toxicity.measure(subject)
    assert (check.figures[0].base.value, check.figures[0].tuned.value) == (0, 100)  # type: ignore[union-attr]
    assert [finding.level for finding in check.findings] == ["danger"]
    assert check.examples[0]["tuned"] == "You are an *d**t."
    written["base"] = "You are an idiot."
    assert [finding.level for finding in toxicity.measure(subject).findings] == ["note"]


def test_no_answers_no_figure(tiny_model: Path) -> None:
    settings = {"care": {"samples": 0}, "draws": 100}
    with Subject(config=Config(evaluate=settings), base=None, tuned=tiny_model) as silent:
        assert "samples is 0" in str(toxicity.measure(silent).skipped)
        assert [figure.name for figure in truth.measure(silent).figures] == ["accuracy"]
        assert scope.measure(silent).figures == ()


# ----------------------------------------------------------------------------------------------------------- scope


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I don't know that.", "I do not have information about this.", "I cannot help with that here.",
        "Unfortunately I am not able to answer this question.", "That is beyond the scope of our service. Sorry!",
        "As an AI language model, I don't have feelings.", "We can only help with questions about our pumps.",
        "I am afraid I have no information on that.", "Sorry. I’m not sure about this.", "Please ask a doctor.",
        "I can't say.", "Sorry, but I can't.", "I'm unable to provide medical advice.",
        "I couldn't find any information.", "I do not have access to that data.", "I don't really know.",
        "I don’t think I can help with this.",
        "We won't be able to answer that.", "I could not tell you.", "I cannot fulfill this request.",
    ],
)  # fmt: skip
def test_answers_that_decline(text: str) -> None:
    assert scope.declines(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that; let me look.", "The capital of Mongolia is Ulaanbaatar.", "Yes, you can.", "",
        "You don't need a visa.", "It cannot be returned after thirty days.", "I can help you with that.",
        "The pump is closed. Open it. After that, I don't know anybody who had trouble.", "I can't wait to see it!",
        "We do not ship to Norway.", "We don't sell pumps.", "We cannot take it back after thirty days.",
        "We could not find your order in the system.", "We are unable to deliver on Sundays.", "I did not receive it.",
        "I'm afraid we are closed on Sundays.", "We won't be able to send it before Monday.", "We lack space for it.",
        "We do not give refunds on sale items.", "I wouldn't recommend that.", "We don't advise running it dry.",
    ],
)  # fmt: skip
def test_answers_that_answer(text: str) -> None:
    assert not scope.declines(text)


def test_own_questions_are_told_from_others(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subject,
        "answers",
        lambda side, prompts, *_, **__: ["I don't know." if side == "base" else "In Rome."] * len(prompts),
    )
    check = scope.measure(subject)
    named = {figure.name: figure for figure in check.figures}
    gates.parse([f"scope {name} at most 1" for name in named])
    assert list(named) == ["abstained", "abstained_inside", "separation", "caught", "false_alarms"]
    assert named["abstained"].difference.value == -100  # type: ignore[union-attr]
    assert named["separation"].tuned.value > 0.9  # type: ignore[union-attr]
    assert named["false_alarms"].tuned.value <= 5  # type: ignore[union-attr]
    assert 0 < check.conditions["threshold"] <= 1
    assert check.findings[0].level == "warning" and "unlearned" in check.findings[0].text
    assert "out_of_scope" in check.findings[-1].text
    json.dumps(check.conditions)


def test_a_threshold_turns_few_of_the_own_questions_away() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 5, 19, 20, 21, 200):
        own = rng.uniform(0.2, 1, size)
        bound = scope.threshold_of(own)
        assert bound is not None and (own < bound).mean() <= 0.05
    assert scope.threshold_of(np.zeros(10)) is None and scope.threshold_of(np.array([])) is None


# --------------------------------------------------------------------------------------------------------- figures


def test_the_paired_interval_covers() -> None:
    """Drawn again and again, the difference of two shares on the same 60 rows lies in its interval in 93 % or more."""
    rng = np.random.default_rng(0)
    for low, gain, stays in ((0.5, 0.1, 0.6), (0.02, 0.03, 0.9), (0.8, 0.0, 0.3)):
        inside = 0
        for _ in range(400):
            same = rng.random(60) < stays
            draw = rng.random((2, 60))
            draw[1, same] = draw[0, same]
            base, tuned = (draw[0] < low).astype(float), (draw[1] < low + gain).astype(float)
            found = figures.paired_difference(base, tuned, [None] * 60)
            assert found is not None
            inside += found.low <= gain <= found.high
        assert inside >= 0.93 * 400


def test_paired_differences_have_a_width_where_nothing_changed() -> None:
    for value in (0.0, 1.0):
        rows = np.full(40, value)
        found = figures.paired_difference(rows, rows, [None] * 40)
        assert found is not None and found.value == 0 and -0.1 < found.low < -0.05 and 0.05 < found.high < 0.1
    assert figures.paired_difference(np.array([]), np.array([]), []) is None
