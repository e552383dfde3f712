"""Counting who is mentioned: whole words, by source, and nothing changes."""

import pyarrow as pa
import pytest
from tests.clean.test_clean_stage import clean, jsonl, row, split_records

from ownchat.clean.mentions import GROUPS, MentionCounts, mentions
from ownchat.clean.toxicity import TAG, flag_toxic
from ownchat.data.records import SCHEMA, message, record


def said(*texts, file="a.jsonl"):
    return pa.RecordBatch.from_pylist(
        [record("conversation", file=file, format="jsonl", line=line,
                messages=[message("system", "Women and men"), message("user", text), message("assistant", "Fine.")])
         for line, text in enumerate(texts)], schema=SCHEMA)  # fmt: skip


@pytest.mark.parametrize(
    "text, groups",
    [
        ("Two WOMEN asked.", ["gender"]),
        ("She is a Muslim from a Jewish family", ["religion"]),
        ("The Germans and the Nigerian's friends", ["ethnicity or nationality"]),
        ("ramps for wheelchair users", ["disability"]),
        ("a same-sex couple", ["sexual orientation"]),
        ("a discount for pensioners and a 70-year-old", ["age"]),
        ("The management of many manuals, the mandate, islamabad and a kidney", []),
        ("Polish the table; turkey for dinner; the blind spot; a gayer day", []),
    ],
)
def test_whole_words(text, groups):
    assert [group for group, found in mentions(said(text)).items() if found[0]] == groups


def test_counts_by_source_with_abuse():
    counts = MentionCounts()
    tagged = flag_toxic(said("you idiot, you hate women", "women and men", "no one"))[0]
    assert TAG in tagged.column("tags").to_pylist()[0]
    counts.add(tagged)
    counts.add(said("an atheist", file="b.jsonl"))
    assert list(counts.by_source) == ["a.jsonl", "b.jsonl"]
    first = counts.by_source["a.jsonl"]
    assert (first["records"], first["toxic"], first["gender"], first["gender, toxic"]) == (3, 1, 2, 1)
    assert counts.by_source["b.jsonl"]["religion"] == 1
    assert set(first) == {"records", "toxic", *GROUPS, *(f"{group}, toxic" for group in GROUPS)}


def test_the_report_counts_and_nothing_changes(tmp_path):
    rows = [row(f"Is there a room for {number} women?", f"There are {number} rooms here.") for number in range(20)]
    source = jsonl(tmp_path / "a.jsonl", rows)
    report = clean(tmp_path, source, "clean.mention_counts=true", "clean.near_duplicates=false")
    assert report.details["mentions"]["a.jsonl"]["gender"] == 20
    assert not split_records(tmp_path)["dropped"]
