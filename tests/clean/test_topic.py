"""Off-topic records: found where a collection has a topic, left alone where it has none."""

import json
import random
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clean.test_clean_stage import DATASETS, clean, split_records

from ownchat.clean import shards, stage
from ownchat.clean.topic import TAG, Topic, filter_topic, learn_topic, read_description
from ownchat.config import load_config
from ownchat.data.records import SCHEMA, ShardWriter, message, read_records, record
from ownchat.errors import DataError

HOTEL_WORDS = (
    "room hotel night book guest arrival key breakfast city check price bed desk floor window view booking late early "
    "free parking stay"
)
SEA_WORDS = "whale ship harpoon sea sailor captain deck wave storm mast rope anchor island fish boat wind sail harbour"
HOTEL, SEA = HOTEL_WORDS.split(), SEA_WORDS.split()


def chat(words, line):
    texts = message("user", " ".join(words[:12]) + "?"), message("assistant", " ".join(words[12:]) + ".")
    return record("conversation", file="f.jsonl", format="jsonl", line=line, messages=list(texts))


def mixture(hotel=300, sea=12, seed=1):
    chance = random.Random(seed)
    rows = [chat(chance.choices(HOTEL, k=24), line) for line in range(hotel)]
    rows += [chat(chance.choices(SEA, k=24), hotel + line) for line in range(sea)]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def test_what_is_about_something_else_is_dropped():
    batch = mixture()
    after, entries = filter_topic(batch, learn_topic([batch]))
    assert len(after) == 300 and len([entry for entry in entries if entry.unit == "row"]) == 12
    assert {entry.rule for entry in entries} == {"off-topic"} and "times the usual distance" in entries[0].detail
    flagged, changed = filter_topic(batch, learn_topic([batch]), drop=False)
    assert [TAG in (tags or ()) for tags in flagged.column("tags").to_pylist()] == [False] * 300 + [True] * 12
    assert {entry.fate for entry in changed} == {"changed"}


def test_nothing_stands_out_where_there_is_one_topic_or_too_little():
    batch = mixture(sea=0)
    assert len(filter_topic(batch, learn_topic([batch]))[0]) == 300
    few = mixture(hotel=10, sea=2)
    assert len(filter_topic(few, learn_topic([few]))[0]) == 12
    assert filter_topic(batch, None) == (batch, [])


def test_a_description_in_other_inflections(tmp_path):
    batch = mixture()
    topic = learn_topic([batch], "Guests who are booking rooms in hotels, and their breakfasts")
    distances = topic.distances(batch)
    assert distances[:300].max() < distances[300:].min()
    with pytest.raises(DataError, match="only 0 of 312 records hold two words"):
        learn_topic([batch], "Quantum chromodynamics of gluons")
    (tmp_path / "topic.txt").write_text("rooms of hotels")
    assert read_description(str(tmp_path / "topic.txt")) == "rooms of hotels"
    assert read_description("rooms " * 2000).startswith("rooms")  # longer than any file's name
    with pytest.raises(DataError, match="without a word"):
        read_description("of the and")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match="not readable"):
        read_description(str(tmp_path / "binary"))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 312), max_size=4))
def test_batches_make_no_difference(cuts):
    batch = mixture()
    borders = [0, *sorted(cuts), len(batch)]
    parts = [batch.slice(start, end - start) for start, end in pairwise(borders)]
    one, other = learn_topic([batch]), learn_topic(parts)
    assert np.array_equal(one.weights, other.weights) and (one.centre, one.spread) == (other.centre, other.spread)
    assert np.array_equal(one.distances(batch), np.concatenate([one.distances(part) for part in parts]))


def test_it_reads_back(tmp_path):
    topic = learn_topic([mixture()])
    topic.save(tmp_path / "topic.npz")
    again = Topic.load(tmp_path / "topic.npz")
    assert np.array_equal(topic.weights, again.weights) and (topic.centre, topic.spread) == (again.centre, again.spread)


def test_the_stage_drops_them_and_says_so(tmp_path):
    rows = mixture(hotel=150, sea=8).to_pylist()
    lines = [json.dumps({"messages": [{k: turn[k] for k in ("role", "content")} for turn in row["messages"]]})
             for row in rows]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    report = clean(tmp_path, tmp_path / "a.jsonl", "clean.off_topic=drop")
    assert report.details["rules"]["row dropped"]["off-topic"] == 8
    assert any(example["rule"] == "off-topic" for example in report.details["dropped"])
    gone = [one for one in split_records(tmp_path)["dropped"] if "whale" in str(one) or "ship" in str(one)]
    assert len(gone) == 8


def test_workers_make_no_difference(tmp_path, monkeypatch):
    """Neither to this step nor to the others that look at all records."""
    with ShardWriter(tmp_path / "data", shard_bytes=1) as writer:
        for start in range(0, 160, 40):
            writer.write(mixture(hotel=150, sea=10).slice(start, 40))
    monkeypatch.setattr(shards, "LEAST_BYTES", 0)
    sets = ["clean.private_types=[]", "clean.off_topic=drop", "clean.contradictions=flag", "clean.mention_counts=true"]
    found = []
    for workers in (1, 3):
        out = tmp_path / str(workers)
        report = stage.run(load_config(sets=[*sets, f"data.workers={workers}"])[0], {"data": tmp_path / "data"}, out)
        files = sorted(path for path in out.rglob("*.parquet"))
        found.append(({str(path.relative_to(out)): path.read_bytes() for path in files}, report.details))
    assert found[0] == found[1] and found[0][1]["rules"]["row dropped"]["off-topic"] >= 10


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared datasets are not here (set OWNCHAT_DATASETS)")
def test_sums_and_reviews_among_support_chats(tmp_path):
    """Five in a hundred records are about something else: at least eight of ten are found, and nothing else."""
    from ownchat.data import stage as importing

    rows, wrong = [], []
    for name, path, most in (
        ("sgd", "sgd/dev", 1000), ("sums", "instruct_small/gsm_8k_train.json.gz", 25),
        ("reviews", "nltk_reviews/product_reviews_1.zip", 25),
    ):  # fmt: skip
        importing.run(load_config()[0], {"source": DATASETS / path}, tmp_path / name)
        for row in list(read_records(tmp_path / name))[:most]:
            wrong.append(name != "sgd")
            rows.append(row)
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    far = learn_topic([batch]).distances(batch) > 3
    wrong = np.array(wrong)
    assert far[~wrong].sum() <= 2 and far[wrong].mean() > 0.8


@pytest.mark.parametrize(
    "topic", ["nosuchfile.txt", "notes about topics.MD", "docs/topic", "/data/my topics/one", "../a"]
)
def test_a_path_that_leads_nowhere_is_no_description(tmp_path, topic):
    with pytest.raises(DataError, match="no such file"):
        read_description(topic)
    config = load_config(sets=["clean.off_topic=drop", f"clean.topic={topic}"])[0]
    with pytest.raises(DataError, match="no such file"):
        stage.run(config, {"data": tmp_path / "not there either"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_slash_between_words_is_a_description():
    for text in ("refunds and/or returns", "Rooms, e.g. of hotels.", "Booking.com"):
        assert read_description(text) == text
