"""Discord: DiscordChatExporter's JSON, bots, replies, marks; and why the official package is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.chats.discord import recognise_discord, talk_of
from ownchat.data.files import UnreadableFile
from ownchat.data.readers import read
from ownchat.data.talk import Turn


def user(id, name, bot=False):
    return {"id": id, "name": name.lower(), "discriminator": "0000", "nickname": name, "color": None, "isBot": bot,
            "roles": [], "avatarUrl": "https://cdn.example.org/0.png"}  # fmt: skip


ADA, BEN, BOT = user("1", "Ada"), user("2", "Ben"), user("3", "Helper", bot=True)


def said(id, author, content, **fields):
    return {
        "id": id, "type": "Default", "timestamp": f"2023-05-01T10:{int(id):02}:00+00:00", "timestampEdited": None,
        "callEndedTimestamp": None, "isPinned": False, "content": content, "author": author, "attachments": [],
        "embeds": [], "stickers": [], "reactions": [], "mentions": [], "inlineEmojis": [],
    } | fields  # fmt: skip


def channel(*messages, kind="GuildTextChat"):
    return {
        "guild": {"id": "9", "name": "Garden", "iconUrl": "https://cdn.example.org/i.png"},
        "channel": {"id": "7", "type": kind, "categoryId": "8", "category": "Text", "name": "help", "topic": None},
        "dateRange": {"after": None, "before": None}, "exportedAt": "2023-06-01T00:00:00+00:00",
        "messages": list(messages), "messageCount": len(messages),
    }  # fmt: skip


def test_channel(take):
    taken = take("Garden - help [7].json", channel(
        said("1", ADA, "", type="GuildMemberJoin"),
        said("2", ADA, "How deep do I plant tulips?"),
        said("3", BEN, "Three bulbs deep.", type="Reply", reference={"messageId": "2", "channelId": "7"}),
        said("4", ADA, "", attachments=[{"id": "5", "fileName": "bed.png"}]),
    ))  # fmt: skip
    assert taken.format == "discord"
    assert taken.talks == [[("user", "How deep do I plant tulips?"), ("assistant", "Three bulbs deep.")]]
    assert taken.rules == {"system line": 1, "media": 1}
    assert taken.reading.understood == 'Discord, channel "help" of Garden'
    assert taken.records[0]["messages"][1]["time"] == "2023-05-01T10:03:00"


def test_turns_know_what_they_reply_to(items_of):
    one = said("3", BEN, "Three.", type="Reply", reference={"messageId": "2"})
    turn = items_of(talk_of, "a.json", channel(one))[0]
    assert (turn.speaker, turn.name, turn.id, turn.reply_to, turn.thread) == ("2", "Ben", "3", "2", "7")
    assert not turn.answer


def test_a_bot_in_a_direct_chat_answers(take):
    card = {
        "title": "Opening hours",
        "url": None,
        "description": "Every day",
        "fields": [{"name": "Sun", "value": "no"}],
    }
    taken = take("a.json", channel(said("1", ADA, "Open?"), said("2", BOT, "", embeds=[card]), kind="DirectTextChat"))
    assert taken.talks == [[("user", "Open?"), ("assistant", "Opening hours\nEvery day\nSun: no")]]


def test_marks_become_names(take):
    taken = take("a.json", channel(
        said("1", ADA, "Hi <@!2> <a:wave:123> <@99>", mentions=[BEN]),
        said("2", BEN, "Hi, see bed.png", attachments=[{"fileName": "bed.png"}]), kind="DirectTextChat",
    ))  # fmt: skip
    assert taken.talks[0][0] == ("user", "Hi @Ben :wave: @99")
    assert taken.changes == {"file left out of a message": 1}


@pytest.mark.parametrize(
    "name, content",
    [
        ("messages.json", [{"ID": 1, "Timestamp": "2023-05-01 10:00:00", "Contents": "hi", "Attachments": ""}]),
        ("messages.csv", "ID,Timestamp,Contents,Attachments\n1,2023-05-01 10:00:00.000000+00:00,hi,\n"),
    ],
)
def test_the_official_package_holds_one_side(opened, name, content):
    with pytest.raises(UnreadableFile, match="only what you said yourself"):
        read(opened(f"package/messages/c7/{name}", content), DataConfig())


def test_not_an_export(opened):
    for content in ('{"guild": 1, "messages": []}', '{"messages": []}', "guild\n"):
        assert recognise_discord(opened("a.json", content)) == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([ADA, BEN, BOT, None]), st.text(max_size=9),
                          st.sampled_from(["Default", "Reply", "Call", "21"])), max_size=9), st.data())  # fmt: skip
def test_every_message_has_one_fate(items_of, holds, rows, data):
    value = channel(*(said(str(n), author, text, type=kind) for n, (author, text, kind) in enumerate(rows)))
    items = items_of(talk_of, "a.json", value)
    assert len(items) == len(rows)
    turns = [item.text for item in items if isinstance(item, Turn)]
    assert turns == [text for author, text, kind in rows if author and text.strip() and kind in ("Default", "Reply")]
    content = json.dumps(value, indent=2).encode()
    holds("a.json", content[: data.draw(st.integers(0, len(content)))])
    place = data.draw(st.integers(0, len(content) - 1))
    holds("a.json", content[:place] + data.draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :])


def test_a_thread_is_one_conversation(take):
    turns = [said("2", ADA, "Any tulips?"), said("3", BEN, "Three."), said("4", ADA, "Where do the pumps stand?"),
             said("5", BEN, "In the cellar.")]  # fmt: skip
    assert len(take("a.json", channel(*turns, kind="GuildPublicThread")).talks) == 1
