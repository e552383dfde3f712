"""Turns become conversations: who the assistant is, where one ends, what is joined; every message has one fate."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.conversations import MOST_TURNS, conversations
from ownchat.data.ledger import FATES, Entry
from ownchat.data.reading import Reading, unreadable
from ownchat.data.roles import what_a_name_says
from ownchat.data.talk import Talk, Turn, not_a_turn

NOON = 1_577_880_000.0  # 2020-01-01T12:00:00


def said(*lines: str, **fields: Any) -> list[Turn]:
    """Turns a minute apart from lines like ``Anna: text``."""
    parts = [line.split(": ", 1) for line in lines]
    return [Turn(one[0], one[1], n, NOON + 60 * n, **fields) for n, one in enumerate(parts, 1)]


def read(
    items: list[Turn | Entry], talk: dict[str, Any] | None = None, **data: Any
) -> tuple[Reading, list, list[Entry]]:
    reading = conversations(Talk("chat", "a.txt", lambda: iter(items), **(talk or {})), DataConfig(**data))
    rows = list(reading.rows)
    records, entries = [x for x in rows if not isinstance(x, Entry)], [x for x in rows if isinstance(x, Entry)]
    fates = [entry for entry in entries if entry.unit == "message" and entry.fate in FATES]
    assert reading.entered["message"] == sum(isinstance(x, Turn) or x.unit == "message" for x in items)
    assert reading.entered["message"] + sum(e.makes for e in fates) == sum(e.count for e in fates)
    assert sum(e.count for e in fates if e.fate == "kept") == sum(len(record["messages"]) for record in records)
    return reading, records, entries


def turns(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in record["messages"]]


def answering(reading: Reading, records: list[dict[str, Any]]) -> set[str]:
    return {m["name"] for record in records for m in record["messages"] if m["role"] == "assistant"}


# ----------------------------------------------------------------------------------------------------------- joining


def test_what_one_side_says_in_a_row_is_joined():
    _, [record], entries = read(said("Anna: Hi", "Anna: are you there?", "Ben: Yes", "Ben: always", "Anna: ok"))
    assert turns(record) == [("user", "Hi\nare you there?"), ("assistant", "Yes\nalways"), ("user", "ok")]
    assert [m["name"] for m in record["messages"]] == ["Anna", "Ben", "Anna"]
    assert record["messages"][0]["time"] == "2020-01-01T12:01:00"
    assert [(e.fate, e.count, e.makes, e.detail) for e in entries] == [
        ("merged", 2, 1, "a.txt, lines 1 to 2"),
        ("merged", 2, 1, "a.txt, lines 3 to 4"),
        ("kept", 3, 0, ""),
    ]
    assert entries[-1].id == record["id"] and record["source"]["line"] == 1


def test_several_voices_on_the_users_side_keep_their_names():
    _, [record], _ = read(said("Anna: Where?", "Carl: Yes, where?", "Agent: Here", "Anna: ok"))
    assert turns(record) == [("user", "Anna: Where?\nCarl: Yes, where?"), ("assistant", "Here"), ("user", "Anna: ok")]


def test_an_opening_assistant_is_context():
    _, [record], _ = read(said("Agent: Welcome", "Customer: Hi", "Agent: How can I help?"))
    assert [m["weight"] for m in record["messages"]] == [0, None, None]


@pytest.mark.parametrize(
    "lines, rule",
    [
        (["Anna: Hi", "Anna: anyone?"], "nobody answers"),
        (["Agent: Welcome", "Customer: Hi"], "nobody answers"),
    ],
)
def test_nothing_to_learn(lines, rule):
    _, records, entries = read(said(*lines))
    assert not records
    assert [(e.fate, e.rule, e.count, e.detail) for e in entries] == [("dropped", rule, 2, "a.txt, line 1")]


def test_only_the_assistant_speaks():
    items = [Turn("Ann", "One", 1, role="assistant"), Turn("Ann", "Two", 2, role="assistant")]
    assert [entry.rule for entry in read(items)[2]] == ["nobody asks"]


def test_empty_turns_and_entries_are_in_the_books():
    items: list[Turn | Entry] = [*said("Anna: Hi?", "Ben:  "), not_a_turn("a.txt", 3, "media"), *said("Ben: Yes")]
    items.append(unreadable("a.txt", 9, "invalid JSON"))
    _, [record], entries = read(items)
    assert turns(record) == [("user", "Hi?"), ("assistant", "Yes")]
    assert Counter((e.unit, e.rule) for e in entries) == Counter(
        [("message", "empty"), ("message", "media"), ("row", "invalid JSON"), ("message", "import")]
    )


def test_calls_of_tools_stay_apart():
    items: list[Turn | Entry] = [
        Turn("u", "Weather?", 1, role="user"),
        Turn("a", "", 2, role="assistant", tool_calls='[{"id": "1"}]'),
        Turn("t", "sunny", 3, role="tool", tool_call_id="1"),
        Turn("t", "warm", 4, role="tool", tool_call_id="2"),
        Turn("a", "Sunny.", 5, role="assistant"),
        Turn("a", "And warm.", 6, role="assistant"),
    ]
    _, [record], _ = read(items, {"tools": "[]"})
    assert [m["role"] for m in record["messages"]] == ["user", "assistant", "tool", "tool", "assistant"]
    assert record["messages"][2]["tool_call_id"] == "1" and record["tools"] == "[]"
    assert record["messages"][4]["content"] == "Sunny.\nAnd warm."


# ------------------------------------------------------------------------------------------------------------- roles


@pytest.mark.parametrize(
    "lines, talk, data, expected",
    [
        (["Support: Hi", "Anna: How?", "Support: So"], {}, {}, "Support"),
        (["Anna: How?", "Kundenservice 2: So"], {}, {}, "Kundenservice 2"),
        (["Anna: Hi", "Kundin: How?", "Anna: So"], {}, {}, "Anna"),
        (["SYSTEM: Hi", "USER: How?", "SYSTEM: So"], {}, {}, "SYSTEM"),
        (["客户: How?", "客服: So"], {}, {}, "客服"),
        (["ग्राहक: How?", "सहायक: So"], {}, {}, "सहायक"),
        (["Anna: How?", "Ben: So", "Anna: Why?", "Ben: Thus"], {"owner": "Anna"}, {}, "Anna"),
        (["Emma Tutor: When?", "Me: Now", "Emma Tutor: ok"], {"owner": "Me"}, {}, "Me"),
        (["Anna: How?", "Ben: So", "Anna: Why?", "Ben: Thus"], {}, {}, "Ben"),
        (["Anna: How?", "Ben: So", "Anna: Why?", "Ben: Thus"], {"owner": "Ben"}, {"assistant": ["@anna"]}, "Anna"),
        (["a@x.org: How?", "b@mail.y.org: So"], {}, {"assistant_domain": ["y.org"]}, "b@mail.y.org"),
        (["a@x.org: How?", "b@y.org: So", "a@x.org: ok"], {}, {"assistant_domain": ["x.org"]}, "a@x.org"),
    ],
)
def test_the_assistant(lines, talk, data, expected):
    reading, records, _ = read(said(*lines), talk, **data)
    assert answering(reading, records) == {expected}
    assert len(reading.notes) == 1 and reading.notes[0].startswith(f'assistant: "{expected}" (')


def test_a_notice_is_nobodys():
    _, [record], entries = read(said("System: Anna has joined", "Anna: How?", "Agent: So"))
    assert turns(record) == [("user", "How?"), ("assistant", "So")]
    assert entries[0].rule == "notice"


def test_names_that_nobody_has():
    reading, records, entries = read(said("Anna: How?", "Ben: So"), assistant=["Zoe"])
    assert not records and [entry.rule for entry in entries] == ["nobody answers"]
    assert reading.notes == ['Zoe: nobody here is called so; the speakers are "Anna", "Ben"']


def test_the_formats_word_goes_before_a_guess():
    items = said("Anna: How?", "Ben: So", "Anna: Why?", "Ben: Thus")
    for turn in items:
        turn.answer = turn.speaker == "Anna"
    reading, records, _ = read(items)
    assert answering(reading, records) == {"Anna"} and "the format says so" in reading.notes[0]


def test_staff_are_those_who_answer_in_many_threads():
    items = []
    for number in range(12):
        staff = "Vera" if number % 3 else "Jan"
        for speaker, text in (
            (f"zoe-{number}@x.org", "It is broken"),
            (staff, "We mend it"),
            (f"c{number}", "ok"),
        ):
            items.append(Turn(speaker, text, len(items) + 1, thread=f"ticket {number}"))
    reading, records, _ = read(items, {"threads_are_whole": True})
    assert answering(reading, records) == {"Vera", "Jan"} and len(records) == 12


def test_the_second_speaker_where_nobody_returns():
    items = []
    for number in range(6):
        for place, speaker in enumerate((f"a{number}", f"b{number}", f"a{number}")):
            items.append(Turn(speaker, f"line {place}", len(items) + 1, thread=str(number)))
    reading, records, _ = read(items)
    assert [[m["role"] for m in record["messages"]] for record in records] == [["user", "assistant", "user"]] * 6
    assert "second speaker" in reading.notes[0]


def test_in_a_channel_those_answer_who_did_not_ask():
    items = said("ann: how do I mount a disk?", "bob: ann: use mount", "cid: ann: or the file manager")
    _, [record], _ = read(items, {"crowd": True})
    assert turns(record) == [
        ("user", "how do I mount a disk?"),
        ("assistant", "ann: use mount\nann: or the file manager"),
    ]
    assert record["tags"] == ["crowd"] and record["messages"][1]["name"] is None


@pytest.mark.parametrize(
    "name, expected",
    [
        ("Customer Support", "answering"),
        ("customer_7", "asking"),
        ("Service Desk", "answering"),
        ("Müşteri", "asking"),
        ("support@shop.example", "answering"),
        ("anna@support.example", ""),
        ("Ai Tanaka", ""),
        ("AI", "answering"),
        ("Abbot", ""),
        ("system", "notice"),
    ],
)
def test_names_that_speak_for_themselves(name, expected):
    assert what_a_name_says(name) == expected


# ---------------------------------------------------------------------------------------------------- taking apart


def test_a_long_pause_ends_a_conversation():
    items = said("Anna: How?", "Ben: So", "Anna: Why?", "Ben: Thus")
    for turn in items[2:]:
        turn.time += 7 * 3600
    assert [len(record["messages"]) for record in read(items)[1]] == [2, 2]
    assert [len(record["messages"]) for record in read(items, pause_hours=8)[1]] == [4]
    assert [len(record["messages"]) for record in read(items, {"threads_are_whole": True})[1]] == [4]


def test_threads_are_apart_and_hold_records_together():
    items = []
    for number in range(10):
        items += said("Anna: How?", "Agent: So", "Anna: Why?", "Agent: Thus", thread=f"T-{number}")
        items[-1].time += 90_000
        items[-2].time += 90_000
    records = read(items)[1]
    assert [record["group"] for record in records] == [f"T-{number}" for number in range(10) for _ in "ab"]
    assert {record["group"] for record in read(items[:8])[1]} == {None}  # two threads cannot be dealt to three splits


def test_customers_hold_records_together():
    items = []
    for number in range(24):
        items += said(f"zoe{number % 12}@x.org: How?", "Agent: So", thread=f"T-{number}")
    assert [record["group"] for record in read(items)[1]][:13:12] == ["zoe0@x.org"] * 2


def test_an_endless_talk_is_cut_before_a_question():
    lines = [line for number in range(MOST_TURNS) for line in (f"Anna: question {number}?", "Ben: yes", "Ben: so")]
    _, records, _ = read(said(*lines))
    assert len(records) == 3
    assert all(record["messages"][0]["role"] == "user" for record in records)


# -------------------------------------------------------------------------------------------------------- properties

SPEAKERS = ["Anna", "Ben", "Agent", "Kunde", "System", "a@x.org", ""]
TURN = st.builds(
    Turn,
    st.sampled_from(SPEAKERS),
    st.sampled_from(["Hi?", "Anna: yes", "", " \n", "!help", "ben, why?", "🙂"]),
    st.integers(1, 99),
    time=st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(0, 10**6).map(float),
    thread=st.sampled_from(["", "1", "T"]),
    id=st.sampled_from(["", "x", "y"]),
    reply_to=st.sampled_from(["", "x", "z"]),
    role=st.sampled_from(["", "", "", "user", "assistant", "system", "tool", "narrator"]),
    answer=st.booleans(),
)


@example(  # an agent by name who has a role of his own: nobody is left who would answer
    items=[Turn("Anna", "Hi?", 1), Turn("Ben", "Hi?", 1), Turn("Agent", "Hi?", 1, role="user")],
    crowd=False,
    whole=False,
    names=[],
)
@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(TURN | st.just(not_a_turn("a.txt", 1, "media")), max_size=40),
    crowd=st.booleans(),
    whole=st.booleans(),
    names=st.sampled_from([[], ["anna"], ["nobody"]]),
)
def test_every_message_has_one_fate_and_no_text_is_lost(items, crowd, whole, names):
    talk = {"crowd": crowd, "threads_are_whole": whole, "owner": "Ben"}
    _, records, entries = read(items, talk, assistant=names)
    dropped = sum(entry.count for entry in entries if entry.fate == "dropped")
    parts = Counter(turn.text for turn in items if isinstance(turn, Turn) and turn.text.strip())
    kept: Counter[str] = Counter()
    for record in records:
        for turn in record["messages"]:
            kept.update({text: turn["content"].count(text) for text in ("Hi?", "!help", "ben, why?", "🙂")})
    assert all(kept[text] <= parts[text] for text in kept)
    assert sum(parts[text] - kept[text] for text in kept) <= dropped


def test_staff_of_some_threads_decides_nothing_about_the_others():
    """A mailbox: the shop's address is staff in its thread, whose mailbox it is answers friends; tickets have none."""
    items: list[Any] = [
        *said("Ivo: Where is it?", "Shop: On its way", thread="a"),
        *said("Mara: Lunch?", "Ivo: Yes", thread="b"),
    ]
    items[1].answer = True
    reading, records, _ = read(items, {"owner": "Ivo", "threads_are_whole": True})
    assert answering(reading, records) == {"Shop", "Ivo"}
    reading, records, _ = read(items, {"threads_are_whole": True})
    assert answering(reading, records) == {"Shop"}
