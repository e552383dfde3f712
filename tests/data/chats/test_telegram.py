"""Telegram Desktop's JSON: one chat, the whole account, groups, notes to oneself, marked text, damage."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.chats.telegram import read_telegram, recognise_telegram, talks_of
from ownchat.data.files import UnreadableFile
from ownchat.data.talk import Turn

ME, MARA = ("Ivo", "user10"), ("Mara", "user20")


def said(id, who, text, **fields):
    return {
        "id": id, "type": "message", "date": f"2023-05-01T10:{id % 60:02}:00",
        "date_unixtime": str(1682935200 + 60 * id), "from": who[0], "from_id": who[1], "text": text,
        "text_entities": [{"type": "plain", "text": text}] if isinstance(text, str) else text,
    } | fields  # fmt: skip


def chat(*messages, kind="personal_chat", name="Mara", id=20):
    return {"name": name, "type": kind, "id": id, "messages": list(messages)}


def account(*chats, left=()):
    return {
        "about": "Here is the data you requested.",
        "personal_information": {"user_id": 10, "first_name": "Ivo", "last_name": "", "bio": ""},
        "contacts": {"about": "", "list": []},
        "chats": {"about": "This page lists all chats.", "list": list(chats)},
        "left_chats": {"about": "", "list": list(left)},
    }


PAIR = (said(1, MARA, "Is the bike ready?"), said(2, ME, "Yes, come by."))


def test_one_chat(take):
    service = {
        "id": 0,
        "type": "service",
        "date": "2023-05-01T09:00:00",
        "actor": "Ivo",
        "action": "phone_call",
        "text": "",
    }
    taken = take("result.json", chat(service, *PAIR, said(3, MARA, "", photo="photos/1.jpg"),
                                     said(4, MARA, "This one", photo="photos/2.jpg"), said(5, ME, "Nice")))  # fmt: skip
    assert taken.format == "telegram"
    assert [text for _, text in taken.talks[0]] == ["Is the bike ready?", "Yes, come by.", "This one", "Nice"]
    assert taken.rules == {"system line": 1, "media": 1}
    assert taken.changes == {"file left out of a message": 1}
    assert 'assistant: "Ivo" (the chat is with "Mara"' in taken.reading.notes[0]
    assert taken.records[0]["messages"][0]["time"] == "2023-05-01T10:01:00"


def test_whole_account(take):
    many = [said(n, (name, f"user{n}0"), "Morning") for n, name in enumerate(("Pim", "Quy", "Rut", "Sev"), 60)]
    group = chat(said(1, MARA, "Who has a pump?"), said(2, ("Olu", "user30"), "Me!", reply_to_message_id=1), *many,
                 kind="private_supergroup", name="Ride", id=77)  # fmt: skip
    notes = chat(said(1, ME, "buy tubes"), kind="saved_messages", name=None, id=10)
    left = chat(said(1, ("Zoe", "user40"), "Bye?"), said(2, ME, "Bye."), name="Zoe", id=40)
    taken = take("result.json", account(chat(*PAIR), group, notes, left=[left]))
    assert taken.talks == [
        [("user", "Is the bike ready?"), ("assistant", "Yes, come by.")],
        [("user", "Bye?"), ("assistant", "Bye.")],
        [("user", "Who has a pump?"), ("assistant", "Me!")],
    ]
    assert taken.rules["note to oneself"] == 1
    assert taken.reading.entered["message"] == 11
    assert "the account that was exported" in taken.reading.notes[0]
    assert [record["tags"] for record in taken.records] == [[], [], ["crowd"]]


def test_owner_of_exports_until_2021_is_a_number(take):
    old = account(chat(said(1, ("Mara", 20), "Ready?"), said(2, ("Ivo", 10), "Yes.")))
    assert take("result.json", old).talks == [[("user", "Ready?"), ("assistant", "Yes.")]]


def test_a_bot_answers(take):
    bot = ("HelpBot", "user50")
    talk = chat(said(1, ME, "/start"), said(2, bot, "Hello, how can I help?"), kind="bot_chat", name="HelpBot", id=50)
    assert take("result.json", account(talk)).talks == [[("user", "/start"), ("assistant", "Hello, how can I help?")]]


def test_marked_text(take):
    text = ["Read ", {"type": "bold", "text": "this"}, ": ",
            {"type": "text_link", "text": "page", "href": "https://a.org"},
            " or ", {"type": "link", "text": "https://b.org"}]  # fmt: skip
    taken = take("result.json", chat(said(1, MARA, "Where?"), said(2, ME, text)))
    assert taken.talks[0][1] == ("assistant", "Read this: page (https://a.org) or https://b.org")


@pytest.mark.parametrize(
    "message, rule",
    [
        (said(3, MARA, "", poll={"question": "When?", "answers": []}), "poll"),
        (said(3, MARA, "News!", forwarded_from="Paper"), "forwarded"),
        (said(3, MARA, "", media_type="sticker", sticker_emoji="🙂"), "media"),
        (said(3, MARA, ""), "empty"),
        (said(3, (None, None), "x"), "no speaker"),
        (said(3, MARA, "", type="unsupported"), "unsupported message"),
    ],
)
def test_what_is_no_turn(take, message, rule):
    taken = take("result.json", chat(*PAIR, message))
    assert len(taken.talks[0]) == 2 and taken.rules == {rule: 1}


def test_a_bot_answers_in_its_chat_and_the_account_in_the_others(take):
    bot = ("HelpBot", "user50")
    asked = chat(said(1, ME, "/start"), said(2, bot, "How can I help?"), kind="bot_chat", name="HelpBot", id=50)
    alone = chat(said(1, ME, "/stop"), kind="bot_chat", name="HelpBot", id=51)
    taken = take("result.json", account(asked, alone, chat(*PAIR)))
    assert taken.talks == [
        [("user", "/start"), ("assistant", "How can I help?")],
        [("user", "Is the bike ready?"), ("assistant", "Yes, come by.")],
    ]
    assert 'in the other chats, assistant: "Ivo"' in taken.reading.notes[1]


def test_an_office_answers_in_its_chat_and_the_account_in_the_others(take):
    shop = ("Acme Support", "user60")
    many = [said(2 * n + i, who, "So?") for n in range(20) for i, who in enumerate((MARA, ME))]
    asked = chat(said(1, ME, "Where is it?"), said(2, shop, "On its way."), name="Acme Support", id=60)
    taken = take("result.json", account(asked, chat(*many)))
    names = [{turn["name"] for turn in one["messages"] if turn["role"] == "assistant"} for one in taken.records]
    assert names == [{"Acme Support"}, {"Ivo"}]


@pytest.mark.parametrize("whole", [True, False])
def test_posts_of_a_channel_are_documents(take, whole):
    news = ("Bike News", "channel70")
    posts = [said(1, news, "The path is open."), said(2, news, "", photo="1.jpg"), said(3, news, "Closed again."),
             said(4, news, "Open.", date_unixtime="1685700000")]  # fmt: skip
    channel = chat(*posts, kind="public_channel", name="Bike News", id=70)
    taken = take("result.json", account(channel, chat(*PAIR)) if whole else channel)
    documents = [one for one in taken.records if one["kind"] == "document"]
    assert [one["text"] for one in documents] == ["The path is open.\n\nClosed again.\n", "Open.\n"]
    assert [one["tags"] for one in documents] == [["posts"], ["posts"]]
    assert len(taken.records) == 2 + whole
    assert taken.rules == {"media": 1}
    assert taken.reading.notes[-1].startswith("1 channel in which one voice posts")


def test_messages_of_one_line_have_ids_of_their_own(take):
    lost = [said(n, MARA, "", photo="1.jpg") for n in range(3)]
    crowd = [said(n, (f"P{n}", f"user{n}0"), "") for n in range(2, 9)]
    group = chat(*crowd, kind="private_supergroup", name="Ride", id=77)
    taken = take("result.json", account(chat(*PAIR, *lost), chat(*PAIR, id=21), group))
    ids = [entry.id for entry in taken.entries if entry.fate == "dropped"]
    assert len(ids) == len(set(ids)) == 10
    assert len({record["id"] for record in taken.records}) == 2


def test_long_lists_before_the_chats(take):
    long = account(chat(*PAIR))
    long["contacts"]["list"] = [{"first_name": f"Person {number}", "phone_number": "0" * 20} for number in range(6000)]
    assert len(take("result.json", long).talks) == 1


def test_without_a_message(opened):
    with pytest.raises(UnreadableFile, match="no message in this export"):
        read_telegram(opened("result.json", account()), DataConfig())


def test_not_an_export(opened):
    for content in ('{"messages": [{"role": "user"}], "type": "x"}', '{"chats": [1]}', '[{"id": 1}]'):
        assert recognise_telegram(opened("a.json", content)) == 0


rows = st.lists(st.tuples(st.sampled_from([ME, MARA, ("Olu", "user30")]), st.text(max_size=9),
                          st.sampled_from(["message", "service"])), max_size=5)  # fmt: skip
kinds = st.sampled_from(["personal_chat", "private_group", "saved_messages", "public_channel", "bot_chat"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(kinds, rows), min_size=1, max_size=4), st.data())
def test_every_message_has_one_fate(items_of, holds, chats, data):
    value = account(*(
        chat(*(said(n, who, text, type=kind) for n, (who, text, kind) in enumerate(turns)), kind=sort, id=50 + place)
        for place, (sort, turns) in enumerate(chats)
    ))  # fmt: skip
    content = json.dumps(value, indent=1).encode()
    holds("result.json", content[: data.draw(st.integers(0, len(content)))])
    place = data.draw(st.integers(0, len(content) - 1))
    holds("result.json", content[:place] + data.draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :])
    expected = [(kind, turns) for kind, turns in chats
                if turns and not (kind == "public_channel" and len({who for who, _, _ in turns}) == 1)]  # fmt: skip
    if not expected:
        return
    both = items_of(lambda file: _All(talks_of(file)), "result.json", value)
    assert len(both) == sum(len(turns) for _, turns in expected)
    said_there = [text for kind, turns in expected for _, text, sort in turns
                  if kind != "saved_messages" and sort == "message" and text.strip()]  # fmt: skip
    assert sorted(item.text for item in both if isinstance(item, Turn)) == sorted(said_there)


class _All:
    def __init__(self, talks):
        self.talks = talks

    def turns(self):
        return [item for talk in self.talks for item in talk.turns()]
