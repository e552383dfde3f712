"""Logs of IRC in the forms that clients write; days without dates; what is no message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.chats.irc import recognise_irc, turns
from ownchat.data.ledger import Entry

SAID = [("ann", "how do I mount a disk?"), ("bob", "ann: with mount"), ("cid", "ann: or plug it in"), ("ann", "thanks")]

UBUNTU = """=== dan [n=dan@host.example] has joined #help
[23:58] <ann> how do I mount a disk?
[23:58] <bob> ann: with mount
[00:01] <cid> ann: or plug it in
=== dan is now known as danny
[00:01] <ann> thanks
"""
IRSSI = """--- Log opened Thu Jan 02 23:50:00 2020
23:58 -!- dan [~dan@host.example] has joined #help
23:58 <@ann> how do I mount a disk?
23:58 < bob> ann: with mount
--- Day changed Fri Jan 03 2020
00:01 <+cid> ann: or plug it in
00:01 < ann> thanks
--- Log closed Fri Jan 03 00:05:00 2020
"""
WEECHAT = """2020-01-02 23:58:00\t-->\tdan (~dan@host.example) has joined #help
2020-01-02 23:58:01\t@ann\thow do I mount a disk?
2020-01-02 23:58:30\tbob\tann: with mount
2020-01-03 00:01:00\t+cid\tann: or plug it in
2020-01-03 00:01:10\t--\tdan is now known as danny
2020-01-03 00:01:59\tann\tthanks
"""
ENERGYMECH = """[23:58:00] *** Joins: dan (dan@host.example)
[23:58:01] <ann> how do I mount a disk?
[23:58:30] <bob> ann: with mount
[00:01:00] <cid> ann: or plug it in
[00:01:59] <ann> thanks
[00:02:00] *** Quits: dan (dan@host.example) (bye)
"""
HEXCHAT = """**** BEGIN LOGGING AT Thu Jan  2 23:50:00 2020

Jan 02 23:58:00 *\tdan (~dan@host.example) has joined
Jan 02 23:58:01 <ann>\thow do I mount a disk?
Jan 02 23:58:30 <bob>\tann: with mount
Jan 03 00:01:00 <cid>\tann: or plug it in
Jan 03 00:01:59 <ann>\tthanks
**** ENDING LOGGING AT Fri Jan  3 00:05:00 2020
"""
DATED = """help 2020-01-02 [23:58:01] <ann>\t how do I mount a disk?
help 2020-01-02 [23:58:30] <bob>\t ann: with mount
help 2020-01-02 === dan is now known as danny
help 2020-01-03 [00:01:00] <cid>\t ann: or plug it in
help 2020-01-03 [00:01:59] <ann>\t thanks
"""
ISO = """2020-01-02T23:58:01+00:00 <ann> how do I mount a disk?
2020-01-02T23:58:30+00:00 <bob> ann: with mount
2020-01-03T00:01:00+00:00 <cid> ann: or plug it in
2020-01-03T00:01:59+00:00 <ann> thanks
"""
LOGS = [UBUNTU, IRSSI, WEECHAT, ENERGYMECH, HEXCHAT, DATED, ISO]


@pytest.mark.parametrize("log", LOGS)
def test_the_forms_of_clients(opened, log):
    file = opened("help.log", log)
    assert recognise_irc(file) > 0.9
    items = list(turns(file))
    said = [item for item in items if not isinstance(item, Entry)]
    said = [turn for turn in said if not turn.text.startswith("* dan")]  # HexChat writes joins as actions
    assert [(turn.speaker, turn.text) for turn in said] == SAID
    assert [said[n + 1].time - said[n].time < 300 for n in range(3)] == [True] * 3
    assert {item.rule for item in items if isinstance(item, Entry)} <= {"server"}


@pytest.mark.parametrize("log", [IRSSI, WEECHAT, HEXCHAT, DATED, ISO])
def test_dates_are_known(take, log):
    [record] = take("help.log", log).records
    assert record["messages"][0]["time"][:16] == "2020-01-02T23:58"


def test_the_name_of_the_file_may_tell_the_date(take):
    [record] = take("#help.2020-01-02.log", UBUNTU).records
    assert [turn["time"] for turn in record["messages"]][-1] == "2020-01-03T00:01:00"
    [record] = take("help.log", UBUNTU).records
    assert record["messages"][0]["time"] is None


def test_a_channel_becomes_conversations(take):
    taken = take("help.log", UBUNTU)
    assert taken.format == "irc" and taken.rules == {"server": 2}
    assert taken.talks == [
        [
            ("user", "how do I mount a disk?"),
            ("assistant", "ann: with mount\nann: or plug it in"),
            ("user", "thanks"),
        ]
    ]
    assert taken.records[0]["tags"] == ["crowd"] and taken.records[0]["source"]["line"] == 2


def test_two_people_are_a_talk_of_two(take):
    log = "12:01 <ann> is it late?\n12:02 <bob> yes\n12:03 * bob looks at the clock\n12:04 <ann> why?\n12:05 <bob> so\n"
    taken = take("query.log", log)
    assert taken.talks == [
        [("user", "is it late?"), ("assistant", "yes\n* bob looks at the clock"), ("user", "why?"), ("assistant", "so")]
    ]
    assert taken.records[0]["tags"] == []


def test_a_clock_of_twelve_hours(opened):
    log = "[11:58] <ann> one\n[12:59] <bob> two\n[01:00] <ann> three\n[11:59] <bob> four\n[12:01] <ann> five\n"
    times = [turn.time for turn in turns(opened("a.log", log))]
    assert times[2] - times[1] == 60 and times[4] - times[0] == 12 * 3600 + 180


def test_colours_broken_lines_and_odd_nicks(opened):
    log = (
        "[12:00] <bur[n] er> \x02bold\x02 and \x0304,01red\x03\n"
        "went on here\n"
        "\n"
        "[12:01] <`ann|away> yes\n"
        "[12:02] (ann/#help) from elsewhere\n"
        "[12:03] *ann waves\n"
    )
    items = list(turns(opened("a.log", log)))
    said = [(item.speaker, item.text) for item in items if not isinstance(item, Entry)]
    assert said == [("bur[n]er", "bold and red\nwent on here"), ("`ann|away", "yes"), ("ann", "* ann waves")]
    assert [(item.rule, item.detail) for item in items if isinstance(item, Entry)] == [
        ("no nick", "a.log, line 5: [12:02] (ann/#help) from elsewhere")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<p>Some text</p>\n<p>More text</p>\n<b>bold</b> word\n<p>Some text</p>\n",
        "* one item\n* another item\n* a third\n",
        "12:00 lunch\n13:00 talk\n14:00 home\n",
        "12/05/2020, 14:03 - Anna: Hi\n12/05/2020, 14:04 - Ben: Hello\n",
        "a\tb\tc\n1\t2\t3\n",
    ],
)
def test_what_is_no_log(opened, text):
    assert recognise_irc(opened("a.txt", text)) == 0


@settings(max_examples=40, deadline=None)
@given(
    log=st.sampled_from(LOGS),
    cut=st.integers(0, 300),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
def test_damaged_logs(holds, log, cut, flips):
    content = bytearray(log.encode())
    for place, byte in flips:
        content[place % len(content)] = byte
    holds("a.log", bytes(content[: len(content) - cut]))
