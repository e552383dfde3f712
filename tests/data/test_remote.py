"""Objects of S3-compatible storage: the same records as from a folder, and one message for whatever goes wrong.

The server is a real one of the network, of this process (moto); objects are put with pyarrow's own client.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import socket
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs
from samples import write_samples

from ownchat import artifacts
from ownchat.clean import stage as cleaning
from ownchat.config import Config, load_config
from ownchat.data import plan, remote, storage, workers
from ownchat.data.files import find
from ownchat.data.preview import preview
from ownchat.data.records import read_records
from ownchat.data.remote import Remote, RemoteFile, RemoteStream, existing, locate
from ownchat.data.stage import run
from ownchat.data.storage import RemoteError
from ownchat.errors import UserError

moto = pytest.importorskip("moto.server", reason="the test server for S3 is missing: pip install 'ownchat[test]'")

FAQ = "question,answer\nHow long does it take?,Ten weeks\nWhere are you?,In the old house\n"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


def client(address: str) -> fs.S3FileSystem:
    return fs.S3FileSystem(endpoint_override=address, scheme="http", region="us-east-1", allow_bucket_creation=True)


@pytest.fixture
def bucket(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bytes]], Remote]]:
    """A function that puts objects into a bucket and returns it; the environment points to the server."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, value in {
        "AWS_ENDPOINT_URL": f"http://{address}", "AWS_ACCESS_KEY_ID": "test-id", "AWS_SECRET_ACCESS_KEY": "test-secret",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    urllib.request.urlopen(urllib.request.Request(f"http://{address}/moto-api/reset", method="POST"))
    remote.beginning.cache_clear()
    there = client(address)
    there.create_dir("bucket")

    def put(files: dict[str, bytes]) -> Remote:
        for key, content in files.items():
            with there.open_output_stream(f"bucket/{key}", compression=None) as stream:
                stream.write(content)
        return Remote("bucket", "")

    yield put


