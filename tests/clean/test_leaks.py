"""The check of what splits share, and the splits that pass it."""

import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pytest

from ownchat.artifacts import SPLITS
from ownchat.clean.leaks import leaks
from ownchat.clean.stage import run
from ownchat.config import load_config
from ownchat.data import stage as data
from ownchat.data.ledger import read_ledger
from ownchat.data.records import SCHEMA, message, read_batches, read_records, record

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[2] / ".." / "shared" / "datasets"))
WORDS = ["".join(random.Random(i).choices("aeioulmnrst", k=2 + i % 7)) for i in range(3000)]


def spoken(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def batch(*pairs):
    rows = [
        record("conversation", file="f", format="x", line=i, messages=[message("user", q), message("assistant", a)])
        for i, (q, a) in enumerate(pairs)
    ]
    return [pa.RecordBatch.from_pylist(rows, schema=SCHEMA)]


def test_every_kind_of_leak_is_counted():
    long = spoken(1, 60)
    train = [(spoken(10 + i, 30), spoken(250 + i, 30)) for i in range(200)]  # a run of one in a hundred is boilerplate
    valid = [(f"{long} x", "b"), (spoken(90, 30), train[3][1].upper())]
    test = [(f"{long} y", "b"), (f"{spoken(91, 30)} {' '.join(train[4][0].split()[5:19])}", spoken(93, 30))]
    found = leaks(batch(*train), batch(*valid), batch(*test))
    assert found == {"near_pairs": 1, "equal_replies": 1, "shared_runs": {"valid": 0.5, "test": 0.5}}
    assert leaks(batch(*train), [], [])["equal_replies"] == 0
    turned = [(" ".join(reversed(question.split())), answer) for question, answer in train[7:9]]
    assert leaks(batch(*train[:100]), batch(*turned), [])["near_pairs"] == 2  # alike by their words alone


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def clean(tmp_path, source, *sets):
    config = load_config(sets=["clean.private_types=[]", *sets])[0]
    data.run(config, {"source": source}, tmp_path / "1-data")
    return run(config, {"data": tmp_path / "1-data"}, tmp_path / "2-clean")


def checked(tmp_path):
    return leaks(*(read_batches(tmp_path / "2-clean" / split) for split in SPLITS))


@pytest.mark.parametrize("near_duplicates", ["true", "false"])
def test_near_duplicates_never_stand_on_two_sides(tmp_path, near_duplicates):
    rows = []
    for i in range(60):
        text = spoken(i, 50)
        for extra in ("", " indeed", " truly so")[: 1 + i % 3]:
            messages = [{"role": "user", "content": text + extra}, {"role": "assistant", "content": spoken(99 + i, 40)}]
            rows.append({"messages": messages, "customer": f"c{i % 3}-{i}-{extra}"})
    report = clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows), f"clean.near_duplicates={near_duplicates}")
    assert report.counts["dropped"] == (60 if near_duplicates == "true" else 0)
    assert checked(tmp_path)["near_pairs"] == 0 == report.details["leaks"]["near_pairs"]
    if near_duplicates == "true":
        assert report.details["near_duplicates"][0]["detail"].startswith("Jaccard similarity 0.9")


def test_stock_replies_that_join_everything_stay_in_train_alone(tmp_path):
    """Every conversation ends with the same long formula, as in many a help desk's."""
    rows = []
    for i in range(100):
        turns = [("user", spoken(i, 15)), ("assistant", spoken(200 + i, 15)), ("user", "no thanks")]
        turns += [("assistant", "Thank you for calling us, and have a very nice day!"), ("user", "bye")]
        rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    for i in range(10):
        turns = [("user", spoken(400 + i, 15)), ("assistant", "Thank you for calling us, and have a very nice day!")]
        rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    report = clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows))
    sizes = {split: report.counts[split] for split in SPLITS}
    assert min(sizes["valid"], sizes["test"]) >= 8 and report.details["stock_replies"] == 1
    assert checked(tmp_path)["equal_replies"] == 0 == report.details["leaks"]["equal_replies"]
    for total in report.details["ledger"].values():
        assert total["in"] == sum(total[fate] for fate in ("kept", "dropped", "unreadable", "split", "merged"))
    held = [r for split in ("valid", "test") for r in read_records(tmp_path / "2-clean" / split)]
    assert [m["role"] for m in held[0]["messages"]] == ["user", "assistant", "user"]
    assert held[0]["messages"][2]["content"] == "no thanks\nbye"
    table = [r for r in read_ledger(tmp_path / "2-clean").to_pylist() if r["rule"] == "leak"]
    assert sum(r["unit"] == "message" and r["fate"] == "merged" for r in table) == len(held)
    gone = list(read_records(tmp_path / "2-clean" / "dropped"))
    assert len(gone) == sum(r["unit"] == "row" for r in table) == report.counts["dropped"]


def test_preferences_pass_and_are_split_by_their_prompt(tmp_path):
    rows = []
    for i in range(40):
        for j in range(2):
            pair = {"chosen": spoken(100 + 2 * i + j, 12), "rejected": spoken(500 + 2 * i + j, 12)}
            rows.append({"prompt": spoken(i, 12), **pair})
    judged = [{"prompt": spoken(900 + i, 12), "completion": spoken(950, 12), "label": i % 2 == 0} for i in range(2)]
    judged += [{"prompt": spoken(900, 12), "completion": spoken(950, 12), "label": False}]
    (tmp_path / "in").mkdir()
    jsonl(tmp_path / "in" / "dpo.jsonl", rows)
    jsonl(tmp_path / "in" / "kto.jsonl", judged)
    report = clean(tmp_path, tmp_path / "in")
    assert report.counts["dropped"] == 0
    sides: dict[str, set[str]] = {}
    for split in SPLITS:
        for one in read_records(tmp_path / "2-clean" / split):
            assert one["kind"] == "preference"
            sides.setdefault(one["messages"][0]["content"], set()).add(split)
    assert len(sides) == 42 and all(len(one) == 1 for one in sides.values())


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared datasets are not here (set OWNCHAT_DATASETS)")
@pytest.mark.parametrize("name", ["taskmaster4/data/data_00.json.gz", "instruct_small/llamafactory_dpo_en_demo.json"])
def test_real_collections_do_not_leak(tmp_path, name):
    report = clean(tmp_path, DATASETS / name)
    found = checked(tmp_path)
    assert found["near_pairs"] == found["equal_replies"] == 0
    assert report.details["leaks"]["near_pairs"] == report.details["leaks"]["equal_replies"] == 0
