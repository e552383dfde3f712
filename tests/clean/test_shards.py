"""The first pass: the same bytes with any number of workers, and after a kill."""

import os
from pathlib import Path

import pytest
from shard_samples import contents, kill_when_a_shard_is_done, write_shards

from ownchat.clean import shards, stage
from ownchat.config import load_config

SETS = ["clean.private_types=[]", "clean.detect_language=false"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eight shards, copies among them."""
    folder = write_shards(tmp_path_factory.mktemp("source") / "1-data", 1600)
    assert len(list(folder.glob("*.parquet"))) == 8
    return folder


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    stage.run(load_config(sets=[*SETS, "data.workers=1"])[0], {"data": source}, out)
    return contents(out)


def test_workers_make_no_difference(source, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LEAST_BYTES", 0)
    stage.run(load_config(sets=[*SETS, "data.workers=3"])[0], {"data": source}, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(source, whole, tmp_path):
    out = tmp_path / "out"
    sets = [*SETS, "data.workers=2"]
    first = kill_when_a_shard_is_done(source, out, sets, before="shards.LEAST_BYTES = 0")
    made = os.stat(first / shards.DONE).st_mtime_ns
    redone: list[str] = []
    original = shards.clean_shard

    def watched(path, folder, *rest):
        redone.append(folder.name)
        original(path, folder, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "clean_shard", watched)
        patch.setattr(stage.shutil, "rmtree", keep_work(stage.shutil.rmtree, out / stage.WORK))
        stage.run(load_config(sets=[*SETS, "data.workers=1"])[0], {"data": source}, out)
    assert "00000" not in redone and os.stat(first / shards.DONE).st_mtime_ns == made
    assert {name: data for name, data in contents(out).items() if not name.startswith(stage.WORK)} == whole


def keep_work(remove, work):
    """The work folder stays, to be looked at."""
    return lambda path, *rest, **named: None if Path(path) == work else remove(path, *rest, **named)


def test_other_settings_begin_anew(source, whole, tmp_path):
    work = tmp_path / "out" / stage.WORK
    (work / "00000").mkdir(parents=True)
    (work / stage.KEY).write_text("of other settings")
    stage.run(load_config(sets=SETS)[0], {"data": source}, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_a_worker_that_dies_is_an_error(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LEAST_BYTES", 0)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(Exception, match="cleaning"):
        stage.run(load_config(sets=[*SETS, "data.workers=2"])[0], {"data": source}, tmp_path / "out")


def test_what_another_layout_left_is_not_read(tmp_path, monkeypatch):
    left = stage._resume(tmp_path, "key") / "00000"
    left.mkdir()
    assert stage._resume(tmp_path, "key") == left.parent and left.exists()
    monkeypatch.setattr(stage, "LAYOUT", stage.LAYOUT + 1)
    assert stage._resume(tmp_path, "key") == left.parent and not left.exists()
