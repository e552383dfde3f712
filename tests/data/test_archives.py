"""Archives: members become files with fates of their own; bombs, climbers and damage are refused in the books."""

import gzip
import io
import struct
import tarfile
import zipfile

import pytest

from ownchat.config import Config
from ownchat.data import archives
from ownchat.data.files import Found
from ownchat.data.ledger import read_ledger
from ownchat.data.preview import preview
from ownchat.data.records import read_records
from ownchat.data.stage import run

FAQ = b"q,a\nHow long?,Ten weeks\n"


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return made.getvalue()


def imported(tmp_path, files: dict[str, bytes]):
    """Records by file, and {file: (fate, rule)}; the ledger has been checked by the stage."""
    source = tmp_path / "in"
    source.mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    (source / "zz.txt").write_text("always something")
    run(Config(), {"source": source}, tmp_path / "out")
    rows = [row for row in read_ledger(tmp_path / "out").to_pylist() if row["unit"] == "file"]
    fates = {row["id"]: (row["fate"], row["rule"]) for row in rows if row["fate"] not in ("changed", "cut")}
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == []
    return [record["source"]["file"] for record in read_records(tmp_path / "out")], fates


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar(tmp_path, mode):
    files, fates = imported(tmp_path, {"a.tar": tarred({"x/faq.csv": FAQ, "x/logo.png": b"png"}, mode)})
    assert files == ["a.tar/x/faq.csv", "zz.txt"]
    assert fates["a.tar"] == ("split", "unpacked")
    assert fates["a.tar/x/logo.png"] == ("dropped", "media")
    assert fates["a.tar/link"] == ("dropped", "special")


def test_zips_in_zips(tmp_path):
    inner = zipped({"faq.csv": FAQ})
    files, fates = imported(tmp_path, {"a.zip": zipped({"b.zip": inner, "note.txt": b"hello", ".DS_Store": b"x"})})
    assert files == ["a.zip/b.zip/faq.csv", "a.zip/note.txt", "zz.txt"]
    assert fates["a.zip/b.zip"] == ("split", "unpacked")
    assert fates["a.zip/.DS_Store"] == ("dropped", "hidden")


def test_archives_too_deep(tmp_path):
    content = FAQ
    for level in range(6):
        content = zipped({f"{level}.zip" if level else "faq.csv": content})
    files, fates = imported(tmp_path, {"a.zip": content})
    assert files == ["zz.txt"]
    assert ("dropped", "archive") in fates.values()


def test_names_that_climb_repeat_or_break_lines(tmp_path):
    climbing = zipped({"../../faq.csv": FAQ, "/abs/faq.csv": FAQ, "two\nlines.csv": FAQ})
    with pytest.warns(UserWarning):
        twice = io.BytesIO()
        with zipfile.ZipFile(twice, "w") as archive:
            archive.writestr("faq.csv", FAQ)
            archive.writestr("faq.csv", FAQ.replace(b"Ten", b"Nine"))
    files, _ = imported(tmp_path, {"a.zip": climbing, "b.zip": twice.getvalue()})
    assert files == [
        "a.zip/faq.csv", "a.zip/abs/faq.csv", "a.zip/two\nlines.csv", "b.zip/faq.csv", "b.zip/faq.csv (2)", "zz.txt",
    ]  # fmt: skip
    assert not (tmp_path / "faq.csv").exists()


def test_a_bomb_is_refused_and_the_rest_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1_000_000)
    bomb = zipped({"good.csv": FAQ, "zeros.txt": b"0" * 50_000_000, "after.csv": FAQ})
    assert len(bomb) < 60_000
    files, fates = imported(tmp_path, {"a.zip": bomb, "b.csv": FAQ})
    assert files == ["a.zip/good.csv", "b.csv", "zz.txt"]
    assert fates["a.zip/…"] == ("dropped", "archive")


def test_a_bomb_of_many_layers_shares_one_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 3_000_000)
    layer = zipped({f"{i}.txt": b"0" * 1_000_000 for i in range(5)})
    bomb = zipped({f"{i}.zip": layer for i in range(5)})
    (tmp_path / "a.zip").write_bytes(bomb)
    found = list(archives.expand([Found(tmp_path / "a.zip", "a.zip")], tmp_path / "room"))
    written = sum(path.stat().st_size for path in (tmp_path / "room").iterdir())
    assert written <= max(3_000_000, archives.MOST_GROWTH * len(bomb))
    assert any("grows" in one.skipped for one in found)


def test_damaged_and_locked_members(tmp_path):
    content = bytearray(zipped({"bad.csv": FAQ * 50, "good.csv": FAQ}, zipfile.ZIP_STORED))
    content[60] ^= 0xFF  # inside bad.csv: its checksum tells
    locked = bytearray(zipped({"secret.csv": FAQ}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = locked.find(signature) + offset
        locked[place : place + 2] = struct.pack("<H", 1)
    files, fates = imported(
        tmp_path, {"a.zip": bytes(content), "l.zip": bytes(locked), "cut.zip": zipped({"a": FAQ})[:40]}
    )
    assert files == ["a.zip/good.csv", "zz.txt"]
    assert fates["a.zip/bad.csv"] == ("dropped", "archive")
    assert fates["l.zip/secret.csv"] == ("dropped", "archive")
    assert fates["cut.zip/…"] == ("dropped", "archive")


def test_a_tar_that_ends_too_soon_keeps_what_was_read(tmp_path):
    whole = gzip.decompress(tarred({"a.csv": FAQ, "b.csv": FAQ * 1000}))
    files, fates = imported(tmp_path, {"a.tar": whole[:4000]})
    assert files == ["a.tar/a.csv", "zz.txt"]
    assert fates["a.tar/…"] == ("dropped", "archive")


def test_preview_looks_into_archives_and_leaves_nothing(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"faq.csv": FAQ}))
    (faq,) = preview(Config(), tmp_path / "a.zip")
    assert (faq["file"], faq["conversations"]) == ("a.zip/faq.csv", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
