"""Subtitles: a talk where cues have names, else a document; tags, rolling captions, damaged files."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.chats.subtitles import cues, recognise_subtitles

SRT = """1
00:00:01,000 --> 00:00:03,000
<i>Good evening.</i>
We start now.

2
00:00:03,100 --> 00:00:04,000
- Really?
- Yes.

3
00:00:09,000 --> 00:00:12,000
{\\an8}Later that day...
"""
VTT = """WEBVTT - talk

NOTE made by hand
over two lines

STYLE
::cue { color: red }

intro
00:01.000 --> 00:03.000 align:start
<v Anna Berg>Did you <b>see</b> it?</v>

00:03.500 --> 00:05.000
<v.loud Ben>Yes &amp; no.

00:05.000 --> 00:07.000
It was dark.

00:08.000 --> 00:09.000
<v Anna Berg>Oh?
<v Ben>Yes.
"""
NAMED = """1
00:00:01,000 --> 00:00:03,000
ANNA: Did you see it?

2
00:00:03,500 --> 00:00:05,000
- BEN: Yes.
- ANNA: When?

3
00:00:05,500 --> 00:00:06,000
[door closes]

4
00:00:06,000 --> 00:00:07,000
BEN: Yesterday,

5
00:00:07,000 --> 00:00:08,000
in the evening.
"""
ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:02.000
so<00:00:00.500><c> this</c><00:00:01.000><c> is</c>

00:00:02.000 --> 00:00:02.010
so this is

00:00:02.010 --> 00:00:04.000
so this is
the<00:00:02.500><c> first</c><00:00:03.000><c> part</c>
"""


def test_without_names_they_are_a_document(take):
    taken = take("film.srt", SRT)
    assert taken.format == "subtitles"
    assert taken.records[0]["text"] == "Good evening. We start now.\n- Really?\n- Yes.\n\nLater that day..."
    assert taken.records[0]["source"]["line"] == 2


@pytest.mark.parametrize("name, text", [("talk.vtt", VTT), ("talk", VTT.replace("\n", "\r\n"))])
def test_voices_of_web_video_text_tracks(take, name, text):
    taken = take(name, text)
    assert taken.talks == [
        [
            ("user", "Did you see it?"),
            ("assistant", "Yes & no. It was dark."),
            ("user", "Oh?"),
            ("assistant", "Yes."),
        ]
    ]
    assert [turn["name"] for turn in taken.records[0]["messages"]] == ["Anna Berg", "Ben"] * 2


def test_names_before_the_words(take):
    taken = take("talk.srt", NAMED)
    assert taken.talks == [
        [
            ("user", "Did you see it?"),
            ("assistant", "Yes."),
            ("user", "When?"),
            ("assistant", "Yesterday, in the evening."),
        ]
    ]
    assert taken.rules == {"sound": 1}


def test_rolling_captions_are_taken_once(take):
    assert take("video.vtt", ROLLING).records[0]["text"] == "so this is the first part"


def test_missing_blank_lines_and_hours(opened):
    text = "1\n100:00:01,5 --> 100:00:03,000\nOne.\n2\n100:00:04,000 --> 100:00:05,000\nTwo.\n"
    found = list(cues(opened("a.srt", text)))
    assert [(cue.line, cue.start, cue.voices) for cue in found] == [
        (2, 360_001.5, [("", "One.")]),
        (5, 360_004.0, [("", "Two.")]),
    ]


@pytest.mark.parametrize("text", ["a --> b\n", "12:00 --> 13:00 lunch\n", "Just text.\n"])
def test_what_is_none(opened, text):
    assert recognise_subtitles(opened("a.txt", text)) == 0


@settings(max_examples=40, deadline=None)
@given(
    text=st.sampled_from([SRT, VTT, NAMED, ROLLING]),
    cut=st.integers(0, 200),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
def test_damaged_subtitles(holds, text, cut, flips):
    content = bytearray(text.encode())
    for place, byte in flips:
        content[place % len(content)] = byte
    holds("a.srt", bytes(content[: len(content) - cut]))