def read_folder(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def results(stage: Path) -> dict[str, bytes]:
    """The files of a stage; its manifest tells the time."""
    return {name: content for name, content in read_folder(stage).items() if name != artifacts.MANIFEST}


def message(url: str) -> str:
    with pytest.raises(UserError) as caught:
        existing(url)
    return str(caught.value)


def test_every_format_gives_the_same_bytes_as_from_a_folder(tmp_path, bucket):
    folder = tmp_path / "inbox"
    write_samples(folder)
    (folder / "sub dir").mkdir()
    (folder / "sub dir" / "ü#%20?+&.csv").write_text(FAQ)
    (folder / "sub-dir.csv.gz").write_bytes(gzip.compress(FAQ.replace("weeks", "months").encode()))
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.csv").write_text(FAQ)
    (folder / ".hidden" / "b.csv").write_text(FAQ)
    (folder / ".hide").write_text(FAQ)
    (folder / "logo.png").write_bytes(b"\x89PNG" + bytes(50))
    (folder / "void.txt").write_bytes(b"")
    (folder / "cut.zip").write_bytes(b"PK\x03\x04" + bytes(50))
    with zipfile.ZipFile(folder / "pack.zip", "w") as archive:
        archive.writestr("in/side.csv", FAQ.replace("old", "new"))
        archive.writestr("in/inner.csv.gz", gzip.compress(FAQ.replace("old", "other").encode()))
    for box in ("cur", "new"):  # a folder of mail that begins with a dot, in a program's way
        (folder / ".Sent" / box).mkdir(parents=True)
    mail = (folder / "eml" / "mail.eml").read_bytes()
    (folder / ".Sent" / "cur" / "1").write_bytes(mail.replace(b"Message-ID: <", b"Message-ID: <again"))
    bucket({f"a/inbox/{name}": content for name, content in read_folder(folder).items()})
    source = locate("s3://bucket/a/inbox/")
    run(Config(), {"source": folder}, tmp_path / "local" / "1-data")
    run(Config(), {"source": source}, tmp_path / "remote" / "1-data")
    assert [found.name for found in find([folder])] == [found.name for found in find([source])]
    assert results(tmp_path / "local" / "1-data") == results(tmp_path / "remote" / "1-data")
    for place in ("local", "remote"):
        cleaning.run(Config(), {"data": tmp_path / place / "1-data"}, tmp_path / place / "2-clean")
    assert results(tmp_path / "local" / "2-clean") == results(tmp_path / "remote" / "2-clean")
    assert preview(Config(), folder) == preview(Config(), source)


def test_several_processes_open_objects_themselves(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(workers, "LEAST_BYTES", 0)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 1)
    config, _ = load_config(sets=["data.workers=2"])
    source = bucket({f"{number}.csv": FAQ.replace("old", f"old {number}").encode() for number in range(3)})
    run(config, {"source": source}, tmp_path / "1-data")
    assert [row["source"]["file"] for row in read_records(tmp_path / "1-data")] == sorted(
        [f"{n}.csv" for n in "012"] * 2
    )
    source.files[1] = RemoteFile("bucket", "1.csv", 3, '"other"')  # and their errors are the same
    tasks = [[plan.Task("csv", [(file, file.name)], 1)] for file in source.files]
    with pytest.raises(UserError, match=r"s3://bucket/1.csv: the object changed"):
        list(workers.read_chunks(tasks, config.data, tmp_path / "parts", lambda _: None))


def test_one_object_is_a_source_and_gives_its_name(tmp_path, bucket):
    bucket({"a/faq.csv": FAQ.encode(), "a/faq.csv.old": b"x"})
    run(Config(), {"source": locate("s3://bucket/a/faq.csv")}, tmp_path)
    assert {row["source"]["file"] for row in read_records(tmp_path)} == {"faq.csv"}


def test_a_stage_is_complete_until_an_object_changes(tmp_path, bucket):
    bucket({"a/one.csv": FAQ.encode(), "a/two.csv": FAQ.encode()})
    run(Config(), {"source": locate("s3://bucket/a")}, tmp_path)
    shard = (tmp_path / "00000.parquet").stat().st_ino
    run(Config(), {"source": locate("s3://bucket/a")}, tmp_path)
    assert (tmp_path / "00000.parquet").stat().st_ino == shard
    bucket({"a/two.csv": FAQ.replace("Ten", "Two").encode()})  # of the same length, in the same second perhaps
    run(Config(), {"source": locate("s3://bucket/a")}, tmp_path)
    assert sum("Two weeks" in str(row["messages"]) for row in read_records(tmp_path)) == 1


def test_what_is_no_file_is_passed_over(tmp_path, bucket, address):
    source = bucket({"a.csv": FAQ.encode()})
    for key in ("folder/", "b//c.csv"):
        request = urllib.request.Request(f"http://{address}/bucket/{key}", data=b"", method="PUT")
        urllib.request.urlopen(request)
    assert [(found.name, found.skipped) for found in find([source])] == [
        ("a.csv", ""), ("b//c.csv", "a part of its name is empty"),
    ]  # fmt: skip


CONTENT = bytes(range(256)) * 40


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from("srel"), st.integers(0, 11_000)), max_size=8))
def test_a_stream_is_a_file(bucket, steps):
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"BEGINNING": 1000, "CHUNK": 3000, "HOP": 700}.items():
            patch.setattr(remote, name, size)
        file = bucket({"x": CONTENT}).files[0]
        counted: list[int] = []
        with RemoteStream(file, counted.append) as raw, io.BufferedReader(raw, 512) as stream:
            twin = io.BytesIO(CONTENT)
            for step, number in steps:
                if step == "s":
                    assert stream.seek(number) == twin.seek(number)
                elif step == "e":
                    back = -min(number, len(CONTENT))
                    assert stream.seek(back, os.SEEK_END) == twin.seek(back, os.SEEK_END)
                elif step == "l":
                    assert stream.readline() == twin.readline()
                else:
                    assert stream.read(number) == twin.read(number)
                assert stream.tell() == twin.tell()
        assert all(0 < count <= 10_240 for count in counted)


