"""Word and PowerPoint: what stands on the page, in its order, as Markdown."""

import io

import docx
import pptx
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from hypothesis import given, settings
from hypothesis import strategies as st
from understand_documents import changed, text_of, understand

from ownchat.data.files import UnreadableFile


def saved(document) -> bytes:
    made = io.BytesIO()
    document.save(made)
    return made.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Acme, confidential"
    document.add_heading("Pumps", level=0)
    document.add_heading("Care", level=1)
    paragraph = document.add_paragraph("Close the ")
    paragraph.add_run("valve").bold = True
    paragraph.add_run(" first.")
    document.add_paragraph("oil", style="List Bullet")
    document.add_paragraph("water", style="List Bullet")
    document.add_paragraph("open", style="List Number")
    document.add_paragraph("shut", style="List Number")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip((c for row in table.rows for c in row.cells), ["Part", "Price", "Seal", "4 €"], strict=True):
        cell.text = text
    document.add_heading("More", level=2)
    changes = document.add_paragraph("It takes ")
    change = f'{nsdecls("w")} w:id="1" w:author="a" w:date="2024-01-01T00:00:00Z"'
    changes._p.append(parse_xml(f"<w:del {change}><w:r><w:delText>five</w:delText></w:r></w:del>"))
    changes._p.append(parse_xml(f"<w:ins {change}><w:r><w:t>ten</w:t></w:r></w:ins>"))
    changes._p.append(parse_xml(f"<w:r {nsdecls('w')}><w:t xml:space='preserve'> minutes.</w:t></w:r>"))
    return saved(document)


def test_word(tmp_path):
    reading, records, entries = understand(tmp_path / "a.docx", word())
    assert reading.format == "docx"
    assert text_of(records) == (
        "# Pumps\n\n# Care\n\nClose the valve first.\n\n- oil\n- water\n1. open\n2. shut\n\n"
        "Part | Price\nSeal | 4 €\n\n## More\n\nIt takes ten minutes.\n"
    )
    assert changed(entries) == {"header or footer left out": 1, "deleted text left out": 1}


def test_long_word_documents_are_split(tmp_path):
    document = docx.Document()
    for chapter in range(4):
        document.add_heading(f"Chapter {chapter}", level=1)
        for paragraph in range(40):
            document.add_paragraph(f"Paragraph {paragraph} of chapter {chapter}. " + "Words and more words. " * 15)
    _, records, entries = understand(tmp_path / "a.docx", saved(document))
    assert [record["text"].split("\n")[0] for record in records] == [f"# Chapter {n}" for n in range(4)]
    assert [entry.makes for entry in entries] == [4]
    assert [record["source"]["line"] for record in records] == [1, 42, 83, 124]


def test_slides(tmp_path):
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Pumps"
    body = slide.placeholders[1].text_frame
    body.text = "Close the valve"
    deeper = body.add_paragraph()
    deeper.text, deeper.level = "gently", 1
    slide.notes_slide.notes_text_frame.text = "Say it twice."
    second = deck.slides.add_slide(deck.slide_layouts[6])
    table = second.shapes.add_table(2, 2, 0, 0, 1000, 1000).table
    for place, text in enumerate(["Part", "Price", "Seal", "4 €"]):
        table.cell(place // 2, place % 2).text = text
    reading, records, _ = understand(tmp_path / "a.pptx", saved(deck))
    assert reading.format == "pptx"
    assert text_of(records) == (
        "## Pumps\n\n- Close the valve\n  - gently\n\nNotes: Say it twice.\n\n## Slide 2\n\nPart | Price\nSeal | 4 €\n"
    )


def test_empty_documents_have_a_fate(tmp_path):
    _, records, entries = understand(tmp_path / "a.docx", saved(docx.Document()))
    assert not records and [entry.rule for entry in entries] == ["no text"]


@given(
    st.lists(st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=20), max_size=15)
)
@settings(max_examples=30, deadline=None)
def test_no_paragraph_is_lost(tmp_path_factory, texts):
    document = docx.Document()
    for text in texts:
        document.add_paragraph(text)
    _, records, _ = understand(tmp_path_factory.mktemp("docx") / "a.docx", saved(document))
    assert text_of(records).split("\n\n") == [*texts[:-1], texts[-1] + "\n"] if texts else not records


@given(place=st.floats(0, 1), value=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=40, deadline=None)
def test_damage_is_told(tmp_path_factory, place, value, cut):
    content = bytearray(word())
    at = int(place * (len(content) - 1))
    content[at] ^= value
    damaged = bytes(content[:at] if cut else content)
    try:
        understand(tmp_path_factory.mktemp("docx") / "a.docx", damaged)
    except UnreadableFile as error:
        assert error.where == "a.docx" and error.fix
