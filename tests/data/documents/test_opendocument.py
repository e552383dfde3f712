"""OpenDocument texts and presentations."""

import io
import zipfile

import pytest
from understand_documents import changed, text_of, understand

SPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{space}:1.0"'
    for name, space in [("office", "office"), ("text", "text"), ("table", "table"), ("draw", "drawing"),
                        ("presentation", "presentation")]
)  # fmt: skip


def package(kind: str, body: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", f"application/vnd.oasis.opendocument.{kind}", zipfile.ZIP_STORED)
        archive.writestr(
            "content.xml",
            f'<?xml version="1.0"?><office:document-content {SPACES}><office:body><office:{kind}>{body}</office:{kind}>'
            "</office:body></office:document-content>",
        )
    return made.getvalue()


def test_text(tmp_path):
    body = (
        "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes>"
        '<text:h text:outline-level="2">Care</text:h>'
        '<text:p>Close<text:s text:c="2"/>the <text:span>valve</text:span><text:note><text:note-citation>1'
        "</text:note-citation><text:note-body><text:p>The red one.</text:p></text:note-body></text:note>.</text:p>"
        "<text:list><text:list-item><text:p>oil</text:p><text:list><text:list-item><text:p>thin</text:p>"
        "</text:list-item></text:list></text:list-item><text:list-item><text:p>water</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>Seal</text:p></table:table-cell><table:table-cell>"
        "<text:p>4 €</text:p></table:table-cell></table:table-row></table:table>"
    )
    reading, records, entries = understand(tmp_path / "a.odt", package("text", body))
    assert reading.format == "odt"
    assert text_of(records) == (
        "## Care\n\nClose  the valve[^1].\n\n[^1]: The red one.\n\n- oil\n  - thin\n- water\n\nSeal | 4 €\n"
    )
    assert changed(entries) == {"deleted text left out": 1}


def test_presentation(tmp_path):
    body = (
        '<draw:page draw:name="one"><draw:frame presentation:class="title"><draw:text-box><text:p>Pumps</text:p>'
        "</draw:text-box></draw:frame><draw:frame><draw:text-box><text:p>Close it</text:p><text:p>Wait</text:p>"
        "</draw:text-box></draw:frame><presentation:notes><text:p>Twice.</text:p></presentation:notes></draw:page>"
    )
    _, records, _ = understand(tmp_path / "a.odp", package("presentation", body))
    assert text_of(records) == "## Pumps\n\n- Close it\n- Wait\n\nNotes: Twice.\n"


@pytest.mark.parametrize("body", ["", "<text:p/>"])
def test_empty(tmp_path, body):
    _, records, entries = understand(tmp_path / "a.odt", package("text", body))
    assert not records and [entry.rule for entry in entries] == ["no text"]


def test_numbered_lists_soft_hyphens_and_fields(tmp_path):
    spaces = 'xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0"'
    style = (
        f'<text:list-style {spaces} style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1"/>'
        '<text:list-level-style-bullet text:level="2"/></text:list-style>'
    )
    inner = "<text:list><text:list-item><text:p>now</text:p></text:list-item></text:list>"
    items = f"<text:list-item><text:p>Open</text:p></text:list-item><text:list-item><text:p>Wait</text:p>{inner}"
    body = f'{style}<text:list text:style-name="L1">{items}</text:list-item></text:list>'
    body += "<text:p>hy\xadphen<text:page-number>&lt;number&gt;</text:page-number></text:p>"
    _, records, _ = understand(tmp_path / "a.odt", package("text", body))
    assert text_of(records) == "1. Open\n2. Wait\n  - now\n\nhyphen\n"
