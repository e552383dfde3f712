"""Claude's export: blocks, attachments, branches, projects and what lies beside them, damage."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.chats.claude import recognise_claude, talk_of
from ownchat.data.talk import Turn

ROOT = "00000000-0000-4000-8000-000000000000"


def said(sender, *blocks, text="", **fields):
    content = [
        {"type": "text", "text": block, "citations": []} if isinstance(block, str) else block for block in blocks
    ]
    return {
        "uuid": f"m-{sender}-{len(str(blocks))}", "text": text, "content": content, "sender": sender,
        "created_at": "2024-05-01T10:00:00.123456Z", "updated_at": "2024-05-01T10:00:00.123456Z", "attachments": [],
        "files": [],
    } | fields  # fmt: skip


def talk(*messages, **fields):
    return {
        "uuid": "c-1", "name": "Roof", "summary": "", "created_at": "2024-05-01T09:59:00.000000Z",
        "updated_at": "2024-05-01T11:00:00.000000Z", "account": {"uuid": "a-1"}, "chat_messages": list(messages),
    } | fields  # fmt: skip


SIMPLE = talk(said("human", "Slate or tile?"), said("assistant", "Slate lasts longer."))


def test_conversation(take):
    taken = take("conversations.json", [SIMPLE])
    assert taken.format == "claude"
    assert taken.talks == [[("user", "Slate or tile?"), ("assistant", "Slate lasts longer.")]]
    assert taken.records[0]["messages"][0]["time"] == "2024-05-01T10:00:00"


def test_exports_before_there_were_blocks(take):
    old = talk(said("human", text="Slate or tile?", content=[]), said("assistant", text="Slate."))
    del old["chat_messages"][1]["content"]
    assert take("conversations.json", [old]).talks == [[("user", "Slate or tile?"), ("assistant", "Slate.")]]


def test_reasoning_and_tools_are_left_out(take):
    thinking = {"type": "thinking", "thinking": "Hm.", "summaries": []}
    call = {"type": "tool_use", "name": "web_search", "input": {"query": "slate"}}
    result = {"type": "tool_result", "name": "web_search", "content": [{"type": "text", "text": "a page"}]}
    taken = take("conversations.json", [talk(
        said("human", "Price?"), said("assistant", thinking, "Let me look.", call, result, "About 90."),
        said("human", "Thanks"), said("assistant", call), said("assistant", "Welcome"),
    )])  # fmt: skip
    assert [text for _, text in taken.talks[0]] == ["Price?", "Let me look.\n\nAbout 90.", "Thanks", "Welcome"]
    assert taken.rules == {"tool call": 1}
    assert taken.changes == {f"{kind} left out of a message": 1 for kind in ("reasoning", "tool call", "tool output")}


def test_attached_text_is_part_of_the_question(take):
    attached = [{"file_name": "offer.txt", "file_size": 9, "file_type": "txt", "extracted_content": "90 per m2"},
                {"file_name": "", "extracted_content": "and pasted"}]  # fmt: skip
    taken = take("conversations.json", [talk(
        said("human", "Fair?", attachments=attached, files=[{"file_name": "roof.png"}]), said("assistant", "Yes."),
        said("human", files=[{"file_name": "wall.png"}]), said("assistant", ""),
    )])  # fmt: skip
    assert taken.talks[0][0] == ("user", "Fair?\n\noffer.txt:\n90 per m2\n\nand pasted")
    assert taken.rules == {"media": 1, "empty": 1}
    assert taken.changes == {"file left out of a message": 1}


@pytest.mark.parametrize("leaf", [{"current_leaf_message_uuid": "d"}, {}])
def test_the_branch_that_was_kept(take, leaf):
    def turn(id, parent, sender, text, minute):
        return said(sender, text, uuid=id, parent_message_uuid=parent, created_at=f"2024-05-01T10:{minute}:00Z")

    branches = talk(turn("a", ROOT, "human", "Hi", 10), turn("b", "a", "assistant", "old", 11),
                    turn("c", "a", "assistant", "new", 12), turn("d", "c", "human", "Thanks", 13), **leaf)  # fmt: skip
    taken = take("conversations.json", [branches])
    assert taken.talks == [[("user", "Hi"), ("assistant", "new"), ("user", "Thanks")]]
    assert taken.rules == {"other branch": 1}


def test_a_broken_way_to_the_root_keeps_everything(take):
    broken = talk(said("human", "Hi", uuid="a", parent_message_uuid=ROOT),
                  said("assistant", "Hello", uuid="b", parent_message_uuid="gone"))  # fmt: skip
    assert take("conversations.json", [broken]).talks == [[("user", "Hi"), ("assistant", "Hello")]]


def test_projects_are_documents(take):
    project = {"uuid": "p-1", "name": "Roof", "description": "", "is_private": True, "is_starter_project": False,
               "prompt_template": "", "created_at": "2024-05-01T10:00:00Z", "creator": {"uuid": "a-1"}}  # fmt: skip
    docs = [{"uuid": "d-1", "filename": "a.md", "content": "Slate is stone."}, {"uuid": "d-2", "content": " "}]
    taken = take("projects.json", [project | {"docs": docs}, project | {"docs": []}])
    assert [(one["kind"], one["text"], one["group"]) for one in taken.records] == [
        ("document", "Slate is stone.", "p-1")
    ]
    assert taken.rules == {"empty": 1, "no documents": 1}


@pytest.mark.parametrize(
    "name, content, rule",
    [
        ("users.json", [{"uuid": "a-1", "full_name": "Ada", "email_address": "ada@example.org"}], "account data"),
        ("memories.json", [{"conversations_memory": "Likes slate", "account_uuid": "a-1"}], "memories"),
    ],
)
def test_files_beside_are_put_aside(take, name, content, rule):
    taken = take(name, content)
    assert (taken.format, taken.records, taken.rules) == ("claude", [], {rule: 1})


def test_odd_rows(take):
    taken = take("conversations.json", [SIMPLE, {"uuid": "c-2", "chat_messages": None}, 7,
                                        talk(said("bot", "x"), "text", uuid="c-3")])  # fmt: skip
    assert taken.rules == {"no messages": 1, "not an object": 2, "unknown role": 1}


def test_not_an_export(opened):
    for content in ('[{"messages": []}]', "[]", "human\n", '[{"uuid": "1", "docs": []}]'):
        assert recognise_claude(opened("a.json", content)) == 0


turns = st.builds(
    said, st.sampled_from(["human", "assistant"]),
    st.text(max_size=9) | st.just({"type": "tool_use"}) | st.just({"type": "thinking", "thinking": "x"}),
    uuid=st.sampled_from("abcdef"), parent_message_uuid=st.sampled_from(["a", "b", "c", ROOT, None]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(turns, max_size=6), min_size=1, max_size=3))
def test_every_message_has_one_fate(items_of, holds, conversations):
    value = [talk(*one, uuid=f"c{number}") for number, one in enumerate(conversations)]
    items = items_of(talk_of, "c.json", value)
    assert len([item for item in items if isinstance(item, Turn) or item.unit == "message"]) == sum(
        len(one) for one in conversations
    )
    holds("c.json", json.dumps(value).encode())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_is_never_a_crash(holds, data):
    content = json.dumps([SIMPLE, SIMPLE | {"uuid": "c-2"}]).encode()
    content = content[: data.draw(st.integers(0, len(content)))]
    place = data.draw(st.integers(0, max(0, len(content) - 1)))
    holds("c.json", content[:place] + data.draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :])
