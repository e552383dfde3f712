"""Stage 2: nothing lost, nothing on both sides of a split, same bytes from the same input."""

import hashlib
import json
import os
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownchat.artifacts import SPLITS
from ownchat.clean.signatures import normalised
from ownchat.clean.stage import run
from ownchat.config import Config, load_config
from ownchat.data import stage as data
from ownchat.data.ledger import lineage, read_ledger
from ownchat.data.records import SCHEMA, ShardWriter, read_records, record, shards
from ownchat.errors import DataError

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[2] / ".." / "shared" / "datasets"))


def clean(folder: Path, source: Path, *sets: str):
    config = load_config(sets=["clean.private_types=[]", *sets])[0]  # the text stays as it is written here
    data.run(config, {"source": source}, folder / "1-data")
    return run(config, {"data": folder / "1-data"}, folder / "2-clean")


def split_records(folder: Path) -> dict[str, list]:
    return {name: list(read_records(folder / "2-clean" / name)) for name in (*SPLITS, "dropped")}


def jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(question: str, answer: str, **fields):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]} | fields


def test_every_record_has_its_fate_and_place(tmp_path):
    rows = [row(f"Question {i}?", f"This is the answer number {i}.") for i in range(20)]
    rows += [row("question  3?", "this is the ANSWER number 3.")]
    rows[5]["messages"].insert(0, {"role": "system", "content": " "})
    rows[6]["messages"][1]["content"] = "VoilÃ\xa0 le cafÃ© numÃ©ro six."
    report = clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows))
    records = split_records(tmp_path)
    assert {name: len(rows) for name, rows in records.items()} == {"train": 16, "valid": 2, "test": 2, "dropped": 1}
    assert report.counts == {"records": 21, "train": 16, "valid": 2, "test": 2, "dropped": 1}
    assert report.details["splits"]["train"] == {"records": 16, "groups": 16}
    assert (
        report.details["ledger"]["message"] | {"in": 43, "dropped": 3, "kept": 40}
        == report.details["ledger"]["message"]
    )
    assert report.details["dropped"][0]["rule"] == "exact duplicate"
    assert report.details["dropped"][0]["line"] == 21
    by_id = {r["id"]: r for r in read_ledger(tmp_path / "2-clean").to_pylist() if r["unit"] == "row"}
    original = {r["id"]: r["source"]["line"] for r in read_records(tmp_path / "1-data")}
    assert set(original) == set(by_id)
    for name, kept in records.items():
        for one in kept:
            expected = ("dropped", "exact duplicate") if name == "dropped" else ("kept", name)
            assert (by_id[one["id"]]["fate"], by_id[one["id"]]["rule"]) == expected
    copy = by_id[records["dropped"][0]["id"]]
    assert [original[parent] for parent in copy["parent_ids"]] == [4]
    assert not list((tmp_path / "2-clean").glob(".work"))


def test_switches(tmp_path):
    rows = [row(f"Question {i}?", f"This is answer number {i}, cafÃ©.") for i in range(10)] * 2
    report = clean(
        tmp_path, jsonl(tmp_path / "a.jsonl", rows), "clean.exact_duplicates=false", "clean.repair_encoding=false"
    )
    assert report.counts["dropped"] == 0
    sides: dict[str, set[str]] = {}
    for name, records in split_records(tmp_path).items():
        for one in records:
            assert "cafÃ©" in one["messages"][1]["content"]
            sides.setdefault(one["messages"][0]["content"], set()).add(name)
    assert all(len(names) == 1 for names in sides.values())


