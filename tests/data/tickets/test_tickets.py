"""Exports of help desks: who the staff is, what is a note among them, HTML, and whole books."""

import contextlib
import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.files import UnreadableFile, open_file
from ownchat.data.ledger import Entry
from ownchat.data.tickets.clock import ORDERS, Clock
from ownchat.data.tickets.fields import moment
from ownchat.data.tickets.intercom import read_intercom, recognise_intercom
from ownchat.data.tickets.table import read_message_table, recognise_message_table
from ownchat.data.tickets.zendesk import read_zendesk, recognise_zendesk
from ownchat.errors import DataError

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / ".." / "shared" / "datasets"))


def understand(read, path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reading = read(open_file(path, path.name), DataConfig())
    rows = list(reading.rows)
    entries = [row for row in rows if isinstance(row, Entry)]
    messages = [entry for entry in entries if entry.unit == "message" and entry.fate not in ("changed", "cut")]
    made = sum(entry.makes for entry in entries)
    assert reading.entered["message"] + made == sum(entry.count for entry in messages)
    return reading, [row for row in rows if not isinstance(row, Entry)], entries


def said(record):
    return [(turn["role"], turn["content"]) for turn in record["messages"]]


def dropped(entries):
    return Counter({entry.rule: entry.count for entry in entries if entry.fate == "dropped"})


# --------------------------------------------------------------------------------------------------------- Zendesk


def ticket(number=1, **fields):
    comments = [
        {"id": 1, "author_id": 10, "body": "My printer burns.", "public": True, "created_at": "2025-02-03T10:00:00Z"},
        {"id": 2, "author_id": 20, "body": "He is VIP", "public": False, "created_at": "2025-02-03T10:05:00Z"},
        {"id": 3, "author_id": 20, "html_body": "<p>Please<br>unplug it.</p>", "public": True,
         "created_at": "2025-02-03T10:10:00Z"},
    ]  # fmt: skip
    base = {"id": number, "subject": "Fire", "description": "My printer burns.", "requester_id": 10, "assignee_id": 20}
    return base | {"status": "open", "comments": comments} | fields


USERS = [{"id": 10, "name": "Erika", "role": "end-user"}, {"id": 20, "name": "Max", "role": "agent"}]
TALK = [("user", "Fire\n\nMy printer burns."), ("assistant", "Please\nunplug it.")]


def test_zendesk_names_people_in_the_ticket(tmp_path):
    people = {"requester": USERS[0], "submitter": USERS[0], "assignee": USERS[1], "collaborator": []}
    lines = "\n".join(json.dumps(ticket(number, **people)) for number in (1, 2))
    reading, records, _ = understand(read_zendesk, tmp_path / "a.json", lines)
    assert [turn["name"] for turn in records[0]["messages"]] == ["Erika", "Max"]
    assert 'assistant: "Max"' in reading.notes[0]


def test_zendesk_on_one_line_gives_each_message_an_id(tmp_path):
    _, records, entries = understand(read_zendesk, tmp_path / "a.json", json.dumps([ticket(1), ticket(2), ticket(3)]))
    ids = [entry.id for entry in entries if entry.fate in ("dropped", "kept")]
    assert len({record["id"] for record in records}) == 3 and len(set(ids)) == len(ids) == 6


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"tickets": [ticket()], "users": USERS}),
        json.dumps({"users": USERS, "tickets": [ticket()]}),
        json.dumps([ticket()]),
        json.dumps(ticket()),
        json.dumps(ticket(1)) + "\n" + json.dumps(ticket(2, status="deleted")) + "\n",
        json.dumps({"ticket": ticket(comments=None), "comments": ticket()["comments"], "users": USERS}),
        json.dumps([ticket(comments=None, audits=[
            {"author_id": one["author_id"], "created_at": one["created_at"],
             "events": [one | {"type": "Comment"}, {"type": "Change"}]}
            for one in ticket()["comments"]
        ])]),
    ],
)  # fmt: skip
def test_zendesk(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert recognise_zendesk(open_file(tmp_path / "a.json", "a.json")) > 0.9
    _, records, entries = understand(read_zendesk, tmp_path / "a.json", content)
    assert [said(record) for record in records] == [TALK]
    assert dropped(entries)["private note"] == 1
    assert records[0]["messages"][0]["time"] == "2025-02-03T10:00:00"


def test_a_description_without_comments_is_a_question_nobody_answers(tmp_path):
    _, records, entries = understand(read_zendesk, tmp_path / "a", json.dumps([ticket(comments=[])]))
    assert records == [] and sum(dropped(entries).values()) == 1


def test_damaged_tickets_do_not_hide_the_others(tmp_path):
    content = json.dumps(ticket(1)) + '\n{"id": 2, \n' + json.dumps(ticket(3)) + "\n"
    _, records, entries = understand(read_zendesk, tmp_path / "a", content)
    assert len(records) == 2
    assert [entry.rule for entry in entries if entry.fate == "unreadable"] == ["invalid JSON"]


# -------------------------------------------------------------------------------------------------------- Intercom


def conversation(**fields):
    def part(kind, who, body, **more):
        author = {"type": who, "id": who, "name": who.title()}
        return {
            "type": "conversation_part",
            "part_type": kind,
            "body": body,
            "created_at": 1738576800,
            "author": author,
        } | more

    parts = [
        part("assignment", "admin", None),
        part("note", "admin", "<p>He is VIP</p>"),
        part("comment", "bot", "<p>A colleague will help you.</p>"),
        part("comment", "admin", "<p>Please <b>unplug</b> it.</p>"),
        part("comment", "user", "gone", redacted=True),
        part("close", "admin", "<p>Bye</p>"),
    ]
    author = {"type": "user", "id": "u1", "name": "Erika"}
    source = {"type": "conversation", "body": "<p>My printer burns.</p>", "author": author, "subject": "<p>Fire</p>"}
    base = {"type": "conversation", "id": "7", "created_at": 1738576700, "source": source}
    return base | {"conversation_parts": {"type": "conversation_part.list", "conversation_parts": parts}} | fields


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(conversation()),
        json.dumps([conversation()]),
        json.dumps({"type": "conversation.list", "conversations": [conversation()]}),
        json.dumps(conversation()) + "\n" + json.dumps(conversation(id="8", conversation_parts={})),
    ],
)
def test_intercom(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    file = open_file(tmp_path / "a.json", "a.json")
    assert recognise_intercom(file) > 0.9 and recognise_zendesk(file) == 0
    _, records, entries = understand(read_intercom, tmp_path / "a.json", content)
    answer = "A colleague will help you.\nPlease unplug it.\nBye"
    assert [said(record) for record in records] == [[("user", "Fire\n\nMy printer burns."), ("assistant", answer)]]
    counts = dropped(entries)
    assert (counts["event"], counts["private note"], counts["deleted"]) == (1, 1, 1)


# ---------------------------------------------------------------------------------------------------------- tables


def table(rows, delimiter=","):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


HEAD = ["ticket_id", "author_type", "author", "created_at", "body"]
ROWS = [
    ["1", "customer", "Erika", "2025-02-03 10:00:00", "Where is my parcel now?"],
    ["2", "customer", "Ana", "2025-02-03 10:01:00", "Is it open on Sunday?"],
    ["1", "agent", "Max", "2025-02-03 10:09:00", "It left the house."],
    ["2", "agent", "Max", "2025-02-03 10:05:00", "<p>No, it is not.</p>"],
    ["1", "customer", "Erika", "2025-02-03 10:08:00", "Hello, anybody there?"],
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_message_a_row(tmp_path, delimiter):
    content = table([HEAD, *ROWS], delimiter)
    (tmp_path / "a").write_text(content)
    assert recognise_message_table(open_file(tmp_path / "a", "a")) > 0.9
    reading, records, _ = understand(read_message_table, tmp_path / "a", content)
    assert [said(record) for record in records] == [
        [("user", "Where is my parcel now?\nHello, anybody there?"), ("assistant", "It left the house.")],
        [("user", "Is it open on Sunday?"), ("assistant", "No, it is not.")],
    ]
    assert [record["source"]["line"] for record in records] == [2, 3]
    assert 'thread = "ticket_id"' in reading.understood


def test_the_same_as_json_lines(tmp_path):
    content = "\n".join(json.dumps(dict(zip(HEAD, row, strict=True))) for row in ROWS)
    (tmp_path / "a").write_text(content)
    assert recognise_message_table(open_file(tmp_path / "a", "a")) > 0.9
    assert len(understand(read_message_table, tmp_path / "a", content)[1]) == 2


def test_rows_that_name_the_row_they_answer(tmp_path):
    rows = [
        ["tweet_id", "author_id", "inbound", "created_at", "text", "response_tweet_id", "in_response_to_tweet_id"],
        ["1", "shop", "False", "Tue Oct 31 22:10:47 +0000 2017", "@2 It left the house.", "", "3.0"],
        ["3", "2", "True", "Tue Oct 31 22:08:27 +0000 2017", "@shop where is my parcel?", "1", ""],
        ["4", "9", "True", "Tue Oct 31 22:08:27 +0000 2017", "@shop is it open?", "", ""],
    ]
    _, records, entries = understand(read_message_table, tmp_path / "a", table(rows))
    assert [said(record) for record in records] == [
        [("user", "@shop where is my parcel?"), ("assistant", "@2 It left the house.")]
    ]
    assert dropped(entries)["nobody answers"] == 1


@pytest.mark.parametrize(
    "rows",
    [
        [["ticket_id", "customer", "agent"], ["1", "Where is it?", "It left."], ["1", "And now?", "Here it is."]],
        [["id", "text"], ["1", "some words here"], ["2", "other words here"]],
        [["date", "author", "title", "text"], ["x", "a", "t", "one long article"], ["y", "b", "u", "another one"]],
        [["question", "answer", "conversation_id"], ["a b c", "d e f", "1"], ["g h i", "j k l", "1"]],
    ],
)
def test_other_tables_are_left_to_others(tmp_path, rows):
    (tmp_path / "a.csv").write_text(table(rows))
    assert recognise_message_table(open_file(tmp_path / "a.csv", "a.csv")) == 0


def test_one_side_only_is_a_clear_error(tmp_path):
    rows = [["conversationId", "turnNumber", "utterance"], ["1", "1", "i want a seat"], ["1", "2", "by the window"]]
    with pytest.raises(UnreadableFile, match="no column tells who speaks"):
        understand(read_message_table, tmp_path / "a", table(rows))


@pytest.mark.parametrize("value, found", [(0, None), ("nan", None), (True, None), (1e30, None), ("2025-13-40", None)])
def test_what_is_no_moment(value, found):
    assert moment(value) is found


CASES = [
    (read_zendesk, json.dumps({"tickets": [ticket(1), ticket(2)], "users": USERS})),
    (read_zendesk, json.dumps(ticket(1)) + "\n" + json.dumps(ticket(2))),
    (read_intercom, json.dumps({"conversations": [conversation(), conversation(id="8")]})),
    (read_message_table, table([HEAD, *ROWS])),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(CASES), st.integers(0, 5000), st.integers(1, 255), st.booleans())
def test_damage_is_told_or_survived(tmp_path, case, place, value, cut):
    read, content = case
    raw = bytearray(content.encode())
    if cut:
        del raw[1 + place % len(raw) :]
    else:
        raw[place % len(raw)] = value
    with contextlib.suppress(UnreadableFile, DataError):
        understand(read, tmp_path / "a", bytes(raw))


@pytest.mark.skipif(not (DATASETS / "multidogo").is_dir(), reason="the datasets are not here (set OWNCHAT_DATASETS)")
def test_real_rows_of_one_side():
    path = DATASETS / "multidogo" / "turn_level" / "airline" / "dev.tsv.gz"
    with pytest.raises(UnreadableFile, match="one side"):
        read_message_table(open_file(path, path.name), DataConfig())


# ------------------------------------------------------------------------------------------------------ local dates

SAID = [("T-2", "Agent", 5, 3), ("T-1", "Customer", 5, 2), ("T-1", "Customer", 5, 0), ("T-2", "Customer", 5, 2),
        ("T-1", "Agent", 5, 3), ("T-2", "Agent", 5, 1), ("T-2", "Customer", 5, 0), ("T-1", "Agent", 5, 1)]  # fmt: skip


def dated(form, said=SAID):
    rows = [f'{thread},{who},"{form.format(day=day, minute=minute)}",Words {thread} {minute}'
            for thread, who, day, minute in said]  # fmt: skip
    return "\n".join(["ticket_id,author,date,message", *rows, ""])


@pytest.mark.parametrize(
    "form",
    ["2024-01-{day:02} 10:{minute:02}:00", "{day:02}.01.2024 10:{minute:02}", "{day:02}/01/2024 10:{minute:02}",
     "01/{day:02}/2024 10:{minute:02} AM", "{day}.1.24, 10:{minute:02} Uhr", "2024/01/{day:02} 10:{minute:02}",
     "0{minute}"],
)  # fmt: skip
def test_local_dates_order_the_rows(tmp_path, form):
    _, records, entries = understand(read_message_table, tmp_path / "a.csv", dated(form))
    assert [[text for _, text in said(record)] for record in records] == [
        [f"Words {thread} {minute}" for minute in range(4)] for thread in ("T-2", "T-1")
    ]
    assert not dropped(entries)


@pytest.mark.parametrize(
    ("texts", "order", "sure"),
    [
        (["05/01/2024 10:00", "06/01/2024 11:00"], "day", True),  # a day apart, not a month
        (["01/05/2024 10:00", "01/06/2024 11:00"], "month", True),
        (["05/01/2024 10:00", "13/01/2024 11:00"], "day", True),
        (["05/01/2024 10:00", "05/01/2024 11:00"], "day", False),
        (["05/01/2024 10:00 am", "05/01/2024 11:00 pm"], "month", False),
        (["05.01.2024 10:00", "05.01.2024 11:00"], "day", True),
    ],
)
def test_the_order_of_a_date_is_told_by_the_column(texts, order, sure):
    clock = Clock()
    for text in texts:
        clock.add(text)
    clock.seconds([0] * len(texts))
    assert clock.understood == f"dates as {ORDERS[order]}"
    assert bool(clock.notes) is not sure
    asked = Clock("month")
    asked.add("05/01/2024 10:00")
    assert asked.seconds([0])[0] == moment("2024-05-01T10:00:00") and not asked.notes


def test_times_that_cannot_be_read_leave_the_order_of_the_file(tmp_path):
    content = "ticket_id,author,date,message\n" + "".join(
        f"T,{who},{when},Words {n}\n"
        for n, (who, when) in enumerate(
            [("Customer", "soon"), ("Agent", "later"), ("Customer", "1"), ("Agent", "never")]
        )
    )
    reading, records, _ = understand(read_message_table, tmp_path / "a.csv", content)
    assert [text for _, text in said(records[0])] == ["Words 0", "Words 1", "Words 2", "Words 3"]
    assert any("3 of 4 times cannot be read" in note for note in reading.notes)
