"""Records that hold an examination's text go, with the place; forms of words do not count."""

import json
import random

import numpy as np
import pytest

from ownchat.artifacts import SPLITS
from ownchat.clean.decontaminate import contaminated
from ownchat.clean.stage import run
from ownchat.config import load_config
from ownchat.data import stage as data
from ownchat.data.ledger import read_ledger
from ownchat.data.records import read_records
from ownchat.errors import DataError

WORDS = ["".join(random.Random(i).choices("aeioulmnrst", k=2 + i % 7)) for i in range(3000)]


def spoken(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def jsonl(path, pairs):
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_examination_text_is_found_and_named(tmp_path):
    long, short = spoken(1, 30), spoken(2, 9)
    pairs = [(spoken(100 + i, 20), spoken(200 + i, 20)) for i in range(40)]
    pairs[5] = (f"{spoken(3, 7)} {long.upper()}!", "Yes.")
    pairs[6] = (spoken(4, 9), f"So: {short}, {spoken(5, 9)}")
    pairs[7] = (" ".join(long.split()[:12]), "Twelve words of it are no evidence.")
    examination = tmp_path / "exam"
    examination.mkdir()
    jsonl(examination / "a.jsonl", [(spoken(6, 20), "one"), (long, "two")])
    (examination / "b.csv").write_text(f"question,answer\nshort one?,{short}\n")
    given = json.dumps([str(examination / "a.jsonl"), str(examination / "b.csv")])
    config = load_config(sets=[f"clean.decontaminate={given}", "clean.private_types=[]"])[0]
    data.run(config, {"source": jsonl(tmp_path / "in.jsonl", pairs)}, tmp_path / "1-data")
    report = run(config, {"data": tmp_path / "1-data"}, tmp_path / "2-clean")
    gone = {r["source"]["line"]: r["id"] for r in read_records(tmp_path / "2-clean" / "dropped")}
    assert sorted(gone) == [6, 7]
    details = {
        r["id"]: r["detail"]
        for r in read_ledger(tmp_path / "2-clean").to_pylist()
        if r["rule"] == "contaminated" and r["unit"] == "row"
    }
    assert details[gone[6]] == "text of a.jsonl, line 2"
    assert details[gone[7]].startswith("text of b.csv, line")
    assert report.details["rules"]["row dropped"] == {"contaminated": 2}
    assert [one["records"] for one in report.details["examination"]] == [2, 1]
    assert sum(report.counts[split] for split in SPLITS) == 38


def test_a_run_of_many_records_is_a_form():
    rows, runs = np.arange(30), np.array([0] * 20 + [1] * 10)
    assert sorted(contaminated(rows, runs, 100)) == list(range(20, 30))
    assert len(contaminated(rows, runs, 5000)) == 30
    assert contaminated(rows[:0], runs[:0], 10) == {}


@pytest.mark.parametrize("content, part", [(None, "no such file"), ("hello there", "no text of 8 words")])
def test_a_wrong_path_or_nothing_to_look_for(tmp_path, content, part):
    path = tmp_path / "exam.txt"
    if content:
        path.write_text(content)
    config = load_config(sets=[f"clean.decontaminate=[{path}]"])[0]
    data.run(config, {"source": jsonl(tmp_path / "in.jsonl", [("a b?", "c d.")])}, tmp_path / "1-data")
    with pytest.raises(DataError, match=part):
        run(config, {"data": tmp_path / "1-data"}, tmp_path / "2-clean")


EXAM = (
    "Anna Berg of 12 Main Street, Springfield called 0171 2345678 about her lost parcel, what should Kwame Mensah tell "
    "her?"
)


@pytest.mark.parametrize("types", ["", "clean.private_types=[]"])
def test_private_data_in_an_examination_hides_no_record(tmp_path, types):
    """It is masked in the data, and stands in the examination as it is."""
    pairs = [(spoken(100 + i, 20), spoken(200 + i, 20)) for i in range(20)]
    pairs[4] = (EXAM, "Tell her that it was found.")
    pairs[7] = (EXAM, "Tell anna.berg@example.com.")
    pairs[9] = ("It goes: caf\u00c3\u00a9 " + spoken(1, 20), "Yes.")  # what the steps mend is found, too
    (tmp_path / "exam").mkdir()
    exam = jsonl(
        tmp_path / "exam" / "a.jsonl", [(EXAM, "x"), ("caf\u00e9 " + " ".join(spoken(1, 20).split()[:12]), "y")]
    )
    sets = [f"clean.decontaminate=[{exam}]", "clean.min_words=8", *([types] if types else [])]
    data.run(load_config()[0], {"source": jsonl(tmp_path / "in.jsonl", [("a", "b"), *pairs])}, tmp_path / "1-data")
    report = run(load_config(sets=sets)[0], {"data": tmp_path / "1-data"}, tmp_path / "2-clean")
    assert report.details["rules"]["row dropped"] == {"contaminated": 3, "too short": 1}
    gone = [r["source"]["line"] for r in read_records(tmp_path / "2-clean" / "dropped")]
    assert sorted(gone) == [1, 6, 9, 11]