@pytest.mark.parametrize("num_files", [1, 2, 3, 40])
def test_essays_of_any_number(tmp_path, num_files):
    folder = tmp_path / "essays"
    folder.mkdir()
    texts = {}
    for number in range(num_files):
        chance = random.Random(number)  # every essay has words of its own
        words = ["".join(chance.choices("abdeilmnorstu", k=6)) for _ in range(3000)]
        paragraphs = [f"Thought {i}: {' '.join(chance.choices(words, k=30 + 6 * (i % 7)))}." for i in range(80)]
        texts[f"{number}.txt"] = "\n\n".join(paragraphs)
        (folder / f"{number}.txt").write_text(texts[f"{number}.txt"])
    report = clean(tmp_path, folder)
    records = split_records(tmp_path)
    assert all(records[name] for name in SPLITS)
    pieces = sorted((r for name in SPLITS for r in records[name]), key=lambda r: r["source"]["offset"] or 0)
    for file, text in texts.items():
        assert "".join(r["text"] for r in pieces if r["source"]["file"] == file) == text
    train = sum(len(r["text"]) for r in records["train"]) / sum(map(len, texts.values()))
    assert 0.7 < train < 0.9
    if num_files < 30:
        assert report.details["ledger"]["row"]["split"] == num_files
        steps = lineage(records["test"][0]["id"], [tmp_path / "1-data", tmp_path / "2-clean"])
        assert {"split", "kept"} <= {step["fate"] for step in steps}
        assert records["test"][0]["source"]["file"] in {step["id"] for step in steps}


def test_a_short_text_is_cut_at_sentences(tmp_path):
    (tmp_path / "a.txt").write_text("One thing is said. Then there is another. The third one ends it.")
    clean(tmp_path, tmp_path / "a.txt")
    assert all(split_records(tmp_path)[name] for name in SPLITS)


