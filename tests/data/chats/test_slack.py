"""Slack's export: a workspace read as one, names for ids, mrkdwn, threads, bots, files without messages, damage."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.chats.slack import plain_text, read_slack_export, recognise_slack
from ownchat.data.files import UnreadableFile, open_file
from ownchat.data.ledger import FATES, Entry
from ownchat.data.readers import FORMATS, detect

USERS = [
    {"id": "U1", "team_id": "T1", "name": "ada", "deleted": False, "is_bot": False,
     "profile": {"real_name": "Ada Berg", "display_name": "ada"}},
    {"id": "U2", "team_id": "T1", "name": "bo", "deleted": False, "is_bot": False,
     "profile": {"real_name": "Bo Lind", "display_name": ""}},
    {"id": "U3", "team_id": "T1", "name": "desk", "deleted": False, "is_bot": True, "profile": {"real_name": "Desk"}},
]  # fmt: skip
CHANNELS = [
    {"id": "C1", "name": "general", "created": 1, "creator": "U1", "is_archived": False, "members": ["U1", "U2"]}
]
DMS = [{"id": "D01234567", "created": 1, "members": ["U1", "U3"]}]


def said(user, text, second, **fields):
    return {"user": user, "type": "message", "ts": f"{1683000000 + second}.000100", "client_msg_id": "x", "text": text,
            "team": "T1"} | fields  # fmt: skip


PAIR = [said("U1", "Where?", 1), said("U2", "Here.", 2, thread_ts="1683000001.000100")]
EXPORT = {
    "users.json": USERS,
    "channels.json": CHANNELS,
    "groups.json": [],
    "dms.json": DMS,
    "integration_logs.json": [{"user_id": "U1", "service_type": "Desk", "change_type": "added", "date": "1683000000"}],
    "general/2023-05-01.json": [
        said("U2", "<@U2> has joined the channel", 0, subtype="channel_join"),
        said("U1", "Where is the <https://wiki.example.org/vpn|VPN guide>?", 10, thread_ts="1683000010.000100"),
        said("U2", "In <#C1|general> &amp; on the wiki, <@U1>", 20, thread_ts="1683000010.000100"),
    ],
    "general/2023-05-02.json": [],
    "D01234567/2023-05-01.json": [said("U1", "reset my token", 30), said("U3", "Done &lt;new token sent&gt;", 31)],
}


@pytest.fixture
def workspace(tmp_path):
    """``workspace(export, under)``: the files of an export as one reading."""

    def read(export, under=""):
        files = []
        for name, value in export.items():
            path = tmp_path / (under + name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value if isinstance(value, str) else json.dumps(value))
            files.append(open_file(path, under + name))
        assert {detect(file)[0].name for file in files} == {"slack"}
        assert FORMATS["slack"].together is read_slack_export
        reading = read_slack_export(files, DataConfig())
        items = list(reading.rows)
        entries = [item for item in items if isinstance(item, Entry)]
        fates = [one for one in entries if one.unit == "message" and one.fate in FATES]
        assert reading.entered["message"] + sum(one.makes for one in fates) == sum(one.count for one in fates)
        records = [item for item in items if not isinstance(item, Entry)]
        return reading, records, entries

    return read


def talks(records):
    return [[(turn["role"], turn["content"]) for turn in record["messages"]] for record in records]


@pytest.mark.parametrize("under", ["", "Acme export.zip/"])
def test_workspace(workspace, under):
    reading, records, entries = workspace(EXPORT, under)
    assert talks(records) == [
        [("user", "Where is the VPN guide (https://wiki.example.org/vpn)?"),
         ("assistant", "In #general & on the wiki, @ada")],
        [("user", "reset my token"), ("assistant", "Done <new token sent>")],
    ]  # fmt: skip
    assert [record["messages"][1]["name"] for record in records] == ["Bo Lind", "Desk"]
    assert records[0]["source"]["file"] == f"{under}general/2023-05-01.json"
    rules = [one.rule for one in entries if one.fate == "dropped"]
    assert sorted(rules) == ["beside the messages", "system line"]
    assert reading.understood == "Slack, 1 channel; Slack, 1 direct chat"


def test_two_workspaces_do_not_mix(workspace):
    other = {f"b/{name}": value for name, value in EXPORT.items()}
    other["b/users.json"] = [USERS[0] | {"profile": {"display_name": "alma"}}, *USERS[1:]]
    _, records, _ = workspace({f"a/{name}": value for name, value in EXPORT.items()} | other)
    assert {turn["content"].rpartition("@")[2] for record in records for turn in record["messages"] if "@" in
            turn["content"]} == {"ada", "alma"}  # fmt: skip


def test_a_thread_is_closed(workspace):
    day = [
        said("U1", "How do I reset my token?", 0, thread_ts="1683000000.000100"),
        said("U2", "Press reset.", 100, thread_ts="1683000000.000100"),
        said("U3", "Unrelated: who comes to lunch?", 300),
        said("U2", "yes at noon", 310),
    ]
    _, records, _ = workspace({"help/2023-05-01.json": day})
    assert talks(records)[0] == [("user", "How do I reset my token?"), ("assistant", "Press reset.")]


def test_a_bot_answers_in_its_chat_and_people_in_the_others(workspace):
    days = {"D01234567/2023-05-01.json": [said("U1", "reset my token", 30), said("U3", "Done", 31)],
            "D01234568/2023-05-01.json": [said("U1", "Lunch?", 30), said("U2", "Yes", 31)]}  # fmt: skip
    reading, records, _ = workspace({"users.json": USERS} | days)
    assert talks(records) == [
        [("user", "reset my token"), ("assistant", "Done")],
        [("user", "Lunch?"), ("assistant", "Yes")],
    ]
    assert 'assistant: "Desk" (the format says so' in reading.notes[0]


def test_a_day_by_itself(take):
    profile = {"real_name": "Bo Lind", "display_name": "bo"}
    taken = take("2023-05-01.json", [*PAIR[:1], PAIR[1] | {"text": "Here, <@U1>.", "user_profile": profile}])
    assert taken.format == "slack"
    assert taken.talks == [[("user", "Where?"), ("assistant", "Here, @U1.")]]
    assert taken.records[0]["messages"][1]["name"] == "bo"


@pytest.mark.parametrize(
    "message, rule",
    [
        (said("U1", "set the topic", 3, subtype="channel_topic"), "system line"),
        (said("U1", "This message was deleted.", 3, subtype="tombstone", hidden=True), "deleted message"),
        (said("U1", "", 3, files=[{"id": "F1", "name": "a.png"}], upload=True), "media"),
        (said("U1", "", 3), "empty"),
        (said("", "x", 3), "no speaker"),
        (said("U1", "a huddle", 3, subtype="huddle_thread"), "system line"),
    ],
)
def test_what_is_no_turn(take, message, rule):
    taken = take("2023-05-01.json", [*PAIR, message])
    assert len(taken.talks[0]) == 2 and taken.rules == {rule: 1}


def test_bots_and_cards(take):
    card = {"fallback": "plain", "pretext": "Build 7", "title": "failed", "text": "3 tests"}
    bot = {"type": "message", "subtype": "bot_message", "ts": "1683000001.000100", "thread_ts": "1683000001.000100",
           "text": "", "bot_id": "B1",
           "username": "ci", "attachments": [card]}  # fmt: skip
    rich = {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
        {"type": "text", "text": "Looking"}, {"type": "emoji", "name": "eyes"}, {"type": "text", "text": "now"},
    ]}]}  # fmt: skip
    taken = take("2023-05-01.json", [bot, said("U2", "", 2, blocks=[rich], thread_ts="1683000001.000100")])
    assert [text for _, text in taken.talks[0]] == ["Build 7\nfailed\n3 tests", "Looking now"]


def test_replies_name_their_thread(opened):
    from ownchat.data.chats.slack import _Workspace, talks_of

    file = opened("general/2023-05-01.json", [
        said("U1", "Q", 1, thread_ts="1683000001.000100"), said("U2", "A", 9, thread_ts="1683000001.000100"),
    ])  # fmt: skip
    (talk,) = talks_of("", _Workspace(days={"general": [file]}))
    assert [(turn.thread, turn.reply_to) for turn in talk.turns()] == [
        ("general", ""),
        ("general", "1683000001.000100"),
    ]
    assert talk.crowd


@pytest.mark.parametrize(
    "text, plain",
    [
        ("<@U9|cy> and <@U8>", "@cy and @U8"),
        ("<!here> <!subteam^S1|@ops> <!date^1392734382^{date}|18 February>", "@here @ops 18 February"),
        ("<mailto:a@example.org|a@example.org> <https://a.org>", "a@example.org https://a.org"),
        ("<https://a.org/|a.org> 1 &lt; 2 &amp;amp;", "https://a.org/ 1 < 2 &amp;"),
        ("a < b > c", "a < b > c"),
    ],
)
def test_mrkdwn(text, plain):
    assert plain_text(text, {}) == plain


def test_lists_without_days(opened):
    with pytest.raises(UnreadableFile, match="without the days"):
        read_slack_export([opened("users.json", USERS)], DataConfig())


def test_not_an_export(opened):
    for name, content in [("a.json", '[{"type": "x", "ts": 1}]'), ("users.json", '[{"id": 1}]'), ("b.json", "[]")]:
        assert recognise_slack(opened(name, content)) == 0


messages = st.builds(said, st.sampled_from(["U1", "U2", ""]), st.text(max_size=9), st.integers(0, 99),
                     subtype=st.sampled_from([None, "channel_join", "bot_message", "tombstone"]))  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(messages, max_size=4), min_size=1, max_size=3), st.data())
def test_every_message_has_one_fate(days, data):
    with tempfile.TemporaryDirectory() as folder:
        files, damaged = [], []
        for number, day in enumerate(days):
            for name, cut in (("a", False), ("b", True)):
                content = json.dumps(day, indent=1).encode()
                if cut:
                    place = data.draw(st.integers(0, len(content) - 1))
                    content = content[:place] + data.draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :]
                path = Path(folder) / f"{name}{number}.json"
                path.write_bytes(content)
                try:
                    file = open_file(path, f"{name}/2023-05-0{number + 1}.json")
                except UnreadableFile:
                    continue
                (damaged if cut else files).append(file)
        reading = read_slack_export(files, DataConfig())
        rows = [item for item in reading.rows if isinstance(item, Entry) and item.unit == "message"]
        assert reading.entered["message"] == sum(map(len, days))
        assert sum(one.count - one.makes for one in rows if one.fate in FATES) == sum(map(len, days))
        if damaged:
            with suppress(UnreadableFile):
                list(read_slack_export(damaged, DataConfig()).rows)