def test_large_text_comes_in_ranges(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(remote, "BEGINNING", 1 << 14)
    monkeypatch.setattr(remote, "CHUNK", 1 << 18)
    monkeypatch.setattr(remote, "HOP", 1 << 16)
    asked: list[int] = []
    whole = RemoteStream._range
    monkeypatch.setattr(RemoteStream, "_range", lambda self, count: asked.append(count) or whole(self, count))
    lines = (
        json.dumps({"question": f"What is {n}?", "answer": f"It is number {n} " + "x" * 80}) for n in range(30_000)
    )
    source = bucket({"big.jsonl": "\n".join(lines).encode()})
    told: list[int] = []
    tasks = [[plan.Task("jsonl", [(file, file.name)], file.size)] for file in source.files]
    list(workers.read_chunks(tasks, Config().data, tmp_path / "parts", told.append))
    assert sum(told) == source.files[0].size  # the progress bar reaches its end
    assert len(asked) < 2 * source.files[0].size / (1 << 18) + 12  # a reader of lines asks for 8 kB at a time
    assert max(asked) <= 1 << 20 < source.files[0].size / 3
    assert sum(asked) < 2 * source.files[0].size + (2 << 20)  # checked once, read once, and its beginning


def test_an_object_that_changes_while_it_is_read(bucket, monkeypatch):
    for name in ("BEGINNING", "CHUNK", "HOP"):
        monkeypatch.setattr(remote, name, 1000)
    for later in (CONTENT[::-1], CONTENT[:2000]):  # as long; shorter, where the client hands out what was in memory
        file = bucket({"x": CONTENT}).files[0]
        with pytest.raises(RemoteError, match="changed after it was looked at"), RemoteStream(file) as stream:
            buffered = io.BufferedReader(stream, 512)
            buffered.read(3000)
            bucket({"x": later})
            buffered.read()
        remote.beginning.cache_clear()
        with pytest.raises(RemoteError, match="changed after it was looked at"):
            RemoteStream(file).read(10)


def test_an_object_that_goes_away_ends_the_import(tmp_path, bucket, address):
    source = bucket({"a.csv": FAQ.encode(), "b.csv": FAQ.encode()})
    assert len(source.files) == 2
    client(address).delete_file("bucket/b.csv")
    with pytest.raises(RemoteError, match=r"s3://bucket/b.csv: there is no such object \(any more\)"):
        run(Config(), {"source": source}, tmp_path)
    assert not (tmp_path / artifacts.MANIFEST).exists()


def test_a_server_that_goes_away_ends_the_import(tmp_path, bucket, address, monkeypatch):
    own = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)  # of the same objects
    own.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*own.get_host_and_port()))
    source = bucket({"a.csv": FAQ.encode()})
    assert source.files
    own.stop()
    with pytest.raises(RemoteError, match="cannot be reached, or the connection broke"):
        run(Config(), {"source": source}, tmp_path)
    assert not (tmp_path / artifacts.MANIFEST).exists()


def test_nothing_there(bucket, address):
    bucket({"inbox/faq.csv": FAQ.encode()})
    assert 'did you mean "inbox"?' in message("s3://bucket/inbix")
    assert "no such object, and none under this prefix" in message("s3://bucket/inbox/other.csv")
    assert 'there is no bucket "buckets"' in message("s3://buckets/inbox")
    assert 'there is no bucket "buckets"' in message("s3://buckets")
    client(address).create_dir("empty")
    assert "the bucket is empty" in message("s3://empty")
    assert "a part of this name is empty" in message("s3://bucket/inbox//faq.csv")


def test_access_is_denied(bucket, address):
    bucket({"inbox/faq.csv": FAQ.encode()})
    with without_permission(address):
        text = message("s3://bucket/inbox")
        assert "access is denied with the credentials found" in text
        assert "test-id" not in text and "test-secret" not in text


@contextlib.contextmanager
def without_permission(address: str) -> Iterator[None]:
    def allow(count: str) -> None:
        headers = {"Content-Type": "text/plain"}
        url = f"http://{address}/moto-api/reset-auth"
        urllib.request.urlopen(urllib.request.Request(url, count.encode(), headers, method="POST"))

    allow("0")
    try:
        yield
    finally:
        allow("inf")


