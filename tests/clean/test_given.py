"""Files that their owner calls validation or test data: nothing of them is learned, and nothing of the others lost."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ownchat.artifacts import MANIFEST, SPLITS, read_json
from ownchat.clean.given import RULE, copies_across
from ownchat.clean.stage import run
from ownchat.config import load_config
from ownchat.data import stage as data
from ownchat.data.ledger import read_ledger
from ownchat.data.preview import preview
from ownchat.data.records import read_records
from ownchat.errors import ConfigError, DataError
from ownchat.evaluate.slices import NO_TOPIC, topic

AS_THEY_ARE = ["clean.exact_duplicates=false", "clean.near_duplicates=false"]
PLACES = ["Aachen", "Bremen", "Celle", "Dresden", "Essen", "Fulda"]


def row(place: str, number: int, answer: str = "") -> dict:
    asked = f"Where is order {place} {number} {place[::-1]}?"
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer or f"ok {place}"}]}


def pair(place: str, number: int) -> dict:
    def said(text: str) -> list[dict]:
        return [{"role": "assistant", "content": text}]

    asked = {"messages": [{"role": "user", "content": f"{place} {number}?"}]}
    return {"input": asked, "preferred_output": said(f"ok {place}"), "non_preferred_output": said(f"no {number}")}


def rows(numbers, made=row) -> list[dict]:
    return [made(place, number) for place in PLACES for number in numbers]


def clean(folder: Path, files: dict[str, list], *sets: str, given: str = '{"valid": "valid.jsonl"}'):
    for name, content in files.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(one) + "\n" for one in content))
    config = load_config(sets=["clean.private_types=[]", f"data.map={given}", *sets])[0]
    data.run(config, {"source": folder / "source"}, folder / "1-data")
    report = run(config, {"data": folder / "1-data"}, folder / "2-clean")
    made = {name: list(read_records(folder / "2-clean" / name)) for name in (*SPLITS, "dropped")}
    return report, {name: [(one["source"]["file"], one["source"]["line"]) for one in found]
                    for name, found in made.items()}, made  # fmt: skip


def of(found: dict[str, list], *splits: str) -> Counter:
    return Counter(file for split in splits for file, _ in found[split])


@pytest.mark.parametrize("made", [row, pair])
@pytest.mark.parametrize("sets", [AS_THEY_ARE, []], ids=["as they are", "cleaned"])
@pytest.mark.parametrize("valid", ["valid.jsonl", "a/valid.jsonl"])  # the second is read before the other file
def test_a_given_file_is_held_out_and_all_others_train(tmp_path, sets, made, valid):
    learned, held = rows([1, 2], made), rows([7, 8], made)
    again = [learned[3], learned[5]]
    report, found, records = clean(tmp_path, {"more.jsonl": learned, valid: [*held, *again]}, *sets)
    assert of(found, "train") == {"more.jsonl": 12}, "all of it, and nothing else"
    assert of(found, "valid", "test") == {valid: 12} and found["valid"] and found["test"]
    assert found["dropped"] == [(valid, 13), (valid, 14)]
    fates = [entry for entry in read_ledger(tmp_path / "2-clean").to_pylist() if entry["unit"] == "row"]
    assert Counter((entry["fate"], entry["rule"]) for entry in fates) == {
        ("kept", "train"): 12, ("kept", "valid"): len(found["valid"]), ("kept", "test"): len(found["test"]),
        ("dropped", RULE): 2,
    }  # fmt: skip
    stays = {one["id"]: one["source"]["file"] for one in records["train"]}
    assert [stays[entry["parent_ids"][0]] for entry in fates if entry["rule"] == RULE] == ["more.jsonl"] * 2
    assert report.counts["records"] == 26
    notes = {
        one["file"]: one["notes"] for one in read_json(tmp_path / "1-data" / MANIFEST)["report"]["details"]["files"]
    }
    assert notes == {"more.jsonl": [], valid: ["held out: it is valid data"]}
    assert all(topic(one) == NO_TOPIC for one in records["test"])


def test_the_share_of_the_split_that_nobody_gave(tmp_path):
    files = {"train.jsonl": rows([1, 2]), "valid.jsonl": rows(range(10, 20))}
    _, found, _ = clean(tmp_path / "few", files, *AS_THEY_ARE, "clean.test_share=0.00001")
    assert (len(found["valid"]), len(found["test"])) == (50, 10), "what is much alike stays together"
    _, found, _ = clean(tmp_path / "half", files, *AS_THEY_ARE)
    assert (len(found["valid"]), len(found["test"])) == (30, 30)
    _, found, _ = clean(tmp_path / "test", files, *AS_THEY_ARE, given='{"test": "valid.jsonl"}')
    assert (len(found["valid"]), len(found["test"])) == (30, 30) and len(found["train"]) == 12


def test_all_three_are_taken_as_they_are(tmp_path):
    shared = row("Gotha", 5)
    files = {
        "a.test.jsonl": [*rows([5]), shared], "b.valid.jsonl": [*rows([7]), shared], "c.jsonl": [*rows([1]), shared]
    }  # fmt: skip
    given = '{"valid": "*.valid.*", "test": "*.test.*"}'
    _, found, _ = clean(tmp_path / "one", files, *AS_THEY_ARE, given=given)
    assert {split: of(found, split) for split in SPLITS} == {
        "train": {"c.jsonl": 7}, "valid": {"b.valid.jsonl": 6}, "test": {"a.test.jsonl": 6}
    }  # fmt: skip
    files["c.jsonl"].pop()
    _, found, _ = clean(tmp_path / "two", files, *AS_THEY_ARE, given=given)
    assert found["dropped"] == [("b.valid.jsonl", 7)], "what valid and test share stays in test"


def test_of_near_copies_in_training_one_stays_whichever_the_search_would_keep(tmp_path):
    text = "Please tell me how long it takes until my new card is sent to the address in the north of the country"
    near = [row("x", 1) for _ in range(3)]
    for one, ending in zip(near, ("", "side", "side now"), strict=True):
        one["messages"][0]["content"] = f"{text}{ending}?"
    files = {"a.jsonl": [*rows([1, 2]), near[0], near[1]], "valid.jsonl": [*rows([8]), near[2]]}
    _, found, _ = clean(tmp_path, files)
    assert ("valid.jsonl", 7) in found["dropped"]
    assert len([place for place in found["train"] if place in (("a.jsonl", 13), ("a.jsonl", 14))]) == 1


def words(first: int, last: int) -> dict:
    said = ("alder birch cedar douglas elm fir gum hazel ivy juniper kapok larch maple nutmeg oak pine quince rowan "
            "spruce teak umbrella")  # fmt: skip
    return {"messages": [{"role": "user", "content": " ".join(said.split()[first:last])},
                         {"role": "assistant", "content": "trees"}]}  # fmt: skip


@pytest.mark.parametrize("near", [True, False])
def test_what_is_like_two_records_that_train_makes_them_no_copies(tmp_path, near):
    files = {"a.jsonl": [*rows([1, 2]), words(3, 21), words(0, 19)], "valid.jsonl": [*rows([8]), words(0, 21)]}
    _, found, _ = clean(tmp_path, files, f"clean.near_duplicates={str(near).lower()}")
    assert {("a.jsonl", 13), ("a.jsonl", 14)} <= set(found["train"]) and ("valid.jsonl", 7) in found["dropped"]


@pytest.mark.parametrize("near", [True, False])
def test_a_copy_of_any_record_that_trains_is_left_out(tmp_path, near):
    """The first of a chain stands for the second, of which the third is a copy."""
    files = {"a.jsonl": [*rows([1, 2]), words(0, 18), words(3, 18)], "valid.jsonl": [*rows([8]), words(5, 18)]}
    _, found, _ = clean(tmp_path, files, f"clean.near_duplicates={str(near).lower()}")
    assert (("a.jsonl", 14) in found["dropped"]) == near
    assert (("valid.jsonl", 7) in found["dropped"]) != near, "what it is like is not learned"


def test_a_copy_of_what_is_dropped_is_no_copy():
    given, copy_of, kept = np.array([1, 0, 0, 2]), np.array([1, 1, 2, 3]), np.array([0, 1, 1, 1])
    assert copies_across(given, copy_of, kept, {}, {}) == {0: 1, 3: 1}
    assert copies_across(given, copy_of, kept, {1}, {}) == {0: 2, 3: 2}, "the next one stays"
    assert copies_across(given, copy_of, kept, {1, 2}, {}) == {0: 3}, "valid and test are alike, too"
    assert copies_across(given, copy_of, kept, {}, {(1, 3)}) == {0: 1}


def test_nothing_is_guessed_from_a_name(tmp_path):
    files = {"train.jsonl": rows([1, 2]), "valid.jsonl": rows([7, 8])}
    _, found, _ = clean(tmp_path, files, *AS_THEY_ARE, given="{}")
    assert of(found, "train")["valid.jsonl"] and of(found, "valid", "test")["train.jsonl"]


def test_what_cannot_be_is_said(tmp_path):
    files = {"train.jsonl": rows([1]), "valid.jsonl": rows([1])}
    with pytest.raises(DataError, match="none is left that is no copy of what is learned"):
        clean(tmp_path / "copies", files, *AS_THEY_ARE)
    with pytest.raises(DataError, match="1 is left"):
        clean(tmp_path / "one", files | {"valid.jsonl": rows([1]) + rows([7])[:1]}, *AS_THEY_ARE)
    with pytest.raises(DataError, match=r'no file that is read is called "vald\.jsonl"'):
        clean(tmp_path / "name", files, given='{"valid": "vald.jsonl"}')
    with pytest.raises(DataError, match="nothing is left to learn"):
        clean(tmp_path / "all", files, given='{"valid": "*"}')
    with pytest.raises(ConfigError) as error:
        clean(tmp_path / "part", files, given='{"vald": "valid.jsonl"}')
    assert 'did you mean "valid"' in error.value.fix


def test_columns_are_told_beside_it(tmp_path):
    """What names a file must not be looked for among the columns."""
    for name, numbers in (("faq.csv", range(12)), ("held.csv", range(20, 26))):
        lines = "".join(f"Why is it {n} {chr(65 + n) * 5}?,Because of {chr(65 + n) * 4},x\n" for n in numbers)
        path = tmp_path / "source" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"this,that,other\n{lines}")
    given = '{"question": "this", "answer": "that", "valid": "held.csv"}'
    _, found, _ = clean(tmp_path, {}, given=given)
    assert of(found, "train") == {"faq.csv": 12} and of(found, "valid", "test") == {"held.csv": 6}
    (first, second) = preview(load_config(sets=[f"data.map={given}"])[0], tmp_path / "source")
    assert "problem" not in first and [one["tags"] for one in second["records"]] == [["given as valid"]] * 3
