"""Stage 1: everything that stands in the folder has its fate; bad input has one clear message."""

import csv
import gzip
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownchat import artifacts
from ownchat.config import Config, load_config
from ownchat.data.ledger import lineage, read_ledger
from ownchat.data.preview import preview
from ownchat.data.records import read_records, shards
from ownchat.data.stage import run
from ownchat.errors import ConfigError, DataError

FAQ = "q,a\nHow long?,Ten weeks\nHow much?,\nWhere?,Here\n"
CHAT = json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def fates(output: Path, unit: str) -> dict[str, tuple[str, str]]:
    """{id: (fate, rule)} of a unit; an id with two fates is a fault."""
    found: dict[str, tuple[str, str]] = {}
    for row in read_ledger(output).to_pylist():
        if row["unit"] == unit and row["fate"] not in ("changed", "cut"):
            assert row["id"] not in found
            found[row["id"]] = (row["fate"], row["rule"])
    return found


def test_a_mixed_folder(tmp_path, capsys):
    source = write(
        tmp_path / "inbox",
        {
            "faq.csv": FAQ,
            "chats/one.jsonl.gz": gzip.compress(CHAT.encode()),
            "chats/notes.md": "# Notes\n\nThe house is blue.\n",
            "logo [1].png": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
            "void.txt": "",
            ".hidden/secret.csv": FAQ,
            "prices.csv": "name,price\nbrick,2\n",
        },
    )
    os.mkfifo(source / "pipe")
    (source / "gone").symlink_to(source / "nowhere")
    report = run(Config(), {"source": source}, tmp_path / "1-data")
    assert report.counts == {"files": 9, "records": 4}
    kept = {name for name, (fate, _) in fates(tmp_path / "1-data", "file").items() if fate == "kept"}
    assert kept == {"faq.csv", "chats/one.jsonl.gz", "chats/notes.md"}
    assert fates(tmp_path / "1-data", "file")["logo [1].png"] == ("dropped", "media")
    assert fates(tmp_path / "1-data", "file")[".hidden"] == ("dropped", "hidden")
    assert report.details["ledger"]["row"]["dropped"] == 1
    assert report.details["rules"]["row dropped"] == {"no answer": 1}
    warned = capsys.readouterr().err
    assert all(name in warned for name in ("1 file of pictures", "void.txt", "prices.csv", "pipe", "gone"))
    ids = {record["id"] for record in read_records(tmp_path / "1-data")}
    assert ids == {id for id, (fate, _) in fates(tmp_path / "1-data", "row").items() if fate == "kept"}


def test_a_record_leads_back_to_its_file_and_line(tmp_path):
    source = write(tmp_path, {"faq.csv": FAQ})
    run(Config(), {"source": source}, tmp_path / "out" / "1-data")
    last = list(read_records(tmp_path / "out" / "1-data"))[-1]
    assert last["source"] == {"file": "faq.csv", "format": "csv", "line": 4, "offset": None}
    assert {row["id"] for row in lineage(last["id"], [tmp_path / "out" / "1-data"])} == {last["id"], "faq.csv"}


def test_ids_do_not_depend_on_the_place(tmp_path):
    for place in ("one", "two/deeper"):
        run(Config(), {"source": write(tmp_path / place, {"a/faq.csv": FAQ})}, tmp_path / place / "../out" / place)
    first, second = (list(read_records(tmp_path / place / "../out" / place)) for place in ("one", "two/deeper"))
    assert first == second


def test_several_sources_with_one_name_stay_apart(tmp_path):
    write(tmp_path, {"x/faq.csv": FAQ, "y/faq.csv": FAQ})
    inputs = {"source-0": tmp_path / "x/faq.csv", "source-1": tmp_path / "y/faq.csv"}
    report = run(Config(), inputs, tmp_path / "out")
    assert [file["file"] for file in report.details["files"]] == ["0-faq.csv", "1-faq.csv"]
    assert len({record["id"] for record in read_records(tmp_path / "out")}) == 4


