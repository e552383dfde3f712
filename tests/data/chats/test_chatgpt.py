"""ChatGPT's export: the kept branch, what nobody said, pictures, citations, the files beside it, damage."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.chats.chatgpt import recognise_chatgpt, talk_of
from ownchat.data.files import UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.talk import Turn


def said(role, *parts, kind="text", **fields):
    content = {"content_type": kind, "parts": list(parts)}
    return {
        "author": {"role": role, "name": None, "metadata": {}}, "create_time": 1700000000.5, "update_time": None,
        "content": content, "status": "finished_successfully", "end_turn": None, "weight": 1.0, "metadata": {},
        "recipient": "all", "channel": None,
    } | fields  # fmt: skip


def tree(*messages, title="Boilers", current=None, id="c-1"):
    """A conversation in which each message answers the one before; (parent, message) branches off."""
    mapping = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    last = "root"
    for number, message in enumerate(messages):
        key, parent = f"n{number}", last
        if isinstance(message, tuple):
            parent, message = message
        mapping[key] = {"id": key, "message": message and {"id": key, **message}, "parent": parent, "children": []}
        mapping[parent]["children"].append(key)
        last = key
    return {
        "title": title, "create_time": 1700000000.0, "update_time": 1700000900.0, "mapping": mapping,
        "moderation_results": [], "current_node": current or last, "conversation_id": id, "id": id,
    }  # fmt: skip


SIMPLE = tree(
    said("system", "", metadata={"is_visually_hidden_from_conversation": True}, weight=0.0),
    said("user", "How do I bleed a radiator?"),
    said("assistant", "Turn the key a quarter."),
)


def test_conversation(take):
    taken = take("conversations.json", [SIMPLE])
    assert taken.format == "chatgpt"
    assert taken.talks == [[("user", "How do I bleed a radiator?"), ("assistant", "Turn the key a quarter.")]]
    assert taken.records[0]["messages"][0]["time"] == "2023-11-14T22:13:20"
    assert taken.rules == {"hidden": 1}
    assert taken.reading.entered["message"] == 3


def test_the_branch_that_was_kept(take):
    edited = tree(
        said("user", "Hello?"),
        said("assistant", "Old answer"),
        ("n0", said("assistant", "New answer")),
        said("user", "Thanks"),
        said("assistant", "Welcome"),
        ("n1", said("user", "Never mind")),
        current="n4",
    )
    taken = take("conversations-000.json", [edited])
    assert [text for _, text in taken.talks[0]] == ["Hello?", "New answer", "Thanks", "Welcome"]
    assert taken.rules == {"other branch": 2}
    assert "conversation c-1, message n1" in next(one.detail for one in taken.entries if one.rule == "other branch")


@pytest.mark.parametrize("current", ["gone", None, 7])
def test_without_the_current_node_the_newest_message_ends_the_conversation(take, current):
    one = tree(said("user", "Hello?"), said("assistant", "Hi", create_time=1700000100.0))
    one["current_node"] = current
    assert take("conversations.json", [one]).talks == [[("user", "Hello?"), ("assistant", "Hi")]]


def test_a_ring_of_parents_ends(take):
    one = tree(said("user", "Hello?"), said("assistant", "Hi"))
    one["mapping"]["n0"]["parent"] = "n1"
    assert take("conversations.json", [one]).talks == [[("user", "Hello?"), ("assistant", "Hi")]]


@pytest.mark.parametrize(
    "message, rule",
    [
        (said("assistant", kind="thoughts") | {"content": {"content_type": "thoughts", "thoughts": []}}, "reasoning"),
        (said("assistant") | {"content": {"content_type": "reasoning_recap", "content": "8s"}}, "reasoning"),
        (said("assistant", '{"q": 1}', recipient="browser"), "tool call"),
        (said("assistant") | {"content": {"content_type": "code", "language": "python", "text": "1+1"},
                              "recipient": "python"}, "tool call"),
        (said("tool") | {"content": {"content_type": "execution_output", "text": "2"}}, "tool output"),
        (said("tool", {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_1"},
              kind="multimodal_text"), "tool output"),
        (said("tool") | {"content": {"content_type": "tether_quote", "url": "x", "text": "y"}}, "quoted page"),
        (said("user") | {"content": {"content_type": "user_editable_context", "user_profile": "I am Ada"}},
         "custom instructions"),
        (said("user", "secret", metadata={"is_visually_hidden_from_conversation": True}), "hidden"),
        (said("user", {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"},
              kind="multimodal_text"), "media"),
        (said("assistant", ""), "empty"),
        (said("critic", "x"), "unknown role"),
        (said("assistant", "draft", weight=0.0), "hidden"),
        ({"author": None}, "empty"),
    ],
)  # fmt: skip
def test_what_nobody_said(take, message, rule):
    taken = take("conversations.json", [tree(said("user", "Hello?"), message, said("assistant", "Hi"))])
    assert taken.talks == [[("user", "Hello?"), ("assistant", "Hi")]]
    assert taken.rules == {rule: 1}


def test_text_beside_pictures_and_speech_stays(take):
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_2"}
    speech = {"content_type": "audio_transcription", "text": "What is it?", "direction": "in"}
    taken = take("conversations.json", [tree(
        said("user", picture, "What plant is this?", kind="multimodal_text"), said("assistant", "A fern."),
        said("user", speech, {"content_type": "audio_asset_pointer"}, kind="multimodal_text"),
        said("assistant") | {"content": {"content_type": "code", "language": "sql", "text": "SELECT 1"}},
    )])  # fmt: skip
    assert [text for _, text in taken.talks[0]] == [
        "What plant is this?", "A fern.", "What is it?", "```sql\nSELECT 1\n```",
    ]  # fmt: skip
    assert taken.changes == {"image or sound left out of a message": 2}


@pytest.mark.parametrize("time", [None, 1700000000.5])
def test_without_current_node_the_longest_branch(take, time):
    talk = tree(said("user", "How long?", create_time=time), said("assistant", "Ten weeks.", create_time=time))
    del talk["current_node"]
    assert take("conversations.json", [talk]).talks == [[("user", "How long?"), ("assistant", "Ten weeks.")]]


def test_ids_of_messages_on_one_line(take):
    hidden = said("assistant", "x", kind="thoughts")
    messages = (hidden, said("user", "Hi"), hidden, said("assistant", "Yes"))
    taken = take("conversations.json", [tree(*messages, id=id) for id in "abc"])
    assert len({record["id"] for record in taken.records}) == 3
    ids = [entry.id for entry in taken.entries if entry.fate in ("dropped", "kept")]
    assert len(ids) == len(set(ids)) == 9


def test_citations_leave_no_space(take):
    answer = "Paris 【1†a】 now 【2†b】. Paris? 【3†c】【4†d】"
    taken = take("conversations.json", [tree(said("user", "Where?"), said("assistant", answer))])
    assert taken.talks[0][1] == ("assistant", "Paris now. Paris?")


def test_marks_of_citations(take):
    answer = 'Ten weeks 【12†source】. \ue200cite\ue202turn0search1\ue201In \ue200entity\ue202["city","Bern"]\ue201.'
    taken = take("conversations.json", [tree(said("user", "How long?"), said("assistant", answer))])
    assert taken.talks[0][1] == ("assistant", "Ten weeks. In Bern.")
    assert taken.changes == {"marks of citations taken out": 1}


def test_custom_instructions_that_are_shown_are_the_system_message(take):
    system = said("system", "Answer briefly.", metadata={"is_user_system_message": True})
    taken = take(
        "conversations.json", {"conversations": [tree(system, said("user", "Hm?"), said("assistant", "Yes."))]}
    )
    assert taken.talks == [[("system", "Answer briefly."), ("user", "Hm?"), ("assistant", "Yes.")]]


@pytest.mark.parametrize(
    "name, content, rule",
    [
        ("user.json", {"id": "user-1", "email": "ada@example.org", "chatgpt_plus_user": True}, "account data"),
        ("message_feedback.json", [{"id": "m", "conversation_id": "c", "user_id": "u", "rating": "thumbsUp",
                                    "content": "{}"}], "ratings without messages"),
        ("shared_conversations.json", [{"id": "s", "conversation_id": "c", "title": "T", "is_anonymous": True}],
         "links to conversations"),
        ("model_comparisons.json", [{"id": "x", "input": "y"}], "compared answers"),
        ("chat.html", '<html><script>var jsonData = [{"title": "T"}]</script></html>',
         "the same as conversations.json"),
    ],
)  # fmt: skip
def test_files_beside_are_put_aside(take, name, content, rule):
    taken = take(name, content)
    assert (taken.format, taken.records, taken.rules) == ("chatgpt", [], {rule: 1})


def test_not_an_export(opened):
    for content in ('[{"messages": []}]', '{"mapping": 3}', "user\n", '[{"id": 1, "rating": 5, "text": "good"}]'):
        assert recognise_chatgpt(opened("a.json", content)) == 0


def test_said_to_be_chatgpt_but_is_not(opened):
    from ownchat.config import DataConfig
    from ownchat.data.chats.chatgpt import read_chatgpt

    with pytest.raises(UnreadableFile, match="no conversations of ChatGPT"):
        read_chatgpt(opened("a.json", "[1]"), DataConfig())


def test_a_damaged_conversation_costs_only_itself(take):
    good = json.dumps(SIMPLE)
    before = ",".join(
        good.replace("c-1", f"c{number}") for number in range(250)
    )  # the damage lies behind the beginning that tells the format
    taken = take("conversations.json", f"[{before},\n{good[:300]} ?,\n{good}, 5]")
    assert len(taken.records) == 251
    assert taken.rules["invalid JSON"] >= 1 and taken.rules["not an object"] == 1


messages = st.builds(
    said, st.sampled_from(["user", "assistant", "system", "tool"]), st.text(max_size=20),
    kind=st.sampled_from(["text", "multimodal_text", "thoughts"]), recipient=st.sampled_from(["all", "python"]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.none() | messages, max_size=6), max_size=4), st.data())
def test_every_message_has_one_fate(items_of, holds, conversations, data):
    value = [tree({"author": {"role": "user"}}, *one) for one in conversations] or [tree(said("user", "x"))]
    for one in value:
        one["current_node"] = data.draw(st.sampled_from(list(one["mapping"])))
    items = items_of(talk_of, "c.json", value)
    there = [node["message"] for one in value for node in one["mapping"].values() if node["message"]]
    found = [item for item in items if isinstance(item, Turn) or item.unit == "message"]
    assert len(found) == len(there)
    holds("c.json", json.dumps(value).encode())
    texts = {part for message in there for part in message.get("content", {}).get("parts", ())}
    assert all(turn.text in texts for turn in found if not isinstance(turn, Entry) and "\ue200" not in turn.text)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_is_never_a_crash(holds, data):
    content = json.dumps([SIMPLE, SIMPLE]).encode()
    content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, max(0, len(content) - 1)))
        content = content[:place] + data.draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :]
    holds("conversations.json", content)
