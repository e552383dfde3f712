"""Every format, told by its content; columns by name, content and map; lines as an editor counts them."""

import gzip
import json
from pathlib import Path

import pytest

from ownchat.config import DataConfig
from ownchat.data.documents.text import pieces
from ownchat.data.files import UnreadableFile, open_file
from ownchat.data.ledger import Entry
from ownchat.data.readers import detect, read
from ownchat.data.reading import Reading
from ownchat.errors import DataError

FAQ = "id,category,q,a\n1,x,How long?,Ten weeks\n2,x,How much?,Two euros\n"


def understand(path: Path, content: str | bytes, **data) -> tuple[Reading, list, list[Entry]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reading = read(open_file(path, path.name), DataConfig(**data))
    items = list(reading.rows)
    return reading, [x for x in items if not isinstance(x, Entry)], [x for x in items if isinstance(x, Entry)]


def turns(record) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in record["messages"]]


def complaint(path, content, **data) -> str:
    """What is said of a file with something wrong in it: an error, or the entries of its unreadable rows."""
    try:
        _, _, entries = understand(path, content, **data)
    except DataError as error:
        assert error.fix
        return str(error)
    return "\n".join(entry.detail for entry in entries if entry.fate == "unreadable")


# ------------------------------------------------------------------------------------------------------- detection


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.csv", FAQ, "csv"),
        ("no_extension", FAQ, "csv"),
        ("a.txt", FAQ, "csv"),
        ("a.csv", '{"question": "a", "answer": "b"}\n{"question": "a", "answer": "b"}\n', "jsonl"),
        ("a.txt", '[{"question": "a", "answer": "b"}]', "json"),
        ("a.json", '{"question": "a", "answer": "b"}\n{"question": "a", "answer": "b"}\n', "jsonl"),
        ("a.json", '{\n "rows": []\n}', "json"),
        ("a.txt", "Once, there was, a comma.\nAnd, then, another.\n", "text"),
        ("a.md", "# Title\n\n[link](x)\n", "markdown"),
        ("a.txt", "[Intro]\nla la la\n", "text"),
        ("a.txt", "{curly} words\n", "text"),
    ],
)
def test_format_is_told_by_content(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    assert detect(open_file(tmp_path / name, name))[0].name == expected


def test_gzip_is_told_by_its_first_bytes(tmp_path):
    _, records, _ = understand(tmp_path / "faq.csv", gzip.compress(FAQ.encode()))
    assert [record["source"]["line"] for record in records] == [2, 3]


# ---------------------------------------------------------------------------------------------------------- tables


def test_table_lines_and_quoted_newlines(tmp_path):
    content = 'q;a\r\n"one\r\nstill one?";"x;y"\r\n\r\ntwo?;z\r\n'
    reading, records, dropped = understand(tmp_path / "a.csv", content)
    assert turns(records[0]) == [("user", "one\r\nstill one?"), ("assistant", "x;y")]
    assert [record["source"]["line"] for record in records] == [2, 5]
    assert [(entry.rule, entry.detail) for entry in dropped] == [("empty", "a.csv, line 4")]
    assert reading.columns == {"question": "q", "answer": "a"}


@pytest.mark.parametrize(
    "content, expected",
    [
        ('q\ta\nHi, you?\tfine, "you"\n', ("Hi, you?", 'fine, "you"')),
        ("q|a\nHi?|fine, thanks\n", ("Hi?", "fine, thanks")),
        ("sep=;\nq;a\nHi?;fine\n", ("Hi?", "fine")),
        ('q,a\n"say \\"hi\\", now?","done, \\"yes\\""\n', ('say "hi", now?', 'done, "yes"')),
        ('q,a\n"say ""hi"", now?","done"\n', ('say "hi", now?', "done")),
    ],
)
def test_dialects(tmp_path, content, expected):
    _, records, _ = understand(tmp_path / "a.csv", content)
    assert [content for _, content in turns(records[0])] == list(expected)


def test_columns_by_name_leave_labels_alone(tmp_path):
    reading, records, _ = understand(tmp_path / "a.csv", FAQ)
    assert reading.columns == {"question": "q", "answer": "a"}
    assert "not used: id, category" in reading.understood
    assert [record["group"] for record in records] == [None, None]


@pytest.mark.parametrize(
    "header, row, columns",
    [
        ("ticket_id,customer,agent", "7,Where is my parcel now?,It left the house yesterday.",
         {"question": "customer", "answer": "agent", "group": "ticket_id"}),
        ("customer,question,answer", "C-17,Where?,There",
         {"question": "question", "answer": "answer", "group": "customer"}),
        ("instruction,input,output", "Translate,Hund,dog", {"question": "instruction + input", "answer": "output"}),
        ("Customer Question,Best Answer", "Where is my parcel?,It left the house.",
         {"question": "Customer Question", "answer": "Best Answer"}),
        ("nr,svar,fråga", "1,Tio veckor,Hur länge?", {"question": "fråga", "answer": "svar"}),
        ("date,left,right", "2024-01-01,We have shipped it two days ago.,Where is my parcel now?",
         {"question": "right", "answer": "left"}),
    ],
)  # fmt: skip
def test_columns(tmp_path, header, row, columns):
    reading, _, _ = understand(tmp_path / "a.csv", f"{header}\n{row}\n")
    assert reading.columns == columns


def test_map_wins_over_names(tmp_path):
    content = "q,a,better,who\nHi?,old,new,anna\n"
    reading, records, _ = understand(tmp_path / "a.csv", content, map={"answer": "better", "group": "who"})
    assert turns(records[0]) == [("user", "Hi?"), ("assistant", "new")]
    assert records[0]["group"] == "anna"
    assert reading.columns["answer"] == "better"


def test_mapped_text_makes_documents(tmp_path):
    _, records, _ = understand(tmp_path / "a.csv", "text,label\nSome words,x\n", map={"text": "text"})
    assert [(record["kind"], record["text"]) for record in records] == [("document", "Some words")]


def test_table_without_header_loses_no_row(tmp_path):
    content = "Where is my parcel now?,It left the house.\nHow much is the fee?,Two euros for each.\n"
    reading, records, _ = understand(tmp_path / "a.csv", content)
    assert len(records) == 2
    assert turns(records[0])[0] == ("user", "Where is my parcel now?")
    assert "no header" in reading.understood


@pytest.mark.parametrize(
    "content, data, parts",
    [
        ("text,category\nHello you there,x\n", {}, ['"text", "category"', "--map answer=COLUMN"]),
        ("q,a\nx,y\n", {"map": {"answer": "aa"}}, ['no column "aa"', 'did you mean "a"']),
        ("q,a\nx,y\nx,y,z\n", {}, ["line 3", "3 cells"]),
        ('q,a\nx,y\nx,"open\nx,y\n', {}, ["line 3", "never closed"]),
    ],
)
def test_bad_tables(tmp_path, content, data, parts):
    said = complaint(tmp_path / "a.csv", content, **data)
    assert all(part in said for part in ["a.csv", *parts]), said


def test_rows_without_an_answer_are_dropped_with_their_line(tmp_path):
    _, records, dropped = understand(tmp_path / "a.csv", "q,a\nx?,y\nz?,\n,only\n , \n")
    assert len(records) == 1
    assert [(entry.rule, entry.detail) for entry in dropped] == [
        ("no answer", "a.csv, line 3"),
        ("no question", "a.csv, line 4"),
        ("empty", "a.csv, line 5"),
    ]


# ------------------------------------------------------------------------------------------------------------ JSON

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}}
CHAT = {
    "messages": [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "name": "Jo",
         "content": [{"type": "text", "text": "Where"}, {"type": "text", "text": "is it?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
        {"role": "tool", "content": "on its way", "tool_call_id": "c1"},
        {"role": "assistant", "content": "On its way."},
    ],
    "tools": [{"type": "function", "function": {"name": "find"}}],
    "conversation_id": 12,
}  # fmt: skip


def test_openai_messages_keep_everything(tmp_path):
    _, (record,), _ = understand(tmp_path / "a.jsonl", json.dumps(CHAT))
    assert [turn["role"] for turn in record["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert record["messages"][1]["content"] == "Where\nis it?"
    assert record["messages"][1]["name"] == "Jo"
    assert record["messages"][2]["content"] == ""
    assert json.loads(record["messages"][2]["tool_calls"]) == [CALL]
    assert record["messages"][2]["weight"] == 0
    assert record["messages"][3]["tool_call_id"] == "c1"
    assert json.loads(record["tools"]) == CHAT["tools"]
    assert record["group"] == "12"


@pytest.mark.parametrize(
    "content, lines",
    [
        ('[\n{"q": "a?", "a": "b"},\n\n{"q": "c?", "a": "d"}\n]\n', [2, 4]),
        ('{"_meta": {"n": [1]},\n "rows": [{"q": "a?", "a": "b"},\n{"q": "c?", "a": "d"}], "z": 1}', [2, 3]),
        ('{"q": "a?", "a": "b"}\n\n{"q": "c?", "a": "d"}', [1, 3]),
        ('{\n"q": "a?",\n"a": "b"}', [1]),
    ],
)
def test_json_shapes_and_lines(tmp_path, content, lines):
    _, records, _ = understand(tmp_path / "a.json", content)
    assert [record["source"]["line"] for record in records] == lines
    assert turns(records[0]) == [("user", "a?"), ("assistant", "b")]


def test_a_list_of_turns_is_one_conversation(tmp_path):
    _, (record,), _ = understand(tmp_path / "a.json", json.dumps(CHAT["messages"], indent=1))
    assert len(record["messages"]) == 5


def test_text_rows_are_documents(tmp_path):
    _, records, _ = understand(tmp_path / "a.jsonl", '{"text": "one two three four", "url": "x"}\n{"text": "five"}\n')
    assert [record["text"] for record in records] == ["one two three four", "five"]


def test_half_characters_are_replaced_and_reported(tmp_path):
    content = '{"q": "a \\ud83d?", "a": "ok \\ud83d\\ude00"}\n{"q": "b?", "a": "\\ud83d\\ude00"}\n'
    _, records, entries = understand(tmp_path / "a.jsonl", content)
    assert turns(records[0]) == [("user", "a �?"), ("assistant", "ok 😀")]
    assert [(entry.fate, entry.rule) for entry in entries] == [("changed", "half a character replaced")]


@pytest.mark.parametrize(
    "name, content, parts",
    [
        ("a.jsonl", '{"q": "a", "a": "b"}\n{"q": "a", "a" "b"}\n', ["line 2", "column 16"]),
        ("a.json", '[\n{"q": "a", "a": "b"},\n{"q" "a"},\n{"q": "c", "a": "d"}]', ["line 3", "column 6"]),
        ("a.json", '[{"q": "a", "a": "b"}] trailing', ["line 1", "more text"]),
        ("a.jsonl", '{"messages": "hi"}', ["line 1", "must be a list, not text"]),
        ("a.jsonl", '{"messages": [3]}', ["messages[0] must be an object, not a number"]),
        ("a.jsonl", '{"messages": [{"role": "asistant", "content": "x"}]}', ['did you mean "assistant"?']),
        ("a.jsonl", '{"messages": [{"role": "user", "content": 3}]}', ["messages[0].content must be text"]),
        ("a.jsonl", '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', ['"image_url"']),
        ("a.jsonl", '{"messages": [{"role": "assistant", "content": "x", "weight": 2}]}', ["weight must be 0 or 1"]),
        ("a.jsonl", '{"q": "a", "a": "b"}\n[1]\n', ["line 2", "must be an object"]),
        ("a.jsonl", '{"q": "a", "a": ["b"]}\n{"q": "a", "a": "b"}\n', ["line 1", "a must be text, not a list"]),
        ("a.json", '["x", "y"]', ["a row must be an object, not text"]),
        ("a.json", '{"a": [{"q": 1}], "b": [{"q": 1}]}', ["several lists", '"a", "b"']),
    ],
)  # fmt: skip
def test_bad_json(tmp_path, name, content, parts):
    said = complaint(tmp_path / name, content)
    assert all(part in said for part in [name, *parts]), said


def test_conversations_that_train_nothing_are_dropped(tmp_path):
    user, reply = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0}
    rows = [{"messages": [user]}, {"messages": []}, {"messages": [user, reply]}]
    _, _, dropped = understand(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [entry.rule for entry in dropped] == ["no assistant turn", "empty", "no trained turn"]


# ------------------------------------------------------------------------------------------------ text and encodings


def test_large_text_is_cut_at_blank_lines_and_adds_up(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(text := "".join(f"word {i}\n" + "\n" * (i % 7 == 0) for i in range(3000)) + "x" * 9000)
    found = list(pieces(open_file(path, "a.txt"), size=2000))
    assert "".join(found) == text
    assert max(map(len, found)) <= 3 * 2000 + 2000
    assert all(piece.endswith("\n\n") for piece in found[:10])


@pytest.mark.parametrize(
    "encoding, text",
    [
        ("utf-8", "Vad är bygglov?"),
        ("utf-8-sig", "Vad är bygglov?"),
        ("utf-16", "Vad är bygglov?"),
        ("utf-32", "Vad är bygglov?"),
        ("utf-16-le", "Where is my parcel, please? It should be here."),
        ("cp1252", "Vad är bygglov? Fråga: hur lång tid tar det? “Svar” – tio veckor."),
        ("cp1251", "Здравствуйте, где мой заказ? Мы отправили его вчера вечером."),
        ("cp1250", "Dzień dobry, gdzie jest moja przesyłka? Proszę o pomoc."),
    ],
)
def test_encodings(tmp_path, encoding, text):
    _, (record,), _ = understand(tmp_path / "a.txt", (text + "\n").encode(encoding))
    assert record["text"] == text + "\n"


def test_damaged_and_mixed_encodings_lose_no_line(tmp_path):
    mixed = "Grüße aus Köln\n".encode() * 5 + "Schöne Grüße\n".encode("cp1252") + b"a line with a \0 in it\n"
    (tmp_path / "a.txt").write_bytes(mixed)
    file = open_file(tmp_path / "a.txt", "a.txt")
    lines = [line for _, line in file.lines()]
    assert lines == ["Grüße aus Köln\n"] * 5 + ["Schöne Grüße\n", "a line with a   in it\n"]
    assert "Windows-1252" in file.decoding.notes[0]


def test_utf8_is_checked_to_the_last_byte(tmp_path):
    content = b"plain words\n" * 400_000 + "Schöne Grüße".encode("cp1252")
    (tmp_path / "a.txt").write_bytes(content)
    file = open_file(tmp_path / "a.txt", "a.txt")
    assert (file.encoding, file.decoding.notes) == ("cp1252", ("decoded as cp1252",))


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "empty"),
        (b"  \n\n", "empty"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"text\0\0\0\x01\x02 binary", "binary file"),
        (bytes(range(0x80, 0x100)) * 20 + b"\x81\x8d\x8f\x90\x9d\xff\xfe" * 30, "not valid UTF-8"),
        (gzip.compress(b"words " * 1000, mtime=0)[:-20], "cannot be read"),
        (gzip.compress(b"\x89PNG\r\n", mtime=0), "a picture"),
    ],
)
def test_unreadable_files(tmp_path, content, reason):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UnreadableFile, match=reason) as error:
        open_file(tmp_path / "a.txt", "a.txt")
    assert error.value.where == "a.txt"
    assert error.value.fix


PAIR = {"prompt": "Which lamp is it?", "chosen": "The red one.", "rejected": "No idea."}


@pytest.mark.parametrize(
    "row, lost",
    [
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}, {"messages": []}),
        ({"question": "How long does it take?", "answer": "Ten weeks."}, {"question": "Why so?", "answer": ""}),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]}, {"conversations": []}),
        (PAIR, PAIR | {"rejected": "The red one."}),
        ({"instruction": "Add.", "instances": [{"input": "1", "output": "2"}] * 2}, {"messages": 3}),
        ({"prompt": "Hi there", "responses": ["Yes", "No"], "scores": [2, 1]}, PAIR | {"rejected": ""}),
        ({"product": "lamp", "rating": 5, "review": "It is bright and warm."}, {}),
        ({"text": "Once upon a time there was a lamp."}, {"text": " "}),
        ({"id": "1", "turns": [["agent", "Hello there"], ["user", "My lamp is dark"], ["agent", "Turn it on"]]},
         {"id": "1", "turns": []}),
    ],
)  # fmt: skip
def test_equal_rows_on_one_line_have_ids_of_their_own(tmp_path, row, lost):
    rows = [row, row, lost, row, lost, row, row]
    _, records, entries = understand(tmp_path / "a.json", json.dumps(rows))
    ids = [record["id"] for record in records]
    ids += [one.id for one in entries if one.unit == "row" and one.fate in ("dropped", "unreadable", "merged")]
    assert len(set(ids)) == len(ids) >= 7
    assert all(one.id not in ids or one.fate == "kept" for one in entries if one.unit == "message")
    again = understand(tmp_path / "a.json", json.dumps(rows))[1]
    assert [record["id"] for record in again] == [record["id"] for record in records]


def test_rows_on_lines_of_their_own_have_no_offset(tmp_path):
    row = {"question": "How long does it take?", "answer": "Ten weeks."}
    _, records, _ = understand(tmp_path / "a.json", json.dumps([row, row], indent=1))
    assert [record["source"]["offset"] for record in records] == [None, None]
    _, records, _ = understand(tmp_path / "b.json", json.dumps([row, row]))
    assert [record["source"]["offset"] for record in records] == [None, 1]
