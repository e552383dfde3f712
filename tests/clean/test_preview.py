"""What the preview keeps of a step: counts, the change, and nothing private."""

import re

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.preview import CLOSE, OPEN, compare, preview_steps, segments
from ownchat.config import CleanConfig
from ownchat.data.records import SCHEMA, message, record

PLAIN = CleanConfig(private_types=[])


def chat(*turns, line=1):
    messages = [message(role, content) for role, content in turns]
    return record("conversation", file="f.jsonl", format="jsonl", line=line, messages=messages)


def batch_of(*rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA)


BATCH = batch_of(
    chat(("user", "Bob joined the channel"), ("user", "fÃ¼r wen?"), ("assistant", "Für Anna.")),
    chat(("user", "hi"), ("assistant", "hello"), line=2),
    chat(("user", "you idiot"), ("assistant", "Sorry to hear that."), line=3),
)


def hide(texts):
    names = re.compile("Anna|Bob")
    return [names.sub(f"{OPEN}PERSON{CLOSE}", text) for text in texts]


def test_each_step_has_its_counts_and_examples():
    views = {view.name: view for view in preview_steps([BATCH], PLAIN, hide)[0]}
    lines = views["drop_system_lines"]
    assert (lines.records, lines.messages, lines.switch) == ((3, 3), (7, 6), "system_lines")
    assert lines.changed[0].place == "f.jsonl, line 1"
    assert lines.changed[0].texts == [("user", [("private", "PERSON"), ("cut", " joined the channel")])]
    greetings = views["drop_greetings"]
    assert greetings.records == (3, 2) and greetings.rules == {"row dropped: greetings only": 1}
    assert [role for role, _ in greetings.dropped[0].texts] == ["user", "assistant"]
    assert views["repair_encoding"].changed[0].texts[0][1][:2] == [("cut", "fÃ¼r"), ("new", "für")]
    assert views["flag_toxic"].changed[0].detail == "1 user"
    assert not views["filter_length"].is_on and not views["redact_private"].is_on


def test_nothing_private_is_kept():
    for config in (PLAIN, CleanConfig()):
        assert "Anna" not in repr(preview_steps([BATCH], config, hide)[0])


PIECES = ["a", "b ", "\n", ".", "ü", f"{OPEN}URL{CLOSE}", "[PERSON_2]"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(max_examples=50, deadline=None)
@given(TEXT, TEXT)
def test_a_comparison_holds_both_texts(before, after):
    """Nothing is invented: without the cut pieces it is the new text, without the new ones the old."""
    parts = compare(before, after)

    def plain(text):
        return text.replace("[PERSON_2]", "PERSON").replace(OPEN, "").replace(CLOSE, "")

    assert "".join(text for kind, text in parts if kind != "private").count(OPEN) == 0
    if not any(kind in ("gap", "private") for kind, _ in parts):
        assert "".join(text for kind, text in parts if kind != "cut") == plain(after)
        assert "".join(text for kind, text in parts if kind != "new") == plain(before)


def test_long_texts_are_shortened_around_the_change():
    parts = compare("word " * 2000 + "old end", "word " * 2000 + "new end")
    assert ("cut", "old") in parts and ("new", "new") in parts and sum(len(text) for _, text in parts) < 500
    assert segments("x" * 5000)[-1] == ("gap", "3,800")
    half = segments("x" * 1195 + f"{OPEN}PERSON{CLOSE}" + "y" * 100)
    assert all(OPEN not in text for _, text in half)
