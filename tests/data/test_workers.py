"""Files read by several processes give the bytes that one process gives; a worker that dies is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ownchat.config import load_config
from ownchat.data import plan, workers
from ownchat.data.ledger import NAME, read_ledger
from ownchat.data.records import read_records, shards
from ownchat.data.stage import run
from ownchat.errors import OwnchatError


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(12):
        rows = [
            {"question": f"What is {number} and {row}?", "answer": f"The sum {number + row}."} for row in range(300)
        ]
        (source / f"{number:02}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{oops\n")
    (source / "bad.csv").write_text("name,price\nbrick,2\n")
    return source


def test_as_many_workers_as_you_like(inbox, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(plan, "CHUNK_BYTES", 60_000)
    monkeypatch.setattr(workers, "LEAST_BYTES", 0)
    made = {}
    for count in (1, 3):
        output = tmp_path / f"out-{count}"
        config, _ = load_config(values={"data.workers": count})
        report = run(config, {"source": inbox}, output)
        assert report.counts["records"] == 3600
        made[count] = [path.read_bytes() for path in shards(output)], read_ledger(output).to_pylist()
        assert (output / NAME).is_file()
        said = capfd.readouterr().err
        assert said.count("a row is unreadable") == 12
        assert "bad.csv" in said
    assert len(made[1][0]) > 3
    assert made[1] == made[3]
    files = [record["source"]["file"] for record in read_records(tmp_path / "out-3")]
    assert files == sorted(files)


def test_a_worker_that_dies(inbox, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "CHUNK_BYTES", 60_000)
    monkeypatch.setattr(workers, "LEAST_BYTES", 0)
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config, _ = load_config(values={"data.workers": 2})
    with pytest.raises(OwnchatError, match="reading failed"):
        run(config, {"source": inbox}, tmp_path / "out")


def test_a_script_without_a_main_guard_can_import(inbox, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom ownchat.config import load_config\nfrom ownchat.data import plan, workers\n"
        "from ownchat.data.stage import run\nplan.CHUNK_BYTES, workers.LEAST_BYTES = 60_000, 0\n"
        f"print(run(load_config()[0], {{'source': Path({str(inbox)!r})}}, Path({str(tmp_path / 'out')!r})).counts)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env={**os.environ}, check=True)
    assert "'records': 3600" in done.stdout