def test_system_prompt_is_added_where_there_is_none(tmp_path):
    own = CHAT.replace("[", '[{"role": "system", "content": "Mine."}, ', 1)
    source = write(tmp_path / "in", {"a.jsonl": f"{CHAT}\n{own}\n", "b.txt": "words"})
    plain = run(Config(), {"source": source}, tmp_path / "plain")
    config = load_config(sets=["data.system=Be kind."])[0]
    report = run(config, {"source": source}, tmp_path / "with")
    records = list(read_records(tmp_path / "with"))
    assert [record["messages"][0]["content"] for record in records[:2]] == ["Be kind.", "Mine."]
    assert [record["id"] for record in records] == [record["id"] for record in read_records(tmp_path / "plain")]
    assert report.details["rules"]["row changed"] == {"system prompt added": 1}
    assert "row changed" not in plain.details["rules"]


def test_a_guessed_encoding_is_in_the_books(tmp_path):
    source = write(tmp_path / "in", {"a.txt": "Vad är bygglov? Fråga oss.".encode("cp1252")})
    report = run(Config(), {"source": source / "a.txt"}, tmp_path / "out")
    assert report.details["rules"]["file changed"] == {"decoded as cp1252": 1}
    assert report.details["files"][0]["encoding"] == "cp1252"


def test_a_very_large_text_is_split_in_the_books(tmp_path):
    text = "A line of a long story.\n\n" * 200_000
    report = run(Config(), {"source": write(tmp_path / "in", {"a.txt": text})}, tmp_path / "out")
    records = list(read_records(tmp_path / "out"))
    assert "".join(record["text"] for record in records) == text
    assert [record["source"]["offset"] for record in records][:2] == [0, len(records[0]["text"])]
    assert records[1]["source"]["line"] == 1 + records[0]["text"].count("\n")
    total = report.details["ledger"]["row"]
    assert (total["in"], total["split"], total["kept"]) == (len(records) + 1, 1, len(records))


def test_a_complete_stage_is_not_run_again(tmp_path):
    source = write(tmp_path / "in", {"faq.csv": FAQ})
    run(Config(), {"source": source}, tmp_path / "out")
    manifest = (tmp_path / "out" / artifacts.MANIFEST).stat()
    run(Config(), {"source": source}, tmp_path / "out")
    assert (tmp_path / "out" / artifacts.MANIFEST).stat().st_mtime_ns == manifest.st_mtime_ns
    write(source, {"faq.csv": FAQ + "Who?,We\n"})
    assert run(Config(), {"source": source}, tmp_path / "out").counts["records"] == 3


@pytest.mark.parametrize(
    "files, name, parts",
    [
        ({}, "missing", ["no such file"]),
        ({}, ".", ["the folder is empty"]),
        ({"a.bin": b"a\0b\1c\2"}, "a.bin", ["a.bin", "binary file"]),
        ({"a.bin": b"a\0b\1c\2"}, ".", ["a.bin", "binary file"]),
        ({".x": "a"}, ".", ["nothing to read"]),
        ({"a.jsonl": "{oops\n{oops\n"}, ".", ["a.jsonl", "line 1", "column 2"]),
        ({"a.csv": "q,a\nWhy?,\nHow?, \n"}, ".", ["a.csv", "line 2", "no answer", "--map answer=COLUMN"]),
        ({"a.jsonl": '{"messages": [{"role": "user", "content": "x"}]}'}, "a.jsonl", ["line 1", "no assistant turn"]),
        ({"a.csv": "text,label\nHello you there,x\n"}, ".", ["no column can be an answer", '"text", "label"']),
        ({"a.csv": "q,a\n"}, "a.csv", ["no rows"]),
        ({"a.txt": ""}, "a.txt", ["the file is empty"]),
    ],
)
def test_bad_input(tmp_path, files, name, parts):
    source = tmp_path / "in"
    source.mkdir()
    write(source, files)
    with pytest.raises(DataError) as error:
        run(Config(), {"source": source / name}, tmp_path / "out")
    assert all(part in str(error.value) for part in parts), error.value
    assert error.value.where
    assert error.value.fix
    assert not (tmp_path / "out" / artifacts.MANIFEST).exists()


def test_a_part_that_does_not_exist(tmp_path):
    source = write(tmp_path / "in", {"faq.csv": FAQ})
    with pytest.raises(ConfigError, match='did you mean "answer"'):
        run(load_config(values={"data.map": {"anwser": "a"}})[0], {"source": source}, tmp_path / "out")


