"""PDF, from pages set here: paragraphs, headings, columns, running heads; damaged, locked and scanned files."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from understand_documents import changed, text_of, understand

from ownchat.data.files import UnreadableFile

WIDTH, HEIGHT = 595, 842
SENTENCE = "the pump stops by itself when its tank is empty and starts again after ten minutes of waiting"


class Page:
    """The content of a page, as a program that sets type would write it."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def text(self, x: float, y: float, text: str, size: float = 10, font: str = "F1") -> "Page":
        shown = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        self.parts.append(f"BT /{font} {size} Tf 1 0 0 1 {x} {y} Tm ({shown}) Tj ET")
        return self

    def lines(self, x: float, y: float, lines: list[str], size: float = 10, font: str = "F1") -> "Page":
        for number, line in enumerate(lines):
            self.text(x, y - 1.2 * size * number, line, size, font)
        return self


def pdf(*pages: Page, outline: tuple[tuple[str, int], ...] = ()) -> bytes:
    """A file of these pages with three of the standard fonts."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    fonts = {"F1": "Times-Roman", "F2": "Times-Bold", "F3": "Courier"}
    names = []
    for name, font in fonts.items():
        objects.append(f"<< /Type /Font /Subtype /Type1 /BaseFont /{font} /Encoding /WinAnsiEncoding >>")
        names.append(f"/{name} {len(objects)} 0 R")
    kids = []
    for page in pages:
        content = "\n".join(page.parts)
        objects.append(f"<< /Length {len(content.encode('cp1252'))} >>\nstream\n{content}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {WIDTH} {HEIGHT}] /Contents {len(objects)} 0 R "
            f"/Resources << /Font << {' '.join(names)} >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(kids)}] >>"
    made, places = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(made))
        made += f"{number} 0 obj\n{content}\nendobj\n".encode("cp1252")
    start = len(made)
    made += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    made += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    made += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    if not outline:
        return bytes(made)
    writer = PdfWriter(io.BytesIO(bytes(made)))
    for title, page in outline:
        writer.add_outline_item(title, page)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def book(count: int) -> bytes:
    pages = []
    for number in range(1, count + 1):
        page = Page().text(50, 800, f"Pump manual, edition {number % 2}", 9).text(290, 30, str(number), 9)
        page.text(50, 740, f"Chapter {number}", 20, "F2")
        page.lines(50, 700, [f"On page {number} {SENTENCE} so that", f"{SENTENCE}, and then", "it starts a-", "gain."])
        pages.append(page)
    return pdf(*pages)


def test_paragraphs_headings_and_running_heads(tmp_path):
    reading, records, entries = understand(tmp_path / "a.pdf", book(4))
    assert (reading.format, reading.understood) == ("pdf", "4 pages")
    paragraph = f"{SENTENCE} so that {SENTENCE}, and then it starts again."
    assert text_of(records) == "\n\n".join(f"# Chapter {n}\n\nOn page {n} {paragraph}" for n in range(1, 5)) + "\n"
    assert changed(entries) == {"running head cut": 4, "page number cut": 4}


def test_paragraphs_by_gap_and_indent(tmp_path):
    page = Page().lines(50, 700, [f"One {SENTENCE}", f"{SENTENCE}."])
    page.lines(50, 660, [f"Two {SENTENCE}", f"{SENTENCE}."])
    page.text(65, 636, f"Three {SENTENCE}")
    page.text(50, 624, f"{SENTENCE}.")
    paragraphs = text_of(understand(tmp_path / "a.pdf", pdf(page))[1]).strip().split("\n\n")
    assert [paragraph.split()[0] for paragraph in paragraphs] == ["One", "Two", "Three"]


def test_a_paragraph_goes_on_over_the_page(tmp_path):
    pages = Page().lines(50, 80, [SENTENCE.capitalize(), "and it is im-"]), Page().lines(50, 780, ["portant to wait."])
    assert text_of(understand(tmp_path / "a.pdf", pdf(*pages))[1]).endswith("waiting and it is important to wait.\n")


def test_hyphens_of_the_word_itself_stay(tmp_path):
    page = Page().lines(
        50, 700, ["A well-known pump, said to be well-", "known, is self-", "evident; it costs 20-", "30 euros."]
    )
    assert "well-known, is selfevident; it costs 20-30" in text_of(understand(tmp_path / "a.pdf", pdf(page))[1])


def test_two_columns_side_by_side(tmp_path):
    page = Page().text(50, 760, "A title over both of the columns of this page, which is long", 10)
    for number in range(12):  # painted row by row, as some converters do
        page.text(50, 700 - 12 * number, f"left {number} is in the first column")
        page.text(310, 700 - 12 * number, f"right {number} is in the second one")
    text = text_of(understand(tmp_path / "a.pdf", pdf(page))[1])
    order = re.findall(r"(left|right) (\d+)", text)
    assert order == [("left", str(n)) for n in range(12)] + [("right", str(n)) for n in range(12)]


def test_tables_keep_their_rows(tmp_path):
    page = Page().text(50, 740, f"{SENTENCE.capitalize()}.")
    for number, row in enumerate([("Part", "Price"), ("Seal", "4 euros"), ("Pump", "120 euros")]):
        page.text(50, 700 - 12 * number, row[0]).text(200, 700 - 12 * number, row[1])
    assert "Part | Price\nSeal | 4 euros\nPump | 120 euros\n" in text_of(understand(tmp_path / "a.pdf", pdf(page))[1])


def test_contents_are_cut(tmp_path):
    contents = Page().text(50, 780, "Contents", 16, "F2")
    contents.lines(50, 740, [f"{n} The part about pumps {'. ' * 40}{n * 7}" for n in range(1, 9)])
    body = Page().text(50, 700, f"{SENTENCE.capitalize()} ... and so on.")
    _, records, entries = understand(tmp_path / "a.pdf", pdf(contents, body))
    assert changed(entries)["table of contents line cut"] == 8
    assert "and so on." in text_of(records) and "The part" not in text_of(records)


def test_bookmarks_give_the_levels(tmp_path):
    pages = [
        Page().text(50, 740, title, 11, "F2").text(50, 700, f"{SENTENCE.capitalize()}.") for title in ("Care", "Oil")
    ]
    _, records, _ = understand(tmp_path / "a.pdf", pdf(*pages, outline=(("Care", 0), ("Oil", 1))))
    assert re.findall("^# .*", text_of(records), re.MULTILINE) == ["# Care", "# Oil"]


def test_code_keeps_its_lines(tmp_path):
    page = Page().text(50, 720, f"{SENTENCE.capitalize()}:")
    page.text(60, 690, "if empty:", 10, "F3").text(84, 678, "stop()", 10, "F3")
    assert "```\nif empty:\n    stop()\n```" in text_of(understand(tmp_path / "a.pdf", pdf(page))[1])


def test_matplotlib_pages(tmp_path):
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    with PdfPages(tmp_path / "b.pdf") as pages:
        for number in range(3):
            figure = Figure(figsize=(8, 11))
            figure.text(0.1, 0.8, f"Größe fine flow {number}: we wait.", fontsize=12)
            pages.savefig(figure)
    text = text_of(understand(tmp_path / "a.pdf", (tmp_path / "b.pdf").read_bytes())[1])
    assert all(f"Größe fine flow {number}: we wait." in text for number in range(3))


def test_scans_and_locks(tmp_path):
    with pytest.raises(UnreadableFile, match="pictures") as error:
        understand(tmp_path / "a.pdf", pdf(Page(), Page()))
    assert "ocrmypdf" in error.value.fix
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(book(1))))
    writer.encrypt("secret", algorithm="RC4-128")
    made = io.BytesIO()
    writer.write(made)
    with pytest.raises(UnreadableFile, match="password"):
        understand(tmp_path / "a.pdf", made.getvalue())
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(book(1))))
    writer.encrypt("", "owner", algorithm="RC4-128")  # anybody may open it, not everybody may print
    made = io.BytesIO()
    writer.write(made)
    assert "On page 1" in text_of(understand(tmp_path / "a.pdf", made.getvalue())[1])


def test_long_books_are_split_and_nothing_is_lost(tmp_path, monkeypatch):
    from ownchat.data.documents import chapters

    monkeypatch.setitem(chapters.ENOUGH, 1, 10**9)
    whole = text_of(understand(tmp_path / "a.pdf", book(70))[1])
    monkeypatch.setitem(chapters.ENOUGH, 1, 1000)
    reading, records, entries = understand(tmp_path / "a.pdf", book(70))
    assert reading.parent and len(records) > 10
    assert "\n".join(record["text"] for record in records) == whole
    assert [n for n in range(1, 71) if f"On page {n} " not in whole] == []
    assert changed(entries) == {"running head cut": 70, "page number cut": 70}


@given(place=st.floats(0, 1), value=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=50, deadline=None)
def test_damage_is_told(tmp_path_factory, place, value, cut):
    content = bytearray(book(2))
    at = int(place * (len(content) - 1))
    content[at] ^= value
    try:
        understand(tmp_path_factory.mktemp("pdf") / "a.pdf", b"%PDF-1.4" + bytes(content[:at] if cut else content)[8:])
    except UnreadableFile as error:
        assert error.where == "a.pdf" and error.fix
