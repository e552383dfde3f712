"""Tables that are damaged: every line has a fate, and what is good is still imported."""

import csv
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.columns import check_map
from ownchat.data.files import UnreadableFile, open_file
from ownchat.data.ledger import Entry
from ownchat.data.tables import read_table


def understand(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    items = list(read_table(open_file(path, path.name), DataConfig()).rows)
    return [x for x in items if not isinstance(x, Entry)], [x for x in items if isinstance(x, Entry)]


def test_a_quote_that_never_closes_costs_its_line(tmp_path):
    rows = "".join(f"question {n}?,answer {n}\n" for n in range(400))
    records, entries = understand(tmp_path / "a.csv", f'q,a\n{rows}lost?,"open\n{rows}')
    assert len(records) == 800
    assert [(entry.fate, entry.rule) for entry in entries] == [("unreadable", "a damaged row")]
    assert "line 402" in entries[0].detail
    assert records[400]["source"]["line"] == 403


def test_many_open_quotes_end_the_reading_with_a_word(tmp_path):
    records, entries = understand(tmp_path / "a.csv", "q,a\n" + "fine?,yes\n" * 5 + 'x?,"o\n' * 301)
    assert len(records) <= 306
    assert entries
    assert all(entry.fate == "unreadable" for entry in entries)


def test_the_first_column_may_have_no_name(tmp_path):
    records, _ = understand(tmp_path / "a.csv", ",question,answer\n0,Hi there?,Hello\n1,And now?,Go on\n")
    assert len(records) == 2


_CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


@given(rows=st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_every_row_has_one_fate_and_no_text_is_lost(tmp_path_factory, rows):
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("question", "answer"), *rows])
    records, entries = understand(tmp_path_factory.mktemp("t") / "a.csv", out.getvalue())
    assert len(records) + len(entries) == len(rows)
    full = [row for row in rows if all(cell.strip() for cell in row)]
    assert [tuple(turn["content"] for turn in record["messages"]) for record in records] == full


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_tables_are_no_crash(tmp_path_factory, data):
    content = bytearray(b'q,a\n"one, two?",three\n"say ""hi""?",four\n' * 5)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    try:
        understand(tmp_path_factory.mktemp("t") / "a.csv", bytes(content))
    except UnreadableFile:
        return


def test_a_title_above_the_header_is_no_row(tmp_path):
    content = "Our FAQ,,\n,,\nNo,Question,Answer\n1,How long?,Ten weeks\n2,How much?,Two euros\n"
    records, entries = understand(tmp_path / "a.csv", content)
    assert [[turn["content"] for turn in record["messages"]] for record in records] == [
        ["How long?", "Ten weeks"], ["How much?", "Two euros"]
    ]  # fmt: skip
    assert [entry.rule for entry in entries] == ["title", "empty"]


def test_columns_may_be_called_a_review_and_its_rating(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("what,how,says\nLamp,2,It broke after two days.\nChair,5,I like it a lot and sit well.\n")
    data = DataConfig(map={"review": "says", "rating": "how", "product": "what"})
    check_map(data.map)
    reading = read_table(open_file(path, path.name), data)
    assert reading.columns == {"review": "says", "rating": "how", "product": "what"}
    assert [record["rating"] for record in reading.rows] == [2.0, 5.0]