def test_a_readme_beside_conversations_leaves_them_three_splits(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    jsonl(folder / "a.jsonl", [row(f"Question {i}?", f"The answer is number {i}.") for i in range(4)])
    (folder / "README.md").write_text("\n\n".join(f"Paragraph {i}." for i in range(30)))
    clean(tmp_path, folder)
    kinds = {name: {r["kind"] for r in split_records(tmp_path)[name]} for name in SPLITS}
    assert all(found == {"conversation", "document"} for found in kinds.values())


@pytest.mark.parametrize(
    "content, parts",
    [
        (row("Hi?", "x") | {"messages": [{"role": "assistant", "content": "a", "name": "x"}]}, ["1 record in 1 group"]),
        ([row("Q?", f"answer {i}") for i in range(9)], ["9 records in 1 group", "train, valid, test"]),
        ([row(f"Q{i}?", f"answer {i}", group=str(i % 2)) for i in range(9)], ["in 2 groups", "--map group=COLUMN"]),
    ],
)
def test_too_few_for_three_splits(tmp_path, content, parts):
    with pytest.raises(DataError) as error:
        clean(tmp_path, jsonl(tmp_path / "a.jsonl", content if isinstance(content, list) else [content]))
    assert all(part in str(error.value) for part in ["fewer rows than three splits need", *parts]), error.value


def stored(folder: Path, texts: list[str]) -> Path:
    """Records as another importer may leave them, blank ones among them."""
    rows = [record("document", file="x", format="text", line=i + 1, text=text) for i, text in enumerate(texts)]
    with ShardWriter(folder) as writer:
        writer.write(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    return folder


def test_what_a_step_drops_is_kept_aside(tmp_path):
    source = stored(tmp_path / "1-data", ["one", " ", "two", "\u2003", "three"])
    report = run(Config(), {"data": source}, tmp_path / "2-clean")
    assert [r["source"]["line"] for r in split_records(tmp_path)["dropped"]] == [2, 4]
    assert report.counts == {"records": 5, "train": 1, "valid": 1, "test": 1, "dropped": 2}
    assert [(example["rule"], example["line"]) for example in report.details["dropped"]] == [("empty", 2), ("empty", 4)]


def test_all_rows_dropped(tmp_path):
    with pytest.raises(DataError, match="all 2 records were dropped: empty 2"):
        run(Config(), {"data": stored(tmp_path / "1-data", [" ", "\n"])}, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------- properties

WORDS = st.sampled_from(
    ["", " ", "Why?", "why? ", "How so, my friend?", "cafÃ© au lait is here", "a b c d e", "Yes", "é"]
)
TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool", "system"]), WORDS), min_size=1, max_size=4)
ROW = st.builds(
    lambda turns, group: {"messages": [{"role": role, "content": text} for role, text in turns], "customer": group},
    TURNS,
    st.sampled_from([None, "", "anna", "bo", "cy"]),
)


def question_of(record) -> str:
    texts = normalised_list([turn["content"] for turn in record["messages"] or () if turn["role"] == "user"])
    return "\n".join(texts[:2]) if texts and len(texts[0]) < 16 else (texts or [""])[0]


def normalised_list(texts: list[str]) -> list[str]:
    return normalised(pa.array(texts, pa.string())).to_pylist()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ROW, max_size=25), st.integers(0, 3))
def test_books_balance_and_no_split_shares_a_group_or_a_question(rows, seed):
    rows += [row(f"A question of its own, {i}?", f"Its very own answer, number {i}.") for i in range(4)]
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        source = jsonl(Path(first) / "a.jsonl", rows)
        report = clean(Path(first), source, f"clean.seed={seed}")
        for total in report.details["ledger"].values():
            assert total["in"] == sum(total[fate] for fate in ("kept", "dropped", "unreadable", "split", "merged"))
        records = split_records(Path(first))
        written = [r["id"] for kept in records.values() for r in kept]
        assert sorted(written) == sorted(r["id"] for r in read_records(Path(first) / "1-data"))
        table = read_ledger(Path(first) / "2-clean").to_pylist()
        fates = [r["id"] for r in table if r["unit"] == "row" and r["fate"] != "changed"]
        assert sorted(fates) == sorted(written)
        messages = sum(len(r["messages"]) for r in read_records(Path(first) / "1-data"))
        assert report.details["ledger"]["message"]["in"] == messages
        kept_messages = sum(len(r["messages"]) for name in SPLITS for r in records[name])
        assert report.details["ledger"]["message"]["kept"] == kept_messages
        for key in (lambda r: r["group"], question_of):
            sides: dict[str, set[str]] = {}
            for name in SPLITS:
                for one in records[name]:
                    if key(one):
                        sides.setdefault(key(one), set()).add(name)
            assert all(len(names) == 1 for names in sides.values()), sides
        (Path(second) / "a.jsonl").write_bytes(source.read_bytes())
        clean(Path(second), Path(second) / "a.jsonl", f"clean.seed={seed}")
        for name in (*SPLITS, "dropped"):
            pair = [shards(Path(place) / "2-clean" / name) for place in (first, second)]
            assert [path.read_bytes() for path in pair[0]] == [path.read_bytes() for path in pair[1]]
        ledgers = [(Path(place) / "2-clean" / "ledger.parquet").read_bytes() for place in (first, second)]
        assert ledgers[0] == ledgers[1]


# -------------------------------------------------------------------------------------------------- real collections


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared datasets are not here (set OWNCHAT_DATASETS)")
@pytest.mark.parametrize(
    "name, sets, records",
    [
        ("banking77/train.csv", ["data.map={question: text, answer: category}"], 10003),
        ("instruct_small/gsm_8k_train.json.gz", [], 7473),
        ("instruct_small/llamafactory_kto_en_demo.json", [], 300),
        ("plain_text/c4_demo.jsonl", [], 300),
        ("plain_text/tinyshakespeare.txt", [], 1),
    ],
)
def test_real_collections(tmp_path, name, sets, records):
    report = clean(tmp_path, DATASETS / name, *sets)
    assert report.counts["records"] == records
    sizes = [report.counts[split] for split in SPLITS]
    assert min(sizes) / sum(sizes) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_a_dropped_copy_still_links_its_group(tmp_path, seed):
    """Customer B's copy of customer A's row is dropped; B's other rows must still stand where A's row stands."""
    rows = [row("How do I reset the pump?", "Hold the red button for ten seconds.", group="A")]
    rows += [row("How do I reset the pump?", "Hold the red button for ten seconds.", group="B")]
    rows += [row(f"Another question {i} of B?", f"Another answer {i} for B only.", group="B") for i in range(3)]
    rows += [row(f"Question {i}?", f"This is the answer number {i}.", group=f"C{i}") for i in range(8)]
    clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows), f"clean.seed={seed}", "clean.test_share=0.3")
    places = {name for name, found in split_records(tmp_path).items() if name != "dropped" for one in found
              if one["group"] in ("A", "B")}  # fmt: skip
    assert len(places) == 1


PRIVATE = "clean.private_types=[email,person,phone]"


