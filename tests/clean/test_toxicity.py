"""Abuse is flagged, plain speech is not, and dropping is asked for."""

import pyarrow as pa
import pytest

from ownchat.clean.toxicity import count_toxic, flag_toxic, is_toxic
from ownchat.data.records import SCHEMA, message, record

TOXIC = [
    "you are an idiot", "You stupid bitch", "fuck you", "I will kill you", "what a bunch of scum, those assholes",
    "go kill yourself", "shit shit shit", "du bist ein Arschloch", "eres un idiota", "all immigrants are criminals",
]  # fmt: skip
PLAIN = [
    "how do I kill a process?", "shit, it rains", "The dick van dyke show", "I feel stupid for asking",
    "your shift is over",
    "These instructions are useless", "damn these fans", "classic assassin's class", "you screw the lamp in", "hell no",
    "the Scunthorpe office", "Can I shoot you an e-mail?", "you are a great help", "he was killed in the war",
    "a cocktail for the pussycat", "We burn wood", "das ist ein Witz",
]  # fmt: skip


def batch_of(*turns) -> pa.RecordBatch:
    rows = [
        record("conversation", file=f"{i % 2}.jsonl", format="jsonl", line=i + 1,
               messages=[message("user", user), message("assistant", assistant)])
        for i, (user, assistant) in enumerate(turns)
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


@pytest.mark.parametrize("text", TOXIC)
def test_abuse(text):
    assert is_toxic(pa.array([text])).all() and is_toxic(pa.array([text.upper()])).all()


@pytest.mark.parametrize("text", PLAIN)
def test_plain_speech(text):
    assert not is_toxic(pa.array([text])).any()


def test_a_long_text_may_quote():
    assert not is_toxic(pa.array(["He said: fuck you. " + "And then they talked about the weather. " * 200])).any()


def test_flags_and_counts_by_source():
    batch = batch_of(("fuck you", "Sorry."), ("hello", "you idiot"), ("hello", "Hi."))
    after, entries = flag_toxic(batch)
    assert after["tags"].to_pylist() == [["toxic"], ["toxic"], []]
    assert [(entry.fate, entry.detail) for entry in entries] == [("changed", "1 user"), ("changed", "1 assistant")]
    assert count_toxic([after]) == {"0.jsonl": (2, 1), "1.jsonl": (1, 1)}
    assert flag_toxic(after)[0].equals(after)
    left, entries = flag_toxic(batch, drop=True)
    assert len(left) == 1 and sum(entry.count for entry in entries if entry.unit == "message") == 4
