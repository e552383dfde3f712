"""Answered questions of the data."""

from __future__ import annotations

from ownchat.data.records import message, record
from ownchat.evaluate.retrieve import Examples, last_question, pairs


def test_no_examples() -> None:
    assert Examples([]).nearest("a", 2) == []


def test_pairs_are_last_questions_with_their_answers() -> None:
    def talk(*texts: str, **fields: object) -> dict:
        roles = ["system", "user", "assistant", "user", "assistant"]
        turns = [message(role, text) for role, text in zip(roles, texts, strict=False)]
        turns[-1] |= fields
        return record("conversation", file="a", format="csv", line=1, messages=turns)

    rows = [
        talk("S", "q", "a"),
        talk("S", "q", "a"),
        talk("S", "q", "a", "and then?", "b"),
        talk("S", "open"),
        talk("S", "q", "not trained", weight=0),
        talk("S", "q", "  "),
        record("document", file="a", format="text", line=2, text="x"),
    ]
    assert pairs(rows) == [("q", "a"), ("and then?", "b")]
    assert last_question([message("user", " q "), message("assistant", "a")]) == "q"
    assert last_question([message("system", "s")]) == ""