def test_a_bad_row_is_in_the_books_and_the_others_are_read(tmp_path, capsys):
    source = write(tmp_path / "in", {"a.jsonl": CHAT + "\n{oops\n" + CHAT + "\n", "b.csv": 'q,a\nx?,y\nz?,"open\n'})
    report = run(Config(), {"source": source}, tmp_path / "out")
    assert report.counts["records"] == 3
    rows = [row for row in read_ledger(tmp_path / "out").to_pylist() if row["fate"] == "unreadable"]
    assert [(row["rule"], row["detail"].partition(":")[0]) for row in rows] == [
        ("invalid JSON", "a.jsonl, line 2"),
        ("a damaged row", "b.csv, line 3"),
    ]
    warned = capsys.readouterr().err
    assert "a.jsonl, line 2" in warned
    assert "never closed" in " ".join(warned.split())


def test_preview(tmp_path):
    source = write(tmp_path / "in", {"faq.csv": FAQ * 50, "x.zst": b"\x28\xb5\x2f\xfd", ".h": "x"})
    hidden, faq, packed = preview(Config(), source, rows=2)
    assert faq["columns"] == {"question": "q", "answer": "a"}
    assert [record["source"]["line"] for record in faq["records"]] == [2, 4]
    assert faq["set_aside"] == {"no answer": 50}
    assert (faq["conversations"], faq["complete"], faq["problems"]) == (149, True, [])
    assert "zstd" in packed["problem"]
    assert (hidden["file"], hidden["problem"]) == (".h", "hidden")


# ------------------------------------------------------------------------------------------------------- properties

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
CELL = st.one_of(LINE, st.sampled_from(["", " ", "a,b", 'say "x"', "two\nlines", "cafÃ©", "Why?"]))
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def import_one(name: str, content: bytes) -> tuple[dict, int, list[bytes]]:
    """Ledger totals, records and output bytes of one file beside one that always has a record."""
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder) / "in", {name: content, "zz.txt": "always something"})
        report = run(Config(), {"source": source}, Path(folder) / "out")
        fates(Path(folder) / "out", "row")
        written = [path.read_bytes() for path in [*shards(Path(folder) / "out"), Path(folder) / "out/ledger.parquet"]]
        return report.details["ledger"], report.counts["records"], written


def balanced(total: dict[str, int]) -> bool:
    return total["in"] == sum(total[fate] for fate in ("kept", "dropped", "unreadable", "split", "merged"))


@MANY
@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=12), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_every_csv_row_has_one_fate(rows, encoding):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("question", "answer", "customer"), *rows])
    ledger, records, written = import_one("a.csv", text.getvalue().encode(encoding))
    assert balanced(ledger["row"])
    assert balanced(ledger["file"])
    assert ledger["row"]["in"] == len(rows) + 1
    good = sum(bool(question.strip() and answer.strip()) for question, answer, _ in rows)
    assert records == ledger["row"]["kept"] == good + 1
    assert import_one("a.csv", text.getvalue().encode(encoding))[2] == written


CONTENT = st.one_of(st.none(), CELL, st.lists(st.builds(lambda text: {"type": "text", "text": text}, CELL), max_size=2))
TURN = st.builds(
    lambda role, content: {"role": role, "content": content}, st.sampled_from(["user", "assistant", "system"]), CONTENT
)


@MANY
@given(st.lists(st.one_of(st.just({}), st.builds(lambda m: {"messages": m}, st.lists(TURN, max_size=4))), max_size=10))
def test_every_json_line_has_one_fate(rows):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    ledger, records, written = import_one("a.jsonl", content)
    assert balanced(ledger["row"])
    assert ledger["row"]["in"] == 1 + (len(rows) if any(rows) else 0)  # nothing but {} is a file without rows
    assert records == ledger["row"]["kept"]
    assert import_one("a.jsonl", content)[2] == written


@MANY
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    try:
        ledger, _, _ = import_one("a.dat", content)
    except DataError as error:
        assert error.what
        return
    assert balanced(ledger["row"])
    assert balanced(ledger["file"])
    assert ledger["file"]["in"] >= 2  # the first bytes of an archive make one more
