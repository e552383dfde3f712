"""E-books: the spine in order, covers and contents cut, locked books refused."""

import io
import zipfile

import pytest
from understand_documents import changed, text_of, understand

from ownchat.data.files import UnreadableFile

CONTAINER = """<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
PROSE = "The miller had three sons and a cat, and he gave the cat to the youngest of them. "


def chapter(number: int) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/>'
        f'<script src="x.js"/></head><body><h1>Chapter {number}</h1><p>{PROSE * 3}<a id="p{number}"/>End of {number}.'
        "</p></body></html>"
    )


def book(chapters: int, **extra: str) -> bytes:
    items = "".join(
        f'<item id="c{n}" href="text/c%20{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(1, chapters + 1)
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(1, chapters + 1))
    opf = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Puss in Boots</dc:title></metadata><manifest>'
        '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
        '<item id="cover" href="cover.xhtml" media-type="application/xhtml+xml"/>'
        f'{items}</manifest><spine><itemref idref="cover"/><itemref idref="nav"/>{spine}</spine></package>'
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/book.opf", opf)
        for name in ("nav", "cover"):
            archive.writestr(f"OEBPS/{name}.xhtml", "<html><body><p>not to be read</p></body></html>")
        for n in range(1, chapters + 1):
            if n != 99:
                archive.writestr(f"OEBPS/text/c {n}.xhtml", chapter(n))
        for name, content in extra.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return made.getvalue()


def test_the_spine_is_read_in_order(tmp_path):
    reading, records, entries = understand(tmp_path / "cat.epub", book(3))
    text = text_of(records)
    assert (reading.format, reading.understood) == ("epub", "Puss in Boots: 5 parts")
    assert text.startswith("# Puss in Boots\n\n# Chapter 1\n\nThe miller")
    assert [text.index(f"End of {n}.") for n in (1, 2, 3)] == sorted(text.index(f"End of {n}.") for n in (1, 2, 3))
    assert "not to be read" not in text
    assert changed(entries) == {"cover cut": 1, "table of contents cut": 1}


def test_long_books_are_split_at_chapters(tmp_path, monkeypatch):
    from ownchat.data.documents import chapters

    monkeypatch.setitem(chapters.ENOUGH, 1, 200)
    reading, records, entries = understand(tmp_path / "cat.epub", book(5))
    assert [record["text"].splitlines()[-1][-9:] for record in records] == [f"End of {n}." for n in range(1, 6)]
    assert [record["source"]["line"] for record in records] == [3, 4, 5, 6, 7]
    assert reading.parent and [entry.makes for entry in entries if entry.fate == "split"] == [5]


def test_a_missing_chapter_is_a_row_of_the_ledger(tmp_path):
    _, records, entries = understand(tmp_path / "cat.epub", book(99))
    assert "End of 98." in text_of(records)
    assert [(entry.fate, entry.rule) for entry in entries if entry.fate == "unreadable"] == [
        ("unreadable", "unreadable part")
    ]


@pytest.mark.parametrize(
    "algorithm, locked",
    [("http://www.w3.org/2001/04/xmlenc#aes256-cbc", True), ("http://www.idpf.org/2008/embedding", False)],
)
def test_locked_books(tmp_path, algorithm, locked):
    lock = (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><e:EncryptedData '
        f'xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptionMethod Algorithm="{algorithm}"/></e:EncryptedData>'
        "</encryption>"
    )
    content = book(1, **{"META-INF__encryption_xml": lock})
    if locked:
        with pytest.raises(UnreadableFile, match="DRM"):
            understand(tmp_path / "cat.epub", content)
    else:
        assert understand(tmp_path / "cat.epub", content)[1]
