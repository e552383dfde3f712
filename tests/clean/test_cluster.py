"""Cleaning on Ray: the bytes of a local run, after deaths and kills too; one clear error for what cannot be."""

import json
import os
import pickle
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from shard_samples import contents, kill_when_a_shard_is_done, write_shards

from ownchat.clean import cluster, shards, stage
from ownchat.clean.signatures import in_order
from ownchat.clean.sketches import Sketches, candidates
from ownchat.clean.split import first_copies
from ownchat.config import load_config
from ownchat.data import stage as importing
from ownchat.data.records import ShardWriter, read_batches
from ownchat.errors import ConfigError, OwnchatError, UserError

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[2] / ".." / "shared" / "datasets"))
SETS = ["clean.private_types=[]"]
SOURCES = ("spamassassin/easy-ham-1.tar.xz", "sgd/dev")


@pytest.fixture(scope="module")
def ray():
    """A local Ray for the tests of this file."""
    pytest.importorskip("daft", reason="pip install 'ownchat[cluster]'")
    pytest.importorskip("ray", reason="pip install 'ownchat[cluster]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with cluster.connect() as connected:
            yield connected


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Six shards, copies and a footer among them."""
    folder = write_shards(tmp_path_factory.mktemp("source") / "1-data", 1200, footer=5)
    assert len(list(folder.glob("*.parquet"))) == 6
    return folder


@pytest.fixture(scope="module")
def exam(source, tmp_path_factory):
    """An examination that one record holds text of."""
    text = next(read_batches(source)).to_pylist()[3]["messages"][1]["content"]
    path = tmp_path_factory.mktemp("exam") / "exam.txt"
    path.write_text(text)
    return path


def clean(source: Path, out: Path, *sets: str) -> dict[str, bytes]:
    stage.run(load_config(sets=[*SETS, *sets])[0], {"data": source}, out)
    return contents(out)


# ------------------------------------------------------------------------------------------------------- on Ray


@pytest.mark.slow
def test_ray_makes_the_same_bytes_though_a_worker_dies(source, exam, ray, tmp_path, monkeypatch):
    sets = [f"clean.decontaminate=[{exam}]", "clean.off_topic=flag"]
    whole = clean(source, tmp_path / "local", "data.workers=1", *sets)
    assert json.loads((tmp_path / "local" / "manifest.json").read_text())["report"]["details"]["rules"]["row dropped"][
        "contaminated"
    ]
    killed: list[int] = []
    original = cluster.Cluster.clean

    def deadly(self, jobs, tools, advance):
        def watched(rows):
            advance(rows)
            if rows and not killed:
                killed.extend(workers())
                os.kill(killed[0], signal.SIGKILL)

        original(self, jobs, tools, watched)

    monkeypatch.setattr(cluster.Cluster, "clean", deadly)
    monkeypatch.setattr(cluster, "_POLL_SECONDS", 0.02)
    assert clean(source, tmp_path / "ray", "data.engine=ray", *sets) == whole
    assert killed


def workers() -> list[int]:
    """The processes below this one that work on shards."""
    above = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            above[int(path.name)] = (
                int((path / "stat").read_text().rpartition(")")[2].split()[1]),
                (path / "cmdline").read_bytes(),
            )
        except OSError:
            continue

    def is_ours(pid: int) -> bool:
        while pid in above and pid != os.getpid():
            pid = above[pid][0]
        return pid == os.getpid()

    return [pid for pid, (_, command) in above.items() if command.startswith(b"ray::UDFActor") and is_ours(pid)]


@pytest.mark.long
@pytest.mark.skipif(not DATASETS.exists(), reason="no datasets: set OWNCHAT_DATASETS")
def test_real_text_is_the_same_on_one_core_on_two_and_on_ray(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LEAST_BYTES", 0)
    for number, name in enumerate(SOURCES):
        importing.run(load_config()[0], {"source": DATASETS / name}, tmp_path / str(number))
    with ShardWriter(tmp_path / "1-data", shard_bytes=300_000) as writer:
        for number in range(len(SOURCES)):
            for batch in read_batches(tmp_path / str(number), 128):
                writer.write(batch)
    assert len(list((tmp_path / "1-data").glob("*.parquet"))) >= 4
    one, two, there = (
        clean(tmp_path / "1-data", tmp_path / name, *sets, "clean.private_types=[email, phone]")
        for name, sets in {
            "one": ["data.workers=1"],
            "two": ["data.workers=2"],
            "ray": ["data.engine=ray"],
        }.items()
    )
    assert one == two
    assert one == there


@pytest.mark.slow
def test_a_run_killed_here_goes_on_there(source, ray, tmp_path, monkeypatch):
    whole = clean(source, tmp_path / "whole", "data.workers=1")
    out = tmp_path / "out"
    kill_when_a_shard_is_done(source, out, [*SETS, "data.workers=1"])
    done: list[str] = []
    original = cluster.Cluster.clean

    def watched(self, jobs, tools, advance):
        done.extend(folder.name for _, folder in jobs)
        original(self, jobs, tools, advance)

    monkeypatch.setattr(cluster.Cluster, "clean", watched)
    assert clean(source, out, "data.engine=ray") == whole
    assert done and "00000" not in done


@pytest.mark.slow
def test_an_order_through_daft_is_numpys(source, ray, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "LEAST_SORTED", 0)
    monkeypatch.setattr(cluster, "_SORT_ROWS", 1000)
    chance = np.random.default_rng(0)
    keys, other = chance.integers(0, 40, 5000).astype(np.uint64), chance.integers(0, 9, 5000).astype(np.uint64)
    keys[:10] += np.uint64(2**64 - 100)  # above what a signed number holds
    assert ray.order(keys, other).tolist() == in_order(keys, other).tolist()
    content = np.stack([keys, other], axis=1)
    assert first_copies(content, ray.order).tolist() == first_copies(content).tolist()
    shards.find_forms(paths := sorted(source.glob("*.parquet")), tmp_path / shards.FORMS)
    tools = shards.Tools.load(tmp_path, load_config(sets=SETS)[0].clean)
    folders = [tmp_path / path.stem for path in paths[:2]]
    for path, folder in zip(paths, folders, strict=False):
        shards.clean_shard(path, folder, tools, lambda rows: None)
    monkeypatch.setattr("ownchat.clean.sketches.BANDS", 3)
    with Sketches(folders) as sketches:
        members = np.arange(0, len(sketches), 2)
        for here, there in zip(candidates(sketches, members), candidates(sketches, members, ray.order), strict=True):
            assert [side.tolist() for side in here] == [side.tolist() for side in there]


@pytest.mark.slow
def test_a_shard_that_cannot_be_cleaned_is_named(source, ray, tmp_path):
    (tmp_path / "1-data").mkdir()
    for path in source.glob("*.parquet"):
        (tmp_path / "1-data" / path.name).write_bytes(path.read_bytes())
    tools = shards.Tools(load_config(sets=SETS)[0].clean, np.empty(0, np.uint64), None, None)
    broken = tmp_path / "1-data" / "00003.parquet"
    broken.write_bytes(b"no parquet")
    jobs = [(path, tmp_path / path.stem) for path in sorted((tmp_path / "1-data").glob("*.parquet"))]
    with pytest.raises(OwnchatError, match=r"(?s)00003\.parquet.*Parquet"):
        ray.clean(jobs, tools, lambda rows: None)
    assert not (tmp_path / "00003").exists()


@pytest.mark.slow
def test_another_version_is_refused(ray, monkeypatch):
    monkeypatch.setattr(cluster, "_versions", lambda: {"ownchat": "99.0", "numpy": np.__version__})
    with pytest.raises(UserError, match=r"has ownchat .* instead of 99\.0"), cluster.connect():
        pass


# ------------------------------------------------------------------------------------------------- without Ray


def test_a_shard_is_given_up_when_its_processes_die(tmp_path):
    path = tmp_path / "00000.parquet"
    path.write_bytes(b"bytes")
    files = cluster.Files([(path, tmp_path / "out")], None)
    for _ in range(cluster.ATTEMPTS):
        assert files.take(0).tobytes() == b"bytes"
        files.tell(0, 7)
        assert files.progress() == (7, None)
    assert files.take(0) is None
    assert "died" in files.progress()[1][1]


def test_a_folder_travels_whole(tmp_path):
    (tmp_path / "a" / "empty").mkdir(parents=True)
    (tmp_path / "a" / "in").mkdir()
    (tmp_path / "a" / "in" / "file").write_bytes(b"x" * 10)
    (tmp_path / "a" / "nothing").write_bytes(b"")
    files = cluster.Files([(tmp_path / "s", tmp_path / "b")], None)
    files.keep(0, pickle.loads(pickle.dumps(cluster._packed(tmp_path / "a"))))
    files.keep(0, {})  # a worker that was thought dead: what is there stays
    assert contents(tmp_path / "b") == contents(tmp_path / "a") and (tmp_path / "b" / "empty").is_dir()


def test_the_tools_travel(tmp_path):
    from ownchat.clean.boilerplate import Learned

    learned = Learned(records={"f": 3}, texts={"f": 2}, longest={"f": (200, 3)})
    learned.lines.add(np.array([7, 7], np.uint64))
    learned.save(tmp_path / "learned.npz")
    for again in (Learned.load(tmp_path / "learned.npz"), pickle.loads(pickle.dumps(learned))):
        assert (again.records, again.texts, again.longest) == (learned.records, learned.texts, learned.longest)
        assert again.lines.total == 2 and (again.lines.cells == learned.lines.cells).all()


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ownchat\[cluster\]'"), cluster.connect():
        pass


@pytest.mark.parametrize("address", ["ray://head:10001", "127.0.0.1:PORT"])
def test_an_address_where_nobody_is_says_so_at_once(address):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = address.replace("PORT", str(taken.getsockname()[1]))
        with pytest.raises(UserError, match="RAY_ADDRESS"):
            cluster._require_open(address)


def test_the_engine_is_no_reason_to_work_again(tmp_path):
    from ownchat import artifacts

    local, there = (load_config(sets=[f"data.engine={engine}"])[0] for engine in ("local", "ray"))
    keys = {artifacts.stage_key(config, ("data", "clean"), {}) for config in (local, there)}
    assert len(keys) == 1
