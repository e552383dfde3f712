"""Run directories: names, locks, manifests, atomic writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import load_config
from ownchat.errors import RunError, UserError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_home_is_private(home: Path) -> None:
    assert artifacts.home() == home and home.stat().st_mode & 0o777 == 0o700


def test_a_name_is_a_run_and_a_path_has_a_separator(home: Path, tmp_path: Path) -> None:
    assert artifacts.run_directory("inbox") == home / "runs" / "inbox"
    assert artifacts.run_directory(f"{tmp_path}/inbox") == tmp_path / "inbox"
    (home / "runs" / "support").mkdir(parents=True)
    with pytest.raises(RunError, match='did you mean "support"'):
        artifacts.existing_run("suport")


def test_a_finished_model_is_never_overwritten(home: Path) -> None:
    for expected in ("demo", "demo-2", "demo-3"):
        name = artifacts.free_run_name("demo")
        assert name == expected
        (home / "runs" / name / "5-train" / "model").mkdir(parents=True)
        (home / "runs" / name / "5-train" / "manifest.json").write_text("{}")


def test_two_processes_with_one_name(home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ownchat.artifacts import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    run = home / "runs" / "demo"
    other = subprocess.Popen([sys.executable, "-c", program, run], stdin=-1, stdout=-1, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    try:
        busy = f"another process works on this run \\(process {other.pid}\\)"
        with pytest.raises(RunError, match=busy), artifacts.locked(run):
            pass
    finally:
        other.communicate("")
    with artifacts.locked(run):
        pass


def test_a_stage_is_complete_when_its_inputs_are_the_same(tmp_path: Path) -> None:
    source = tmp_path / "faq.csv"
    source.write_text("q,a\n1,2\n")
    config, _ = load_config()
    key = artifacts.stage_key(config, ("data",), {"source": source})
    output = tmp_path / "1-data"
    artifacts.start_afresh(output)
    assert artifacts.completed(output, key) is None, "no manifest yet"
    artifacts.commit(key, config, ("data",), Report("import", output, {"records": 1}))
    assert artifacts.completed(output, key) == Report("import", output, {"records": 1})
    other, _ = load_config(sets=["data.system=hello"])
    assert artifacts.completed(output, artifacts.stage_key(other, ("data",), {"source": source})) is None
    unrelated, _ = load_config(sets=["train.epochs=9"])
    assert artifacts.stage_key(unrelated, ("data",), {"source": source}) == key
    source.write_text("q,a\n1,3\n")
    assert artifacts.stage_key(config, ("data",), {"source": source}) != key


def test_fingerprint_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x.txt").write_text("1")
    first = artifacts.fingerprint(folder)
    (folder / "manifest.json").write_text('{"mine": 1}')  # the user's own file, not a stage's
    second = artifacts.fingerprint(folder)
    (folder / "a" / "x.txt").write_text("2")
    third = artifacts.fingerprint(folder)
    (folder / "a" / "x.txt").rename(folder / "a" / "y.txt")
    assert len({first, second, third, artifacts.fingerprint(folder)}) == 4


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    artifacts.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Circular"):
        loop: dict[str, object] = {}
        loop["self"] = loop
        artifacts.write_json(path, loop)
    assert artifacts.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []


def test_damaged_file_and_full_disk_are_clear(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(RunError, match=r"x.json: damaged"):
        artifacts.read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="free some space"):
        artifacts.require_free_space(tmp_path / "not" / "yet", 10**18)


def test_who_holds_a_run_takes_away_what_a_killed_process_left(tmp_path: Path) -> None:
    run = tmp_path / "run"
    artifacts.write_json(run / "5-train" / "heartbeat", {"step": 3})
    (run / "5-train" / ".4711.tmp.heartbeat").write_text("{")
    with artifacts.locked(run):
        pass
    assert [path.name for path in (run / "5-train").iterdir()] == ["heartbeat"]
