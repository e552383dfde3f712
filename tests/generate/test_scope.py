"""Nearness of a question to the training data, and how well it tells them from others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ownchat.data.records import ShardWriter, message, record, to_batch
from ownchat.errors import DataError
from ownchat.generate import scope as module
from ownchat.generate.scope import Scope, training_texts

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))

QUESTIONS = ["Where is my parcel?", "Can I return the parcel within thirty days?", "Why is the pump loud?"]


def talk(*texts: str) -> dict:
    turns = [message(("user", "assistant")[at % 2], text) for at, text in enumerate(texts)]
    return record("conversation", file="a", format="csv", line=1, messages=turns)


def test_a_training_question_is_as_near_as_can_be() -> None:
    scope = Scope(QUESTIONS)
    assert [scope(text) for text in QUESTIONS] == pytest.approx([1.0, 1.0, 1.0])
    assert scope("WHERE, is my PARCEL") == 1.0, "case and marks make no difference"
    assert scope("volcano eruption") == 0.0
    assert 0 < scope("Where is the volcano?") < scope("Where is the parcel?") < 1
    assert scope("Is it in the parcels?") > 2 * scope("Is it in the volcanoes?"), "an inflection is not another word"


def test_what_is_near_has_to_stand_in_one_text() -> None:
    scope = Scope(["red pump", "blue valve"])
    assert scope("red pump") == 1.0 and 0.3 < scope("red valve") < 0.7


def test_what_is_rare_weighs_more() -> None:
    scope = Scope(["the pump is loud", "the roof leaks", "the parcel is late"])
    assert scope("pump") == scope("the") == 1.0
    assert scope("leaks volcano") > scope("the volcano")


def test_other_scripts() -> None:
    scope = Scope(["東京までの送料はいくらですか", "Сколько стоит доставка?"])
    assert scope("東京の送料") > 0.3 > scope("今日の天気")
    assert scope("стоимость доставки") > scope("погода в Москве")


def test_nothing_to_tell_by() -> None:
    assert Scope(QUESTIONS)("?!") == 1.0, "a question without a word is not turned away"
    assert Scope([])("Where is my parcel?") == 0.0
    assert Scope(QUESTIONS)("parcel " * 100_000) > 0.3, "only its beginning is looked at"


def test_texts_are_what_users_said_and_paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    paragraph = "The pump has to be closed slowly, and opened again after ten minutes."
    rows = [
        talk("Hi", "Hello", " And now? "),
        talk("Hi", "Hello again"),
        record("document", file="a", format="text", line=1, text=f"Pumps\n\n{paragraph}\n\nEnd"),
    ]
    assert training_texts(rows) == ["Hi", "Hello", "And now?", "Hello again", paragraph]
    monkeypatch.setattr(module, "MOST_TEXTS", 2)
    assert training_texts(rows) == ["Hi", paragraph]


def test_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2-clean"):
        Scope.of_run(tmp_path)
    with ShardWriter(tmp_path / "2-clean" / "train") as writer:
        writer.write(to_batch([talk(text, "Yes.") for text in QUESTIONS]))
    assert Scope.of_run(tmp_path)(QUESTIONS[0]) == 1.0


@pytest.mark.skipif(not (DATASETS / "clinc150").is_dir(), reason="no CLINC150: set OWNCHAT_DATASETS")
def test_banking_questions_are_told_from_out_of_scope_ones() -> None:
    """CLINC150: a fifth of the banking intents' test questions and the thousand of its out-of-scope test set."""
    everything = json.loads((DATASETS / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((DATASETS / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    banking = set(domains["banking"])
    scope = Scope([text for text, intent in everything["train"] if intent in banking])
    own = np.array([scope(text) for text, intent in everything["test"] if intent in banking])
    others = np.array([scope(text) for text, _ in everything["oos_test"]])
    area = float((own[:, None] > others).mean() + (own[:, None] == others).mean() / 2)
    assert len(own) == 450 and len(others) == 1000
    assert area > 0.95
