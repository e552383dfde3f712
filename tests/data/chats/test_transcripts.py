"""Transcripts: names before words in their many forms; where conversations part; prose that stays text."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.chats.transcripts import read_transcript, recognise_screenplay, recognise_transcript
from ownchat.data.files import UnreadableFile, open_file
from ownchat.data.ledger import Entry
from ownchat.data.readers import detect

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / ".." / "shared" / "datasets"))
TALK = [("user", "Where is my parcel?"), ("assistant", "It left on Monday.\nIt is near."), ("user", "Thank you.")]

PLAIN = """Customer: Where is my parcel?
Agent: It left on Monday.
It is near.
Customer: Thank you.
"""
BOLD = """**Customer:** Where is my parcel?

**Agent:** It left on Monday.
It is near.

**Customer:** Thank you.
"""
BEFORE = """[00:00:01] Customer: Where is my parcel?
[00:00:04] Agent: It left on Monday.
It is near.
[00:00:09] Customer: Thank you.
"""
AFTER = """Customer (00:01): Where is my parcel?
Agent (00:04): It left on Monday.
It is near.
Customer (00:09): Thank you.
"""
HEADERS = """Customer  0:01
Where is my parcel?

Agent  0:04
It left on Monday.
It is near.

Customer  0:09
Thank you.
"""
QUESTIONS = """Q: Where is my parcel?
A: It left on Monday.
It is near.
Q: Thank you.
"""
ABOVE = """Customer:
Where is my parcel?

Agent:
It left on Monday.
It is near.

Customer:
Thank you.
"""
FORMS = [PLAIN, BOLD, BEFORE, AFTER, HEADERS, QUESTIONS, ABOVE]


@pytest.mark.parametrize("text", FORMS)
def test_the_forms(take, text):
    taken = take("call.txt", text * 2)
    assert taken.format == "transcript" and not taken.rules
    said = [turn for talk in taken.talks for turn in talk]
    assert said[:2] == TALK[:2] and said[-1] == TALK[-1]
    assert [role for role, _ in said].count("assistant") == 2


def test_times_order_but_tell_no_date(take):
    [record] = take("call.txt", BEFORE * 2).records
    assert {turn["time"] for turn in record["messages"]} == {None}


def test_names_of_people(take):
    text = "".join(f"Anna Berg: What about number {n}?\nDr. Li: It is number {n}.\n" for n in range(5))
    taken = take("talk.txt", text)
    assert taken.talks[0][:2] == [("user", "What about number 0?"), ("assistant", "It is number 0.")]
    assert 'assistant: "Dr. Li"' in taken.reading.notes[0]


def test_words_with_a_colon_inside_a_turn(take):
    text = PLAIN.replace("It is near.", "Note: it is near.\nAddress: Main Street 5") * 3
    assert "Monday.\nNote: it is near.\nAddress: Main Street 5" in take("call.txt", text).talks[0][1][1]


@pytest.mark.parametrize("between", ["\n", "\n\n", "---\n", "Conversation 12\n", "\n== Chat #7 ==\n\n"])
def test_where_conversations_part(take, between):
    taken = take("calls.txt", between.join([PLAIN] * 4))
    assert len(taken.records) == 4 and {len(talk) for talk in taken.talks} == {3}
    assert set(taken.rules) <= {"heading"}


def test_blank_lines_between_turns_part_nothing(take):
    assert len(take("call.txt", PLAIN.replace("near.\n", "near.\n\n").replace("?\n", "?\n\n") * 4).records) == 1


def test_numbered_utterances_begin_again(take):
    one = "A.1: Uh, do you have a pet? \nB.2: Yeah, we have a poodle. \nA.3: A poodle, miniature? \nB.4: Yeah. \n"
    taken = take("transcript", f"\n{one}\n{one}{one}")
    assert [record["source"]["line"] for record in taken.records] == [2, 7, 11]
    assert taken.talks[0][:2] == [("user", "Uh, do you have a pet?"), ("assistant", "Yeah, we have a poodle.")]


def test_what_stands_before_the_first_speaker_is_in_the_books(take):
    taken = take("call.txt", "Recorded on Monday\n\n" + PLAIN * 2)
    assert taken.rules == {"before the first speaker": 1}


def test_a_play_is_text_unless_the_user_says_otherwise(opened):
    play = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n" * 5
    file = opened("play.txt", play)
    assert detect(file)[0].name == "text" and recognise_screenplay(file) > 0
    assert detect(file, {"*.txt": "screenplay"})[0].name == "screenplay"
    [record] = [row for row in read_transcript(file, DataConfig()).rows if not isinstance(row, Entry)]
    assert record["source"]["format"] == "screenplay"
    assert [turn["content"] for turn in record["messages"]][:2] == [
        "Before we proceed any further, hear me speak.",
        "Speak, speak.",
    ]


def test_no_speaker_at_all(opened):
    with pytest.raises(UnreadableFile, match="begins with a name"):
        read_transcript(opened("a.txt", "Just some words.\nAnd more.\n"), DataConfig())


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time.\nNote: this is old.\nThey lived.\nNote: still old.\nWarning: no end.\n" * 5,
        "name: web\nimage: nginx\nports: 80\nname: db\nimage: postgres\nports: 5432\n" * 5,
        "INFO: starting\nERROR: failed now\nINFO: stopping\nDEBUG: x\n" * 5,
        "From: a@x.org\nTo: b@x.org\nSubject: Hi\nDate: today\n\nHello\n" * 5,
        "Name: Anna\nStreet: Main Street 5\nCity: Ghent in Belgium\n\n" * 5,
        "12/05/2020, 14:03 - Anna: Hi there?\n12/05/2020, 14:04 - Ben: Hello you.\n" * 5,
        "# Title\n\nIngredients: flour, water and salt.\nMethod: mix and wait.\n",
        '{"a": 1}\n',
        "We said: no.\nThey said: yes, of course.\n",
    ],
)
def test_what_stays_text(opened, text):
    assert recognise_transcript(opened("a.txt", text)) < 0.3


def test_an_endless_turn_is_handed_on_in_pieces(take):
    long = "word " * 2_000 + "\n"
    taken = take("call.txt", PLAIN * 2 + "Agent: more\n" + long * 50)
    assert sum(content.count("word") for talk in taken.talks for _, content in talk) == 100_000


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared datasets are not here (set OWNCHAT_DATASETS)")
def test_real_plain_text_stays_text():
    for path in (DATASETS / "plain_text").glob("*.txt"):
        assert detect(open_file(path, path.name))[0].name == "text"


@settings(max_examples=40, deadline=None)
@given(
    text=st.sampled_from(FORMS),
    cut=st.integers(0, 200),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
def test_damaged_transcripts(holds, text, cut, flips):
    content = bytearray((text * 3).encode())
    for place, byte in flips:
        content[place % len(content)] = byte
    holds("a.txt", bytes(content[: len(content) - cut]), format={"a.txt": "transcript"})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.text(st.sampled_from("ab ?\n"), max_size=20)), min_size=4, max_size=30)
)
def test_no_words_are_lost(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("talk") / "a.txt"
    path.write_text("".join(f"{'Agent' if who == 'A' else 'Customer'}: {text}\n" for who, text in lines))
    reading = read_transcript(open_file(path, "a.txt"), DataConfig())
    rows = list(reading.rows)
    kept = sum(turn["content"].count("a") for row in rows if not isinstance(row, Entry) for turn in row["messages"])
    lost = any(isinstance(row, Entry) and row.fate == "dropped" and row.rule != "empty" for row in rows)
    assert kept == sum(text.count("a") for _, text in lines) or lost
