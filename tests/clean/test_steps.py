"""Steps are pure, touch only what they should, and account for what they take."""

import ftfy
import pyarrow as pa
import pyarrow.compute as pc
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.steps import _SUSPICIOUS, STEPS, count_messages, drop_empty, repair_encoding
from ownchat.data.records import SCHEMA, message, record


def batch_of(*rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA)


def chat(*turns, line=1, **fields):
    messages = [message(role, content, **extra) for role, content, *rest in turns for extra in [dict(*rest)]]
    return record("conversation", file="f", format="jsonl", line=line, messages=messages, **fields)


def text(content, line=1):
    return record("document", file="f", format="text", line=line, text=content)


MIXED = batch_of(
    chat(("user", "cafÃ© “curly” ﬁne…"), ("assistant", "Ja, fÃ¼r Sie", {"weight": 1, "tool_calls": "[]"})),
    text("clean line\nnaÃ¯ve line\nПривет, мир — “да”"),
    chat(("user", "Où est l’été? Привет"), ("assistant", "東京、“はい”")),
)


def test_encoding_is_repaired_and_nothing_else():
    fixed, entries = repair_encoding(MIXED)
    assert fixed["messages"][0].as_py()[0]["content"] == "café “curly” ﬁne…"
    assert fixed["messages"][0].as_py()[1] == MIXED["messages"][0].as_py()[1] | {"content": "Ja, für Sie"}
    assert fixed["text"][1].as_py() == "clean line\nnaïve line\nПривет, мир — “да”"
    assert fixed.slice(2) == MIXED.slice(2)
    assert [(entry.id, entry.fate, entry.detail) for entry in entries] == [
        (MIXED["id"][0].as_py(), "changed", "2 texts"),
        (MIXED["id"][1].as_py(), "changed", "1 text"),
    ]


def test_steps_take_slices():
    whole = [batch for step, _ in STEPS for batch in [step(MIXED)[0].slice(1, 1)]]
    parts = [batch for step, _ in STEPS for batch in [step(MIXED.slice(1, 1))[0]]]
    assert [batch.to_pylist() for batch in whole] == [batch.to_pylist() for batch in parts]


WORDS = st.text(st.sampled_from("aZ é ñßÃÂâ€™œŒ°×²ØÙВГРСв Привет ελ 東京“”«»…–Ђ\x85\xa0ð\u0178√±‚Ä"), max_size=12)
MOJIBAKE = st.builds(
    lambda text, encoding: text.encode("utf-8").decode(encoding, "replace"),
    WORDS,
    st.sampled_from(["cp1252", "latin-1", "cp1251", "mac_roman", "cp1250", "cp1253", "cp1257", "cp437"]),
)


@settings(max_examples=600, deadline=None)
@given(st.one_of(WORDS, MOJIBAKE, st.text(max_size=12)))
def test_whatever_ftfy_would_mend_is_looked_at(words):
    words = words.replace("\ud800", "")
    if is_bad(words) and ftfy.fix_encoding(words) != words:
        assert pc.match_substring_regex(pa.array([words]), _SUSPICIOUS)[0].as_py()


def test_clean_text_is_not_looked_at():
    clean = [
        "Where is my café?",
        "Привет, мир",
        "Grüße aus Köln – bis bald",
        "東京までの送料",
        "It's fine",
        "naïve 10 %",
    ]
    assert not any(pc.match_substring_regex(pa.array(clean), _SUSPICIOUS).to_pylist())


def test_empty_messages_and_records_are_taken_out_and_accounted_for():
    batch = batch_of(
        chat(("system", " "), ("user", "Hi"), ("assistant", "Hello"), ("assistant", "\u3000\n"), line=1),
        chat(("user", "Hi"), ("assistant", "\t"), line=2),
        chat(("user", ""), ("assistant", ""), line=3),
        chat(("user", "?"), ("assistant", "", {"tool_calls": "[1]"}), ("tool", ""), line=4),
        text(" \n", line=5),
        text("words", line=6),
    )
    kept, entries = drop_empty(batch)
    ids = batch["id"].to_pylist()
    assert kept["id"].to_pylist() == [ids[0], ids[3], ids[5]]
    assert [turn["content"] for turn in kept["messages"][0].as_py()] == ["Hi", "Hello"]
    assert kept.slice(1) == batch.take(pa.array([3, 5]))
    rows = {entry.id: entry.rule for entry in entries if entry.unit == "row"}
    assert rows == {ids[1]: "no assistant turn", ids[2]: "empty", ids[4]: "empty"}
    messages = {entry.id: entry.count for entry in entries if entry.unit == "message"}
    assert messages == {
        f"{ids[0]}#0": 1,
        f"{ids[0]}#3": 1,
        f"{ids[1]}#1": 1,
        ids[1]: 1,
        f"{ids[2]}#0": 1,
        f"{ids[2]}#1": 1,
    }
    assert sum(messages.values()) == count_messages(batch).sum() - count_messages(kept).sum()


def test_nothing_to_do_gives_the_same_batch():
    batch = batch_of(chat(("user", "Hi"), ("assistant", "Hello")), text("x", line=2))
    assert drop_empty(batch) == (batch, [])
    assert repair_encoding(batch) == (batch, [])
    assert drop_empty(batch.slice(0, 0))[0].num_rows == 0
