"""What machines wrote goes, what people say about machines stays; every message has one fate."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.boilerplate import Learned, LineCounts, cut_boilerplate
from ownchat.clean.noise import (
    _BOT_HINT,
    _SYSTEM_HINT,
    drop_bot_noise,
    drop_cut_turns,
    drop_greetings,
    drop_system_lines,
    is_automatic,
    is_system_line,
)
from ownchat.clean.steps import run_steps, steps_for
from ownchat.config import CleanConfig
from ownchat.data.records import SCHEMA, message, record

SYSTEM = [
    "Anna Berg joined the channel", "*** nick has quit (Ping timeout)", "=== bob_ is now known as bob",
    "Messages and calls are end-to-end encrypted. No one outside of this chat can read them.", "<Media omitted>",
    "This message was deleted", "Missed voice call", "Ticket #4711 was assigned to Anna", "You created group Holiday",
    "Status changed from open to pending", "The visitor has left the chat", "Chat transferred to Billing",
    "Bob hat die Gruppe verlassen", "Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt.", "image omitted",
    "Paul a rejoint le groupe", "Ana salió del grupo", "Your security code with Ann changed. Tap to learn more.",
]  # fmt: skip
PEOPLE = [
    "I joined the channel to ask about my bill", "She left.", "The event has been added.", "who left the chat?",
    "Your money has been transferred.", "my message was deleted, why?", "He left the group because it was loud, right?",
    "Can you close my ticket?", "I closed the ticket already but it is open again", "status: I am still waiting",
    "When I joined the call nobody was there", "Please change the status to shipped", "the call ended badly",
]  # fmt: skip
AUTOMATIC = [
    "This is an automated message. Please do not reply.", "Automatic reply: holiday\nI am away until Monday.",
    "Hello,\nI am out of the office until 3 May with limited access to e-mail.", "Out of Office: back on Monday",
    "Diese E-Mail wurde automatisch erstellt.", "Ceci est un message automatique.",
]  # fmt: skip
NOT_AUTOMATIC = [
    "I got an automated message, is that you?", "Is this an automatic car?", "I'm out of the office, call my mobile",
    "Your auto-reply says three days, it has been ten", "The gate closes automatically",
]  # fmt: skip


def batch_of(*rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA)


def chat(*turns, line=1, file="f"):
    messages = [message(role, content) for role, content in turns]
    return record("conversation", file=file, format="jsonl", line=line, messages=messages)


def contents(batch):
    return [[turn["content"] for turn in row["messages"]] for row in batch.to_pylist()]


@pytest.mark.parametrize("line", SYSTEM)
def test_system_lines_are_known_and_hinted_at(line):
    assert is_system_line(line)
    assert pa.compute.match_substring_regex(pa.array([line]), _SYSTEM_HINT)[0].as_py()


@pytest.mark.parametrize("line", PEOPLE)
def test_people_are_no_system(line):
    assert not is_system_line(line)


@pytest.mark.parametrize("text", AUTOMATIC)
def test_automatic_replies_are_known_and_hinted_at(text):
    assert is_automatic(text)
    assert pa.compute.match_substring_regex(pa.array([text]), _BOT_HINT)[0].as_py()


@pytest.mark.parametrize("text", NOT_AUTOMATIC)
def test_people_write_about_automatic_replies(text):
    assert not is_automatic(text)


def test_lines_are_cut_and_messages_dropped():
    batch = batch_of(
        chat(("user", "Bob joined the channel\nmy login fails"), ("assistant", "Anna left the chat"), ("user", "ok")),
        chat(("system", "Bob joined the channel"), ("assistant", "Fine.")),
    )
    after, entries = drop_system_lines(batch)
    assert contents(after) == [["my login fails", "ok"], ["Bob joined the channel", "Fine."]]
    first = batch["id"][0].as_py()
    assert [(entry.unit, entry.id, entry.fate) for entry in entries] == [
        ("row", first, "changed"),
        ("message", f"{first}#1", "dropped"),
    ]


def test_a_sentence_is_cut_from_a_longer_message():
    long = "Your order has left our house. " * 30
    batch = batch_of(chat(("user", "?"), ("assistant", long + "Please do not reply to this email.")))
    after, entries = drop_bot_noise(batch)
    assert contents(after) == [["?", long.strip()]] and [entry.fate for entry in entries] == ["changed"]


@pytest.mark.parametrize(
    "turns, gone",
    [
        (("Hi", "Hello! How are you?"), True),
        (("Guten Tag", "Vielen Dank, tschüss!"), True),
        (("你好", "您好！"), True),
        (("thanks :)", "You're welcome 🙂"), True),
        (("hi, my card is blocked", "Hello!"), False),
        (("?", "!"), False),
        (("Hi", "Hello, this is Anna, how can I help?"), False),
    ],
)
def test_greetings_only(turns, gone):
    after, entries = drop_greetings(batch_of(chat(("user", turns[0]), ("assistant", turns[1]))))
    assert (len(after) == 0) is gone
    assert sum(entry.count for entry in entries if entry.unit == "message") == 2 * gone


def test_cut_turns():
    batch = batch_of(
        chat(("user", "Tell me."), ("assistant", "It began [truncated]")),
        chat(("user", "Tell me."), ("assistant", "It was … Read more"), ("user", "and?"), ("assistant", "Done.")),
        chat(("user", "Long question [truncated]"), ("assistant", "x" * 300)),
    )
    after, entries = drop_cut_turns(batch, {"f": 300})
    assert contents(after) == [["Tell me."], contents(batch)[1], ["Long question [truncated]"]]
    assert [turn["weight"] for turn in after.to_pylist()[1]["messages"]] == [None, 0, None, None]
    assert sorted(entry.fate for entry in entries) == ["changed", "dropped", "dropped"]


def test_the_limit_of_an_export_is_learned():
    rows = [chat(("user", "q"), ("assistant", f"{i} " + "word " * 99 + "word"[: 4 - len(str(i)) + 1]), line=i + 1)
            for i in range(4)]  # fmt: skip
    rows += [chat(("user", "q"), ("assistant", "A short and whole answer."), line=9)]
    learned = Learned()
    learned.learn(batch_of(*rows))
    assert learned.limits() == {"f": len(rows[0]["messages"][1]["content"])}
    assert [len(turns) for turns in contents(drop_cut_turns(batch_of(*rows), learned.limits())[0])] == [1, 1, 1, 1, 2]


WORDS = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliet",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
]
FOOT = "\n\nBest regards,\nAcme Support Team\nThis e-mail is confidential and meant for you alone."


def with_foot(count=16):
    return batch_of(
        *(chat(("user", "Where?"), ("assistant", f"The {word} went.\nIt is {word}.{FOOT}"), line=i + 1)
          for i, word in enumerate(WORDS[:count]))
    )  # fmt: skip


def test_boilerplate_is_learned_and_cut():
    batch, learned = with_foot(), Learned()
    learned.learn(batch)
    after, entries = cut_boilerplate(batch, learned)
    assert contents(after)[0] == ["Where?", "The alpha went.\nIt is alpha."]
    assert len(entries) == 16 and entries[0].detail == "4 lines"
    few = Learned()
    few.learn(with_foot(9))  # ten records are needed
    assert cut_boilerplate(batch, few)[0].equals(batch)


def test_parts_learn_what_the_whole_learns():
    batch, whole, first, second = with_foot(), Learned(), Learned(), Learned()
    whole.learn(batch)
    second.learn(batch.slice(7))
    first.learn(batch.slice(0, 7))
    second.merge(first)
    assert cut_boilerplate(batch, second)[0].equals(cut_boilerplate(batch, whole)[0])
    assert (second.records, second.texts, second.limits()) == (whole.records, whole.texts, whole.limits())


def test_stock_answers_stay():
    """What is frequent as a whole is an answer, though all its lines are frequent."""
    stock = "You can send it back.\nThe form is in the parcel and the label on its back."
    batch = batch_of(*(chat(("user", word), ("assistant", stock), line=i + 1) for i, word in enumerate(WORDS)))
    learned = Learned()
    learned.learn(batch)
    assert cut_boilerplate(batch, learned)[0].equals(batch)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=200))
def test_estimates_are_never_too_low(values):
    import numpy as np

    counts, keys = LineCounts(), np.array(values, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    counts.add(keys)
    assert all(counts.estimate(keys)[i] >= values.count(value) for i, value in enumerate(values))


def test_every_message_has_one_fate():
    """Steps drop one after the other; each dropped message has its own number of the batch that came in."""
    batch = batch_of(
        chat(
            ("user", "Bob joined the channel"), ("user", "hm?"), ("assistant", "This is an automated message."),
            ("user", " "), ("assistant", "Yes [truncated]"), ("assistant", "It works, surely.\n[clipped]"),
        )
    )  # fmt: skip
    dropped, last = [], batch
    for _, _, after, entries in run_steps(batch, steps_for(CleanConfig(private_types=[]))):
        dropped += [entry for entry in entries if entry.unit == "message" and entry.fate == "dropped"]
        last = after
    named = [entry.id for entry in dropped if "#" in entry.id]
    assert len(set(named)) == len(named) and {id.rpartition("#")[2] for id in named} >= {"0", "2", "3"}
    left = sum(len(row["messages"]) for row in last.to_pylist())
    assert sum(entry.count for entry in dropped) + left == 6


def test_real_requests_are_not_taken_for_noise():
    folder = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / "shared/datasets")) / "clinc150"
    if not folder.is_dir():
        pytest.skip("set OWNCHAT_DATASETS to the folder that holds clinc150")
    texts = [text for text, _ in json.loads((folder / "data_full.json").read_text())["train"]]
    batch = batch_of(
        *(chat(("user", text), ("assistant", "ok then"), line=i + 1) for i, text in enumerate(texts[:5000]))
    )
    assert len(drop_bot_noise(drop_system_lines(batch)[0])[1]) <= 2
