"""Runs and pages of this machine: for their owner, found, and rid of raw text; settings that are checked first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ownchat import artifacts
from ownchat.config import Config, load_config
from ownchat.data.records import read_records
from ownchat.errors import RunError, UserError
from ownchat.pipeline import clean_preview, replay, run, runs

TEXT = "question,answer\n" + "".join(
    f"What about number {n} of the {n * n}?,Take page {n} and read {n + 7} lines of it.\n" for n in [*range(30), 0]
)


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "Marvin Gallagher.csv").write_text(TEXT)
    return folder


def first_stages(source: Path, *, clean: bool = True, config: Config | None = None) -> Path:
    return run.import_and_clean(
        source, name=None, config=config or Config(), origins={}, clean=clean, say=lambda _: None
    )


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_files_are_for_their_owner_alone(source, tmp_path, usual_umask):
    first_stages(source)
    page = artifacts.previews() / "inbox" / "clean.html"
    clean_preview.write_clean_preview(Config(), source, page, Console(quiet=True))
    runs.purge_raw("inbox")
    run.import_and_clean(
        source, name=None, config=Config(), origins={}, clean=True, to=tmp_path / "a" / "b", say=lambda _: None
    )
    home = tmp_path / "home"
    paths = [home, *home.rglob("*"), tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert len(paths) > 20
    assert not [str(path) for path in paths if path.stat().st_mode & 0o077]
    assert os.umask(0o022) == 0o022


def test_the_mask_comes_back_after_an_error(tmp_path, monkeypatch, usual_umask):
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    for function in (run.train, lambda place: run.evaluate("none")):
        with pytest.raises(UserError):
            function(tmp_path / "nothing")
    assert os.umask(0o022) == 0o022


@pytest.mark.parametrize("name", ["train", "evaluate", "import_and_clean"])
def test_what_the_pipeline_writes_is_masked(name, monkeypatch, usual_umask):
    class Seen(Exception):
        pass

    def look(*_):
        mask = os.umask(0o022)
        os.umask(mask)
        raise Seen(oct(mask))

    monkeypatch.setattr(run, "existing", look)
    monkeypatch.setattr(run.artifacts, "existing_run", look)
    more = {"name": None, "config": Config(), "origins": {}, "clean": True} if name == "import_and_clean" else {}
    with pytest.raises(Seen, match="0o77"):
        getattr(run, name)("x", **more)


def test_raw_text_of_a_cleaned_run_goes(source):
    first_stages(source, clean=False)
    with pytest.raises(RunError, match="not cleaned yet"):
        runs.purge_raw("inbox")
    made = first_stages(source)
    page = artifacts.previews() / "inbox" / "clean.html"
    clean_preview.write_clean_preview(Config(), source, page, Console(quiet=True), show_private=True)
    other = artifacts.previews() / "other" / "clean.html"
    artifacts.write_atomic(other, "other")
    kept = list(read_records(made / "2-clean" / "train"))
    size = page.stat().st_size
    assert runs.purge_raw("inbox") > size
    assert not page.parent.exists() and other.exists()
    assert not (made / "2-clean" / "dropped").exists() and not list((made / "1-data").glob("0*.parquet"))
    assert artifacts.read_json(made / "2-clean" / "manifest.json")["report"]["details"]["dropped"] == []
    assert kept and list(read_records(made / "2-clean" / "train")) == kept
    first_stages(source)  # goes on from the source
    assert list(read_records(made / "2-clean" / "train")) == kept


def test_general_rows_are_searched_and_their_books_forget(source, tmp_path):
    rows = '{"question": "Who is Wilma Okafor?", "answer": "A person in a book."}\n{"question": Wilma Okafor}\n'
    (tmp_path / "general.jsonl").write_text(rows)
    made = first_stages(source)
    config = load_config(
        sets=[f"train.replay={{share: 0.5, path: '{tmp_path / 'general.jsonl'}'}}", "clean.private_types=[]"]
    )[0]
    replay.run(config, made / "2-clean", made / "3-replay")
    places = {place.stage: place.records for place in runs.find("wilma OKAFOR")}
    assert places["3-replay/records"] == 1
    assert "trained on" in runs.found_lines([runs.Place("inbox", "3-replay/records", 1)])[-1]
    runs.purge_raw("inbox")
    ledger = pq.read_table(made / "3-replay" / "imported" / "ledger.parquet")
    assert "general.jsonl, line 2" in ledger.column("detail").to_pylist()  # and nothing of what stood there
    assert len(list(read_records(made / "3-replay" / "records"))) == 1


def test_names_of_files_and_previews_are_found(source):
    made = first_stages(source)
    places = {(place.run, place.stage): place.records for place in runs.find("marvin GALLAGHER")}
    assert places["inbox", "1-data"] == 31 and places["inbox", "1-data/ledger.parquet"] == 1
    page = artifacts.previews() / "elsewhere" / "clean.html"
    artifacts.write_atomic(page, "<p>for <ins>Tom</ins> &amp; <b>Jerry</b> &lt;x@example.org&gt;</p>")
    for text in ("Tom & Jerry", "<x@example.org>"):
        assert [(place.run, place.stage) for place in runs.find(text)] == [
            ("elsewhere", "previews/elsewhere/clean.html")
        ]
    assert not list(runs.find("nobody at all"))
    assert made.is_dir()


@pytest.mark.parametrize(
    "sets, what",
    [
        ("clean.private_allow=['/(/']", "allow list, entry 1"),
        ("clean.private_deny=[fine, ' ']", "entry 2 is empty"),
        ("clean.decontaminate=[/nowhere/exam.csv]", "/nowhere/exam.csv: there is no such file"),
    ],
)
def test_settings_are_looked_at_before_any_work(source, tmp_path, monkeypatch, sets, what):
    monkeypatch.setattr("ownchat.data.stage.run", lambda *_: pytest.fail("imported"))
    config, _ = load_config(sets=[sets])
    with pytest.raises(UserError, match=what):
        first_stages(source, config=config)
    with pytest.raises(UserError, match=what):
        run.train(source, config=config, origins={}, say=lambda _: None)
    assert not (tmp_path / "home" / "runs").exists()