def test_a_server_that_is_away_or_silent(bucket, monkeypatch):
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "does not answer" in message("s3://bucket/inbox")
    assert "cannot be reached" in message("s3://bucket/inbox")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    assert "this is no address of a server" in message("s3://bucket/inbox")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://anna:secret@127.0.0.1:9000")
    assert "without a name or a password" in message("s3://bucket/inbox") and "secret" not in message("s3://bucket/x")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("gs://bucket/inbox", "gs:// is not supported"),
        ("https://example.org/faq.csv", "https:// is not supported"),
        ("s3a://bucket/inbox", "write s3://"),
        ("file:///tmp", "write the path alone"),
        ("s3://", "names no bucket"),
        ("s3:///inbox", "names no bucket"),
        ("s3://my bucket/inbox", "names no bucket"),
    ],
)
def test_other_addresses(url, text):
    assert text in message(url)
    if not url.startswith(("s3:", "file:")):
        assert text in message(str(Path(url)))  # a Path has made one slash of two


def test_no_secret_of_a_url_is_repeated():
    text = message("s3://AKIA123:hidden@bucket/inbox")
    assert "no credentials" in text and "AKIA123" not in text and "hidden" not in text


def test_a_file_with_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "re:").mkdir()
    (tmp_path / "re:" / "faq.csv").write_text(FAQ)
    assert existing("re:/faq.csv") == Path("re:/faq.csv")
    assert locate("S3://bucket/a") == locate(Path("s3://bucket/a/")) == Remote("bucket", "a")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "access is denied"),
        ("AWS Error INVALID_ACCESS_KEY_ID during ListObjectsV2 operation: AKIA1", "does not take the credentials"),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during ListObjectsV2 operation: AKIA1", "does not take the credentials"),
        ("AWS Error SLOW_DOWN during GetObject operation: wait", "is not well"),
        ("AWS Error UNKNOWN (HTTP status 503) during GetObject operation: AKIA1", "is not well"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: AKIA1", r"unknown \(HTTP status 301\)"),
        ("AWS Error INVALID_OBJECT_STATE during GetObject: AKIA1", "refuses: invalid object state"),
    ],
)
def test_refusals_say_nothing_of_the_credentials(error, text, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    for credentials in ("AKIA1", ""):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials)
        said = str(storage.refusal(OSError(error), "s3://bucket/x", "bucket"))
        assert re.search(text, said) and "AKIA1" not in said


def test_a_full_disk_stops_before_fetching(tmp_path, bucket, monkeypatch):
    with io.BytesIO() as packed, zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("faq.csv", FAQ)
        archive.close()
        source = bucket({"pack.zip": packed.getvalue()})
    monkeypatch.setattr(remote, "ROOM_LEFT", 10**18)
    with pytest.raises(UserError, match="are needed and"):
        run(Config(), {"source": source}, tmp_path)


def test_parquet_is_read_where_it_lies(tmp_path, bucket, monkeypatch):
    folder = tmp_path / "inbox"
    write_samples(folder)
    columnar = {name: content for name, content in read_folder(folder).items() if name.endswith(("parquet", "arrow"))}
    assert columnar
    source = bucket(columnar)
    monkeypatch.setattr(remote, "fetch", None)
    run(Config(), {"source": source}, tmp_path / "1-data")
    assert pq.read_metadata(tmp_path / "1-data" / "00000.parquet").num_rows == 5 * len(columnar)


def test_an_examination_may_lie_in_storage(tmp_path, bucket):
    words = "Name the three oldest houses of the town and say which of them was built before the great fire"
    bucket({"exam/questions.csv": f"question,answer\n{words}?,All of them were\n".encode()})
    (tmp_path / "faq.csv").write_text(FAQ + f"{words}?,None\nWho pays?,We do\nMay I bring a dog?,Please do\n")
    run(Config(), {"source": tmp_path / "faq.csv"}, tmp_path / "1-data")
    config, _ = load_config(sets=["clean.decontaminate=[s3://bucket/exam]"])
    report = cleaning.run(config, {"data": tmp_path / "1-data"}, tmp_path / "2-clean")
    assert report.details["rules"]["row dropped"] == {"contaminated": 1}
