"""Damage of every kind, to every format: a clear line in the books, never a crash, and everything else imported."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from samples import samples, write_samples

from ownchat.config import Config, load_config
from ownchat.data.ledger import read_ledger
from ownchat.data.preview import preview
from ownchat.data.records import read_records
from ownchat.data.stage import run

SAMPLES = samples()
TEXTS = [format for format, (_, content) in SAMPLES.items() if b"\0" not in content and not content.startswith(b"PK")]
GOOD = "good.csv"


def imported(name: str, content: bytes) -> tuple[list[dict], list[dict]]:
    """Records and ledger of a file beside a good one, which must always come through; the stage checks the sums."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        (source / name).write_bytes(content)
        (source / GOOD).write_text("question,answer\nWhat is good?,This is.\n")
        run(load_config(values={"data.workers": 1})[0], {"source": source}, Path(folder) / "out")
        records, ledger = list(read_records(Path(folder) / "out")), read_ledger(Path(folder) / "out").to_pylist()
    assert [record for record in records if record["source"]["file"] == GOOD]
    others = [record for record in records if record["source"]["file"] != GOOD]
    said = [row for row in ledger if row["unit"] == "file" and row["id"] == name]
    assert said, "the file has a fate"
    assert "the reader stopped" not in " ".join(row["detail"] for row in ledger), "a reader raised what nobody foresaw"
    return others, ledger


@pytest.mark.parametrize("format", SAMPLES)
def test_samples_are_good(format):
    name, content = SAMPLES[format]
    records, ledger = imported(name, content)
    assert records
    assert not [row for row in ledger if row["fate"] == "unreadable"]


@pytest.mark.parametrize("format", SAMPLES)
def test_cut_off_anywhere(format):
    name, content = SAMPLES[format]
    chance = random.Random(format)
    for end in sorted(chance.sample(range(1, len(content)), 10)):
        imported(name, content[:end])


@pytest.mark.parametrize("format", SAMPLES)
def test_flipped_bytes(format):
    name, content = SAMPLES[format]
    chance = random.Random(format)
    for flips in (1, 3, 20, 200):
        damaged = bytearray(content)
        for place in chance.choices(range(len(content)), k=flips):
            damaged[place] ^= 1 << chance.randrange(8)
        imported(name, bytes(damaged))


@pytest.mark.parametrize("format", TEXTS)
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.decode().encode("utf-16"),
        lambda content: content.decode().encode("cp1252", "replace"),
        lambda content: content + "\nÜber\n".encode("cp1252"),
    ],
    ids=["CRLF", "BOM", "UTF-16", "Windows-1252", "mixed"],
)
def test_line_ends_and_encodings_change_nothing(format, change):
    name, content = SAMPLES[format]
    if format in ("eml", "mbox") and change(content).startswith(b"\xff\xfe"):
        pytest.skip("a mail is bytes with charsets of its own")
    if format == "chatterbot" and change(content).startswith(content):
        pytest.skip("a line of prose is no YAML")
    before, _ = imported(name, content)
    after, _ = imported(name, change(content))

    def words(records: list[dict]) -> set[str]:
        texts = [record["text"] or "" for record in records]
        texts += [
            turn["content"]
            for record in records
            for part in ("messages", "chosen", "rejected")
            for turn in record[part] or ()
        ]
        return set(" ".join(texts).split())

    lost = words(before) - words(after)
    assert len(lost) <= 0.02 * len(words(before)), lost


@pytest.mark.parametrize("format", TEXTS)
def test_a_very_long_line(format):
    name, content = SAMPLES[format]
    imported(name, content + b"\n" + b"x" * 3_000_000 + b"\n" + content[:200])


@pytest.mark.parametrize(
    "content", [b"[" * 10_000, b'{"a":' * 10_000, b"<div>" * 10_000, b"> " * 10_000, b"- " * 10_000]
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.html", "a.yml", "a.txt", "a.eml", "a.csv"])
def test_deep_nesting(name, content):
    imported(name, content)
    imported(name, content + b"\nand more text\n")


def test_all_in_one_folder(tmp_path):
    write_samples(tmp_path / "in")
    report = run(Config(), {"source": tmp_path / "in"}, tmp_path / "out")
    total = report.details["ledger"]
    for unit in ("file", "row", "message"):
        fates = ("kept", "dropped", "unreadable", "split", "merged")
        assert total[unit]["in"] == sum(total[unit][fate] for fate in fates)
    read = {file["file"].split("/")[0] for file in report.details["files"] if file["records"]}
    mail = {"mbox", "eml"}  # read together: one entry for both
    assert read - {"all (2 files)"} == set(SAMPLES) - mail
    shown = preview(Config(), tmp_path / "in")
    assert (
        sum(file.get("conversations", 0) + file.get("documents", 0) + file.get("preferences", 0) for file in shown)
        == (report.counts["records"])
    )
