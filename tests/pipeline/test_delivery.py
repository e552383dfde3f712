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
from ownchat.clean.recipe import result_key
from ownchat.cli import app
from ownchat.config import Config, load_config
from ownchat.data.remote import Source, locate
from ownchat.errors import RunError, UserError
from ownchat.pipeline import delivery, run

FAQ = "question,answer\n" + "".join(
    f"What about number {n} of the {n * n}?,Take page {n} and read {n + 7} lines of it.\n" for n in [*range(30), 0]
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
    assert "dropped/00000.parquet" in names and "dropped" in said[0]
    names -= {"dropped/00000.parquet"}
    assert put[0] == delivery.MARKER and set(put[1:]) == names and put[-1] == artifacts.MANIFEST
    assert {"train/00000.parquet", "ledger.parquet"} <= names
    there = delivery.look_at(target)
    assert there.pop(artifacts.MANIFEST)
    assert there == {name: (stage / name).stat().st_size for name in names - {artifacts.MANIFEST}}
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


@pytest.mark.parametrize("name", ["train/99999.parquet", "train/00000.parquet", "ledger.parquet", ".hidden"])
def test_what_stands_there_stays(stage, target, name):
    delivery._put(stage / "ledger.parquet", target, name, lambda _: None)
    with pytest.raises(RunError, match=rf'something else is there: "{name}"'):
        delivery.deliver(stage, target)
    assert delivery.look_at(target) == {name: (stage / "ledger.parquet").stat().st_size}


def test_another_stage_there_stays(stage, target):
    delivery.deliver(stage, target)
    manifest = artifacts.read_json(stage / artifacts.MANIFEST)
    artifacts.write_json(stage / artifacts.MANIFEST, {**manifest, "key": "another"})
    with pytest.raises(RunError, match="another cleaned stage is there"):
        delivery.deliver(stage, target)
    assert delivery.read_manifest(target)["key"] == manifest["key"]


def test_somebody_elses_manifest_stays(stage, target):
    other = stage / "ledger.parquet"
    for name in (artifacts.MANIFEST, delivery.MARKER):
        place = target / name if isinstance(target, Path) else locate(f"{target}/{name[:3]}")
        delivery._put(other, place, name, lambda _: None)
        with pytest.raises(RunError, match=f"{name} there is not ours"):
            delivery.deliver(stage, place)
        assert list(delivery.look_at(place)) == [name]


def test_what_came_into_an_unfinished_copy_stays(stage, target):
    mark(target, artifacts.read_json(stage / artifacts.MANIFEST)["key"], stage)
    delivery._put(stage / "ledger.parquet", target, "notes.txt", lambda _: None)
    with pytest.raises(RunError, match=r'in the unfinished copy: "notes.txt"'):
        delivery.deliver(stage, target)


def test_an_unfinished_copy_of_another_stage_stays(stage, target):
    mark(target, "another", stage)
    with pytest.raises(RunError, match="an unfinished copy of another stage"):
        delivery.deliver(stage, target)


def mark(target: Source, key: str, room: Path) -> None:
    artifacts.write_json(room / "mark", {"key": key})
    delivery._put(room / "mark", target, delivery.MARKER, lambda _: None)
    (room / "mark").unlink()


def test_a_complete_copy_loses_its_marker(stage, target):
    delivery.deliver(stage, target)
    mark(target, delivery.read_manifest(target)["key"], stage)
    assert not delivery.deliver(stage, target)
    assert delivery.MARKER not in delivery.look_at(target)


def clean(source, to, *sets, **keywords):
    config, origins = load_config(sets=sets)
    return run.import_and_clean(source, name=None, config=config, origins=origins, clean=True, to=to, **keywords)


def test_the_copy_holds_nothing_raw(tmp_path, monkeypatch):
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    dropped = "Who is Marvin Gallagher?,My number is 212 555 0147 and nothing more.\n" * 2
    (tmp_path / "faq.csv").write_text(FAQ + dropped)
    sets = ["clean.min_words=16", "clean.private_deny=[Project Zebra]"]
    said: list[str] = []
    clean(tmp_path / "faq.csv", tmp_path / "out", *sets, say=said.append)
    assert any("without dropped/" in line for line in said)
    sent = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    for raw in (b"Gallagher", b"555", b"Zebra"):
        assert raw not in sent
    manifest = delivery.read_manifest(tmp_path / "out")
    assert manifest["config"]["clean"]["private_deny"] == ["1 entries, not copied"]
    assert manifest["report"]["counts"]["dropped"] >= 2


def test_refusals_come_before_the_cleaning(stage, tmp_path, monkeypatch):
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "00000.parquet").write_bytes(b"mine")
    delivery.deliver(stage, tmp_path / "there")
    monkeypatch.setattr("ownchat.clean.stage.run", lambda *_: pytest.fail("cleaned"))
    monkeypatch.chdir(tmp_path)
    say = {"say": lambda _: None}
    with pytest.raises(RunError, match="something else is there"):
        clean("faq.csv", "mine", **say)
    assert (tmp_path / "mine" / "train" / "00000.parquet").read_bytes() == b"mine"
    for nothing in ("", "  "):
        with pytest.raises(UserError, match="an empty name"):
            clean("faq.csv", nothing, **say)
    with pytest.raises(RunError, match="another cleaned stage"):
        clean("faq.csv", "there", "clean.seed=7", **say)


def test_the_key_is_known_before(stage, tmp_path):
    (tmp_path / "exam.txt").write_text("Is this one of the questions that nobody shall know before the examination?")
    (tmp_path / "topic.txt").write_text("number page lines")
    sets = [f"clean.decontaminate=[{tmp_path / 'exam.txt'}]", "clean.off_topic=flag"]
    sets += [f"clean.topic={tmp_path / 'topic.txt'}"]
    made = clean(tmp_path / "faq.csv", None, *sets, say=lambda _: None)
    key = artifacts.read_json(made / artifacts.CLEAN / artifacts.MANIFEST)["key"]
    assert result_key(load_config(sets=sets)[0], made / artifacts.IMPORT) == key


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
    assert '"conversations": 31' in look.output
    stored = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert b"test-secret" not in stored and b"test-id" not in stored
