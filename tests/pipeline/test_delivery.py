"""A copy of what was cleaned: whole or without a manifest, and nothing that stood there is lost."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from ownchat import artifacts
from ownchat.cli import app
from ownchat.config import Config
from ownchat.data.remote import Source, locate
from ownchat.errors import RunError, UserError
from ownchat.pipeline import delivery, run

FAQ = "question,answer\n" + "".join(
    f"What about number {n} of the {n * n}?,Take page {n} and read {n + 7} lines of it.\n" for n in range(30)
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="the test server for S3 is missing: pip install 'ownchat[test]'")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def there(address: str, monkeypatch: pytest.MonkeyPatch) -> fs.S3FileSystem:
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    urllib.request.urlopen(urllib.request.Request(f"http://{address}/moto-api/reset", method="POST"))
    storage = fs.S3FileSystem(endpoint_override=address, scheme="http", region="us-east-1", allow_bucket_creation=True)
    storage.create_dir("bucket")
    return storage


@pytest.fixture
def stage(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    (tmp_path / "faq.csv").write_text(FAQ)
    made = run.import_and_clean(
        tmp_path / "faq.csv", name=None, config=Config(), origins={}, clean=True, say=lambda _: None
    )
    return made / artifacts.CLEAN


@pytest.fixture(params=["folder", "bucket", "whole bucket"])
def target(request, tmp_path) -> Source:
    if request.param == "folder":
        return tmp_path / "out" / "clean"
    request.getfixturevalue("there")
    return locate("s3://bucket/out/clean" if request.param == "bucket" else "s3://bucket")


def test_all_of_it_arrives_and_the_manifest_last(stage, target, monkeypatch):
    put: list[str] = []
    real = delivery._put
    monkeypatch.setattr(delivery, "_put", lambda file, to, name, told: (put.append(name), real(file, to, name, told)))
    said: list[str] = []
    assert delivery.deliver(stage, target, said.append)
    names = {path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()}
    assert set(put) == names and put[-1] == artifacts.MANIFEST
    assert {"train/00000.parquet", "ledger.parquet"} <= names
    assert delivery.look_at(target) == {name: (stage / name).stat().st_size for name in names}
    assert f"{len(names)} files" in said[0] and str(target) in said[0]
    put.clear()
    assert not delivery.deliver(stage, target, said.append)
    assert not put and "has it already" in said[1]


def test_the_bytes_are_the_same(stage, there, tmp_path):
    delivery.deliver(stage, locate("s3://bucket/x"))
    with there.open_input_file("bucket/x/train/00000.parquet") as file:
        assert pq.read_table(file).equals(pq.read_table(stage / "train" / "00000.parquet"))
    delivery.deliver(stage, tmp_path / "x")
    assert (tmp_path / "x" / "ledger.parquet").read_bytes() == (stage / "ledger.parquet").read_bytes()


def test_a_copy_that_was_killed_goes_on(stage, target, monkeypatch):
    real = delivery._put

    def killed(file, to, name, told):
        if name.startswith("train"):
            raise KeyboardInterrupt
        real(file, to, name, told)

    monkeypatch.setattr(delivery, "_put", killed)
    with pytest.raises(KeyboardInterrupt):
        delivery.deliver(stage, target)
    assert delivery.look_at(target) and artifacts.MANIFEST not in delivery.look_at(target)
    monkeypatch.setattr(delivery, "_put", real)
    assert delivery.deliver(stage, target)
    assert artifacts.MANIFEST in delivery.look_at(target)


def test_what_did_not_arrive_whole_gets_no_manifest(stage, target, monkeypatch):
    real = delivery._put

    def short(file, to, name, told):
        if name == "ledger.parquet":
            file = stage / "half"
            file.write_bytes(b"x")
        real(file, to, name, told)

    monkeypatch.setattr(delivery, "_put", short)
    with pytest.raises(UserError, match=r'"ledger.parquet" did not arrive whole'):
        delivery.deliver(stage, target)
    assert artifacts.MANIFEST not in delivery.look_at(target)


def test_what_stands_there_stays(stage, target):
    delivery._put(stage / "ledger.parquet", target, "train/99999.parquet", lambda _: None)
    with pytest.raises(RunError, match=r'something else is there: "train/99999.parquet"'):
        delivery.deliver(stage, target)
    assert list(delivery.look_at(target)) == ["train/99999.parquet"]


def test_another_stage_there_stays(stage, target):
    delivery.deliver(stage, target)
    manifest = artifacts.read_json(stage / artifacts.MANIFEST)
    artifacts.write_json(stage / artifacts.MANIFEST, {**manifest, "key": "another"})
    with pytest.raises(RunError, match="another cleaned stage is there"):
        delivery.deliver(stage, target)
    assert delivery.read_manifest(target) == manifest


def test_places_that_cannot_be(stage, there, tmp_path):
    with there.open_output_stream("bucket/object") as stream:
        stream.write(b"x")
    for place, text in {
        "s3://bucket/object": "an object, not a prefix",
        "s3://missing/x": 'there is no bucket "missing"',
        str(tmp_path / "faq.csv"): "a file, not a folder",
        "gs://bucket/x": "gs:// is not supported",
    }.items():
        with pytest.raises(UserError, match=text):
            delivery.look_at(locate(place))
    with pytest.raises(RunError, match="would stand in the source"):
        delivery.refuse_inside(tmp_path, tmp_path / "out")
    with pytest.raises(RunError, match="would stand in the source"):
        delivery.refuse_inside(locate("s3://bucket/a"), locate("s3://bucket/a/b"))
    delivery.refuse_inside(locate("s3://bucket/a"), locate("s3://bucket/ab"))


def test_from_storage_to_storage_at_the_command_line(there, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    with there.open_output_stream("bucket/In Box/faq.csv") as stream:
        stream.write(FAQ.encode())
    command = ["clean", "s3://bucket/In Box", "--to", "s3://bucket/out"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0 and "to s3://bucket/out" in done.output and "runs/in-box" in done.output
    assert artifacts.MANIFEST in delivery.look_at(locate("s3://bucket/out"))
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "has it already" in again.output
    page = CliRunner().invoke(app, ["clean", "s3://bucket/In Box", "--preview"], catch_exceptions=False)
    assert page.exit_code == 0 and (tmp_path / "home" / "previews" / "in-box" / "clean.html").exists()
    look = CliRunner().invoke(app, ["import", "s3://bucket/In Box", "--preview", "--json"], catch_exceptions=False)
    assert '"conversations": 30' in look.output
    stored = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert b"test-secret" not in stored and b"test-id" not in stored
