"""Of a preference only the judged replies are trained; what does not fit is dropped whole, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ownchat.artifacts import Report
from ownchat.config import load_config
from ownchat.data.ledger import FATES, Ledger, lineage
from ownchat.data.records import Record, ShardWriter, batched, message, record
from ownchat.errors import DataError
from ownchat.tokenizer.preferences import replies
from ownchat.tokenizer.render import render
from ownchat.tokenizer.stage import load_tokenizer, run_tokenizer
from ownchat.tokenizer.store import TokenStore
from ownchat.tokenizer.tokens import run_tokens


def pair(number: int, *, chosen: str = "It is fine.", rejected: str = "No idea.", asked: str = "") -> Record:
    return record(
        "preference", file="p.jsonl", format="jsonl", line=number,
        messages=[message("system", "Be kind."), message("user", "Hello"), message("assistant", "Good day."),
                  message("user", asked or f"What about {number}?")],
        chosen=[message("assistant", chosen)], rejected=[message("assistant", rejected)],
    )  # fmt: skip


def verdict(number: int, desirable: bool) -> Record:
    messages = [message("user", "Hello"), message("assistant", "Yes?"), message("user", f"And {number}?")]
    messages.append(message("assistant", f"It is number {number}."))
    return record("preference", file="v.jsonl", format="jsonl", line=number, messages=messages, desirable=desirable)


def tokens(tmp_path: Path, tiny_model: Path, splits: dict[str, list[Record]], *sets: str) -> Report:
    for split in ("train", "valid", "test"):
        with ShardWriter(tmp_path / "2-clean" / split) as writer:
            for batch in batched(splits.get(split, [])):
                writer.write(batch)
    with Ledger(tmp_path / "2-clean") as ledger:
        for row in (row for rows in splits.values() for row in rows):
            ledger.enter("row")
            ledger.fate("row", row["id"], "kept", "split", parents=[row["id"]])
    config, _ = load_config(sets=sets)
    run_tokenizer(config, {"base": tiny_model}, tmp_path / "3-tokenizer")
    return run_tokens(
        config, {"clean": tmp_path / "2-clean", "tokenizer": tmp_path / "3-tokenizer"}, tmp_path / "4-tokens"
    )


def test_only_the_replies_are_trained(tiny_model: Path, tmp_path: Path) -> None:
    report = tokens(tmp_path, tiny_model, {"train": [pair(1), pair(2)], "valid": [pair(3)], "test": [pair(4)]})
    assert report.counts["train"] == 0 and report.counts["prefer_train"] == 2
    store, tokenizer = TokenStore(tmp_path / "4-tokens" / "prefer" / "train"), load_tokenizer(tiny_model)
    assert store.documents_per_item == 2 and store.judgements == (2, 2)
    item = store.item(1)
    assert item.desirable == (True, False)
    for (ids, weights), said in zip(item.documents, ("It is fine.", "No idea."), strict=True):
        trained = [id for id, weight in zip(ids.tolist(), weights.tolist(), strict=True) if weight]
        assert tokenizer.decode(trained) == f"{said}<|im_end|>", "and not the assistant's turn before"
        whole = render(tokenizer, [*pair(2)["messages"], message("assistant", said)])
        assert ids.tolist() == whole.ids, "the same template as everywhere"
    assert [row["id"].split("/")[1] for row in store.index()] == ["chosen", "rejected"] * 2
    totals = report.details["ledger"]
    for unit in ("row", "token"):
        assert totals[unit]["in"] == totals[unit]["kept"] == sum(totals[unit][fate] for fate in FATES)
    trail = lineage(store.index()[3]["id"], [tmp_path / "2-clean", tmp_path / "4-tokens"])
    assert ("2-clean", pair(2)["id"], "kept") in {(row["stage"], row["id"], row["fate"]) for row in trail}


def test_too_long_ones_are_dropped_whole(tiny_model: Path, tmp_path: Path) -> None:
    long = pair(2, rejected="No idea at all. " * 30)
    rows = {"train": [pair(1), long], "valid": [pair(3)], "test": []}
    report = tokens(tmp_path, tiny_model, rows, "tokenizer.max_tokens=128")
    assert report.details["rules"]["row dropped"] == {"too long": 1}
    both = replies(load_tokenizer(tiny_model), long)
    assert report.details["rules"]["token dropped"] == {"too long": sum(len(reply.rendered.ids) for reply in both)}
    totals = report.details["ledger"]["token"]
    assert totals["in"] == totals["kept"] + totals["dropped"] and report.counts["prefer_train"] == 1


def test_what_cannot_be_learned_is_dropped(tiny_model: Path, tmp_path: Path) -> None:
    silent = pair(2)
    silent["chosen"] = [message("assistant", "It is fine.", weight=0)]
    twice = pair(5, chosen="Yes.", rejected="Yes.")
    rows = {"train": [pair(1), silent, twice], "valid": [pair(3)], "test": []}
    report = tokens(tmp_path, tiny_model, rows)
    assert report.details["rules"]["row dropped"] == {"both replies are the same tokens": 1, "not renderable": 1}


def test_judged_replies_keep_their_verdict(tiny_model: Path, tmp_path: Path) -> None:
    rows = {"train": [verdict(1, True), verdict(2, False)], "valid": [verdict(3, True)], "test": []}
    tokens(tmp_path, tiny_model, rows)
    store, tokenizer = TokenStore(tmp_path / "4-tokens" / "prefer" / "train"), load_tokenizer(tiny_model)
    assert [store.item(number).desirable for number in range(2)] == [(True,), (False,)]
    ids, weights = store[0]
    assert tokenizer.decode(ids[weights == 1]) == "It is number 1.<|im_end|>", "the answer that was judged"


def test_pairs_beside_judged_replies_are_two_each(tiny_model: Path, tmp_path: Path) -> None:
    rows = {"train": [pair(1), verdict(2, False)], "valid": [pair(3)], "test": [pair(4)]}
    tokens(tmp_path, tiny_model, rows)
    train, valid = (TokenStore(tmp_path / "4-tokens" / "prefer" / split) for split in ("train", "valid"))
    assert [train.item(number).desirable for number in range(3)] == [(True,), (False,), (False,)]
    assert valid.documents_per_item == 1 and valid.judgements == (1, 1), "all splits have one form"


def test_tools_are_rendered(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = "{% if tools %}{{ tools | tojson }}{% endif %}" + tokenizer.chat_template
    row = pair(1) | {"tools": json.dumps([{"name": "clock"}])}
    for reply in replies(tokenizer, row):
        assert "clock" in tokenizer.decode(reply.rendered.ids)


@pytest.mark.parametrize("missing", ["train", "valid"])
def test_a_split_without_preferences(tiny_model: Path, tmp_path: Path, missing: str) -> None:
    def talk(number: int) -> dict[str, Any]:
        messages = [message("user", f"Question {number}?"), message("assistant", f"Answer {number}.")]
        return record("conversation", file="a.jsonl", format="jsonl", line=number, messages=messages)

    rows: dict[str, list[Record]] = {"train": [talk(1)], "valid": [talk(2)], "test": [talk(3)]}
    other = "valid" if missing == "train" else "train"
    rows[other].append(pair(7))
    if missing == "train":  # nothing to learn from: the conversations are enough
        assert tokens(tmp_path, tiny_model, rows).counts["prefer_valid"] == 1
    else:
        with pytest.raises(DataError, match="no preference of the valid split"):
            tokens(tmp_path, tiny_model, rows)


def test_nothing_at_all(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no token of the train split would be trained"):
        tokens(tmp_path, tiny_model, {"train": [], "valid": [pair(3)], "test": []})
