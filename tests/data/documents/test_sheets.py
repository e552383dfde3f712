"""Spreadsheets: questions and answers are rows, everything else is text."""

import datetime
import io
import zipfile

import openpyxl
import pytest
from understand_documents import text_of, understand

from ownchat.data.files import UnreadableFile
from ownchat.errors import DataError


def workbook(**sheets: list[list]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


def ods(**sheets: list[list[str]]) -> bytes:
    space = "urn:oasis:names:tc:opendocument:xmlns:"
    tables = "".join(
        f'<table:table table:name="{name}">'
        + "".join(
            "<table:table-row>"
            + "".join(f"<table:table-cell><text:p>{cell}</text:p></table:table-cell>" for cell in row)
            + '<table:table-cell table:number-columns-repeated="1000"/></table:table-row>'
            for row in rows
        )
        + '<table:table-row table:number-rows-repeated="1048000"><table:table-cell/></table:table-row></table:table>'
        for name, rows in sheets.items()
    )  # fmt: skip
    content = (
        f'<?xml version="1.0"?><office:document-content xmlns:office="{space}office:1.0" xmlns:text="{space}text:1.0" '
        f'xmlns:table="{space}table:1.0"><office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>'
        "</office:document-content>"
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet", zipfile.ZIP_STORED)
        archive.writestr("content.xml", content)
    return made.getvalue()


FAQ = [["Our FAQ"], [], ["Question", "Answer"], ["How long?", "Ten weeks"], ["How much?", "Two euros"], ["Who?", ""]]
PRICES = [["Part", "Price", "From"], ["Seal", "4.5", "2024-05-01"], ["Pump", "120", ""]]


@pytest.mark.parametrize("name", ["a.xlsx", "a.ods"])
def test_questions_are_rows_and_the_rest_is_text(tmp_path, name):
    prices: list[list] = PRICES
    if name == "a.xlsx":
        prices = [PRICES[0], ["Seal", 4.5, datetime.datetime(2024, 5, 1)], ["Pump", 120.0, None]]
    make = workbook if name == "a.xlsx" else ods
    reading, records, entries = understand(tmp_path / name, make(FAQ=FAQ, Prices=prices))
    assert reading.format == name[2:]
    assert [record["kind"] for record in records] == ["conversation", "conversation", "document"]
    assert [turn["content"] for turn in records[1]["messages"]] == ["How much?", "Two euros"]
    assert [record["source"]["line"] for record in records] == [4, 5, 1]
    assert records[2]["text"] == "# Prices\n\nPart | Price | From\nSeal | 4.5 | 2024-05-01\nPump | 120\n"
    assert [(entry.rule, entry.parents) for entry in entries] == [
        ("title", (name,)), ("no answer", (name,))
    ]  # fmt: skip
    assert reading.columns == {"question": "Question", "answer": "Answer"}


def test_two_columns_of_prose_are_no_questions(tmp_path):
    rows = [["Part", "Description"], ["Seal of rubber for the pump", "It closes the pump at its lower end."]] * 2
    _, records, _ = understand(tmp_path / "a.xlsx", workbook(Parts=rows))
    assert [record["kind"] for record in records] == ["document"]


def test_map_names_the_columns(tmp_path):
    rows = [["wer", "was"], ["Can I?", "You can."]]
    _, records, _ = understand(tmp_path / "a.xlsx", workbook(A=rows), map={"question": "wer", "answer": "was"})
    assert records[0]["messages"][1]["content"] == "You can."
    with pytest.raises(DataError, match="no sheet has the columns"):
        understand(tmp_path / "a.xlsx", workbook(A=rows), map={"answer": "nix"})


def test_equal_rows_on_two_sheets_are_two_records(tmp_path):
    _, records, _ = understand(tmp_path / "a.xlsx", workbook(A=FAQ, B=FAQ))
    assert len(records) == 4


def test_empty_sheets_have_a_fate(tmp_path):
    _, _, entries = understand(tmp_path / "a.xlsx", workbook(A=FAQ, B=[]))
    assert ("dropped", "empty sheet") in [(entry.fate, entry.rule) for entry in entries]


def test_bombs_are_refused(tmp_path):
    good = workbook(A=[["x" * 100]] * 5)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for info in old.infolist():
            extra = b" " * 30_000_000 if info.filename.endswith("sheet1.xml") else b""
            archive.writestr(info.filename, old.read(info) + extra)
    with pytest.raises(UnreadableFile, match="unpacks to 30 MB"):
        understand(tmp_path / "a.xlsx", made.getvalue())


def test_numbers_and_formulas(tmp_path):
    _, records, _ = understand(tmp_path / "a.xlsx", workbook(A=[["n", "yes"], [3.0, True], [0.1 + 0.2, 1e20]]))
    assert text_of(records) == "# A\n\nn | yes\n3 | yes\n0.3 | 1e+20\n"


def test_hidden_sheets_are_dropped(tmp_path):
    book = openpyxl.load_workbook(io.BytesIO(workbook(Prices=PRICES, Secret=[["secret"]])))
    book["Secret"].sheet_state = "hidden"
    made = io.BytesIO()
    book.save(made)
    style = '<style:style style:name="off"><style:table-properties table:display="false"/></style:style>'
    style_space = 'xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0"'
    hidden = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(ods(Prices=PRICES, Secret=[["secret"]]))) as old,
        zipfile.ZipFile(hidden, "w") as new,
    ):
        content = old.read("content.xml").decode()
        content = content.replace("<office:body>", f"<office:automatic-styles {style_space}>{style}"
                                  "</office:automatic-styles><office:body>")  # fmt: skip
        content = content.replace('table:name="Secret"', 'table:name="Secret" table:style-name="off"')
        new.writestr("mimetype", old.read("mimetype"))
        new.writestr("content.xml", content)
    for name, content in (("a.xlsx", made.getvalue()), ("a.ods", hidden.getvalue())):
        _, records, entries = understand(tmp_path / name, content)
        assert len(records) == 1 and "secret" not in text_of(records)
        assert [entry.rule for entry in entries] == ["hidden sheet"]
