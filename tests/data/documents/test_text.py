"""Text and Markdown: nothing is touched but front matter and what stands around form feeds."""

from hypothesis import given, settings
from hypothesis import strategies as st
from understand_documents import changed, text_of, understand

from ownchat.data.documents import text as module
from ownchat.data.documents.text import _pieces


def test_text_is_kept_as_it_stands(tmp_path):
    content = "A heading\n=========\n\n  indented\n\ttab\n\n\n* one\n"
    reading, records, entries = understand(tmp_path / "a.txt", content)
    assert (reading.format, text_of(records), entries) == ("text", content, [])


def test_front_matter_is_cut_and_counted(tmp_path):
    content = "---\ntitle: Pumps\ntags: [a]\n---\n\n# Pumps\n\nClose the valve.\n\n---\n\nmore\n"
    reading, records, entries = understand(tmp_path / "a.md", content)
    assert reading.format == "markdown"
    assert text_of(records) == "# Pumps\n\nClose the valve.\n\n---\n\nmore\n"
    assert changed(entries) == {"front matter cut": 1}


def test_a_rule_is_no_front_matter(tmp_path):
    content = "---\n\nJust a rule above.\n\n---\n\nAnd one below.\n"
    assert text_of(understand(tmp_path / "a.md", content)[1]) == content


def test_markdown_is_told_by_content(tmp_path):
    content = "# One\n\nSee [there](https://example.org).\n\n## Two\n\n```\ncode\n```\n"
    assert understand(tmp_path / "README", content)[0].format == "markdown"


def paged(pages: int) -> str:
    """Text as RFCs are set: a running head, a foot with the number, a form feed between the pages."""
    return "\f".join(
        f"RFC 9999              Pumps and Valves           May 2024\n\n\n   Page {page} says that pump {page} is"
        f"\n   repaired on the spot.\n\n   It goes on with\n\n\nBerg            Informational      [Page {page}]\n"
        for page in range(1, pages + 1)
    )


def test_running_heads_around_form_feeds_are_cut(tmp_path):
    _, records, entries = understand(tmp_path / "rfc.txt", paged(6))
    text = text_of(records)
    assert "RFC 9999" not in text and "[Page" not in text and "\f" not in text
    assert all(f"pump {page} is\n   repaired" in text for page in range(1, 7))
    assert changed(entries) == {"running head cut": 12, "form feed cut": 5}


def test_form_feeds_without_heads_stay(tmp_path):
    content = "one chapter\n\fanother chapter\n"
    assert text_of(understand(tmp_path / "a.txt", content)[1]) == content


def test_a_large_file_is_split(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE_CHARS", 1000)
    monkeypatch.setattr(module, "LONGEST_PIECE", 4000)
    content = "".join(f"line {number}\n" + "\n" * (number % 5 == 0) for number in range(2000))
    reading, records, entries = understand(tmp_path / "a.txt", content)
    assert text_of(records) == content
    assert [entry.makes for entry in entries] == [len(records)]
    assert reading.parent
    lines = content.split("\n")
    assert all(lines[record["source"]["line"] - 1] == record["text"].split("\n")[0] for record in records)


@given(st.lists(st.text(alphabet="ab \n", max_size=40), max_size=20), st.integers(4, 30))
@settings(max_examples=50)
def test_pieces_add_up(chunks, size):
    found = list(_pieces(chunks, size))
    assert "".join(found) == "".join(chunks)
    assert all(len(piece) <= 4 * size for piece in found)


def test_soft_hyphens_are_cut_and_counted(tmp_path):
    _, records, entries = understand(tmp_path / "a.txt", "Sil\xadben\xadtrennung\n")
    assert records[0]["text"] == "Silbentrennung\n"
    assert [(entry.rule, entry.count) for entry in entries] == [("soft hyphen cut", 2)]