@pytest.mark.parametrize("sets", [[PRIVATE], [PRIVATE, "clean.contradictions=flag", "clean.exact_duplicates=false"]])
def test_groups_are_masked_and_still_hold_together(tmp_path, sets):
    rows = [
        row(f"Question {i}?", f"This is the answer number {i}.", group=f"anna{i // 2}@example.com") for i in range(30)
    ]
    rows[3] = rows[2] | {"group": rows[3]["group"]}
    report = clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows), *sets)
    records = split_records(tmp_path)
    raw = {one["id"]: one["group"] for one in read_records(tmp_path / "1-data")}
    sides: dict[str, set[str]] = {}
    for name, found in records.items():
        for one in found:
            assert one["group"] == hashlib.sha256(raw[one["id"]].encode()).hexdigest()[:16]
            sides.setdefault(one["group"], set()).add(name)
    assert len(sides) == 15 and all(len(names - {"dropped"}) == 1 for names in sides.values())
    assert all("@" in group for group in raw.values()) and report.details["groups"] == 15
    for path in (tmp_path / "2-clean").rglob("*"):
        written = str(pa.parquet.read_table(path).to_pylist()) if path.suffix == ".parquet" else ""
        assert "anna" not in (written or (path.read_text() if path.is_file() else ""))


def test_groups_stay_where_nothing_is_masked(tmp_path):
    rows = [row(f"Question {i}?", f"This is the answer number {i}.", group=f"anna{i}@example.com") for i in range(9)]
    clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows))
    assert all("@" in one["group"] for found in split_records(tmp_path).values() for one in found)


@pytest.mark.parametrize("masked", [True, False])
def test_examples_of_what_was_dropped_are_masked(tmp_path, masked):
    """Also of what went before the step that masks; near duplicates and contradictions are shown as they were left."""
    mail, long = "anna.berg@example.com", "delivery parcel customer question answer people number street"
    rows = [row(f"Question {i}?", f"This is the answer number {i} of them all.") for i in range(20)]
    rows += [row(f"write to {mail}", "ok"), row("Yes.", f"{mail} " * 2)]  # too short
    rows += [
        row(f"Write to {mail}, you {'fuck' + 'ing'} {'id' + 'iot'} {i}!", f"I did write to {mail}.") for i in range(2)
    ]
    rows += [row(f"Does {mail} know about {long}?", f"{mail} knows all of {long} {end}.") for end in ("now", "now now")]
    rows += [
        row("What does it cost to call the desk?", f"It costs {i} euros, says {mail} of the desk.") for i in (3, 5)
    ]
    sets = ["clean.min_words=5", "clean.toxicity=drop", "clean.contradictions=flag", *([PRIVATE] if masked else [])]
    report = clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows), *sets)
    assert report.details["rules"]["row dropped"] == {"near duplicate": 1, "too short": 2, "toxic": 2}
    assert report.details["contradictions"]["pairs"] == 1
    shown = json.dumps(report.details)
    assert ("anna" not in shown) is masked and len(report.details["dropped"]) == 5
    assert "[EMAIL_1]" in shown or not masked
    assert ("anna" not in (tmp_path / "2-clean" / "manifest.json").read_text()) is masked


@pytest.mark.parametrize(
    "rows, sets, parts, absent",
    [
        ([row("Why so?", "Because it is like this.")] * 200, [],
         ["199 of 200 records were dropped: exact duplicate 199", "copies must stand in one split"], "--map"),
        ([row(f"Where can I find the number {i} of these books?", f"On shelf {i}, right behind the door.")
          for i in range(50)], ["clean.languages=[de]"], ["language", "clean.languages=[]"], "--map"),
        ([row(f"Question {i}?", f"The answer {i}.") for i in range(50)]
         + [row("A b c d e f g h?", "I j k l m n o p q.")],
         ["clean.min_words=12"], ["50 of 51 records were dropped: too short 50", "clean.min_words=0"], "--map"),
        ([row(f"Q{i}?", f"answer {i}", group=str(i % 2)) for i in range(9)], [], ["--map group=COLUMN"], "dropped"),
    ],
)  # fmt: skip
def test_too_few_because_of_what_was_dropped(tmp_path, rows, sets, parts, absent):
    with pytest.raises(DataError) as error:
        clean(tmp_path, jsonl(tmp_path / "a.jsonl", rows), *sets)
    assert all(part in str(error.value) for part in parts) and absent not in str(error.value), error.value
