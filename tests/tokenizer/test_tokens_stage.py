"""Long records are split, never cut; every token has a fate; the store gives back what was put in."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.config import load_config
from ownchat.data.ledger import FATES, Ledger, lineage, read_ledger
from ownchat.data.records import ShardWriter, batched, message, record
from ownchat.errors import ConfigError
from ownchat.tokenizer.packing import num_steps, pack
from ownchat.tokenizer.stage import load_tokenizer, run_tokenizer
from ownchat.tokenizer.store import TokenStore
from ownchat.tokenizer.tokens import pieces, render_record, run_tokens


def talk(*texts: str, system: str | None = None, line: int = 1) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [message("system", system)] if system else []
    messages += [message(roles[number % 2], text) for number, text in enumerate(texts)]
    return record("conversation", file="a.jsonl", format="jsonl", line=line, messages=messages)


def test_long_conversation_is_split_at_turn_borders(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    long = talk(*(f"message number {number} of this talk" for number in range(12)), system="Be kind.")
    whole = render_record(tokenizer, long)
    parts = pieces(tokenizer, long, limit=100)
    assert len(parts) > 1
    assert all(len(part.ids) <= 100 and rule == "turns" for part, rule in parts)
    texts = [tokenizer.decode(part.ids) for part, _ in parts]
    assert all(text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user") for text in texts)
    assert sum(sum(part.weights) for part, _ in parts) == sum(whole.weights), "every trained token once"
    for number in range(12):
        assert sum(f"message number {number} of" in text for text in texts) == 1


def test_enormous_turn_and_document_become_windows(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    document = record("document", file="b.txt", format="text", line=1, text="Close the valve slowly. " * 60)
    for long in (document, talk("Tell me all", "The pump makes a noise. " * 60)):
        whole = render_record(tokenizer, long)
        parts = pieces(tokenizer, long, limit=64)
        assert all(len(part.ids) <= 64 for part, _ in parts)
        joined = [id for part, _ in parts for id, weight in zip(part.ids, part.weights, strict=True) if weight]
        assert joined == [id for id, weight in zip(whole.ids, whole.weights, strict=True) if weight]
        for (before, _), (after, _) in pairwise(parts):
            assert after.ids[0] == before.ids[-1] and after.weights[0] == 0, "a window opens with context"


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    rows = [talk(f"question {n}?", f"answer {n}.", line=n + 1) for n in range(9)]
    rows.append(talk(*(f"part {n} of a long talk" for n in range(30)), line=10))
    rows.append(record("document", file="b.txt", format="text", line=1, text="A manual. " * 30))
    for split, some in (("train", rows[3:]), ("valid", rows[:1]), ("test", rows[1:3])):
        with ShardWriter(tmp_path / "2-clean" / split) as writer:
            for batch in batched(some):
                writer.write(batch)
    with Ledger(tmp_path / "2-clean") as ledger:
        for row in rows:
            ledger.enter("row")
            ledger.fate("row", row["id"], "kept", "split", parents=[row["id"]])
    return tmp_path / "2-clean"


def test_stage_accounts_for_every_token(clean: Path, tiny_model: Path, tmp_path: Path) -> None:
    config, _ = load_config(sets=["tokenizer.max_tokens=128"])
    run_tokenizer(config, {"base": tiny_model}, tmp_path / "3-tokenizer")
    inputs = {"clean": clean, "tokenizer": tmp_path / "3-tokenizer"}
    report = run_tokens(config, inputs, tmp_path / "4-tokens")
    totals = report.details["ledger"]
    for unit in ("row", "token"):
        assert totals[unit]["in"] == sum(totals[unit][fate] for fate in FATES)
    assert totals["row"]["split"] == 2
    stores = {split: TokenStore(tmp_path / "4-tokens" / split) for split in ("train", "valid", "test")}
    assert totals["token"]["kept"] == sum(store.num_tokens for store in stores.values())
    assert (len(stores["valid"]), len(stores["test"])) == (1, 2)
    ids, weights = stores["valid"][0]
    assert ids.tolist() == render_record(load_tokenizer(tiny_model), talk("question 0?", "answer 0.")).ids
    assert weights.sum() == report.counts["valid_trained"]
    again = run_tokens(config, inputs, tmp_path / "4-tokens")
    assert again.seconds == report.seconds, "unchanged inputs: the stage was not run again"


def test_a_trained_token_leads_back_to_its_record(clean: Path, tiny_model: Path, tmp_path: Path) -> None:
    config, _ = load_config(sets=["tokenizer.max_tokens=128"])
    run_tokenizer(config, {"base": tiny_model}, tmp_path / "3-tokenizer")
    run_tokens(config, {"clean": clean, "tokenizer": tmp_path / "3-tokenizer"}, tmp_path / "4-tokens")
    piece = next(row for row in TokenStore(tmp_path / "4-tokens" / "train").index() if row["piece"] == 1)
    trail = lineage(piece["id"], [clean, tmp_path / "4-tokens"])
    assert ("4-tokens", piece["record"], "split") in {(row["stage"], row["id"], row["fate"]) for row in trail}
    assert ("2-clean", piece["record"], "kept") in {(row["stage"], row["id"], row["fate"]) for row in trail}


def test_unrenderable_record_is_counted_not_lost(tmp_path: Path, tiny_model: Path) -> None:
    rows = [talk("question?", "answer.")]
    broken = record(
        "conversation", file="a.jsonl", format="jsonl", line=7, messages=[message("user", "no reply to this")]
    )
    for split in ("train", "valid", "test"):
        with ShardWriter(tmp_path / "2-clean" / split) as writer:
            for batch in batched([*rows, broken] if split == "train" else rows):
                writer.write(batch)
    with Ledger(tmp_path / "2-clean"):
        pass
    config, _ = load_config()
    run_tokenizer(config, {"base": tiny_model}, tmp_path / "3")
    report = run_tokens(config, {"clean": tmp_path / "2-clean", "tokenizer": tmp_path / "3"}, tmp_path / "4")
    assert report.details["rules"]["row dropped"] == {"not renderable": 1}
    assert "a.jsonl line 7" in str(read_ledger(tmp_path / "4").to_pylist())


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 900), min_size=1, max_size=60),
    batch_tokens=st.integers(1, 3000),
    block_tokens=st.integers(16, 1500),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_packing_uses_every_document_once(
    lengths: list[int], batch_tokens: int, block_tokens: int, seed: int, epoch: int
) -> None:
    sizes = np.array(lengths)
    steps = pack(sizes, batch_tokens=batch_tokens, block_tokens=block_tokens, seed=seed, epoch=epoch)
    assert len(steps) == num_steps(sizes, batch_tokens), "the same number of steps in every epoch"
    assert sorted(int(n) for step in steps for block in step for n in block) == list(range(len(sizes)))
    for step in steps:
        for block in step:
            assert sizes[block].sum() <= block_tokens or len(block) == 1
    again = pack(sizes, batch_tokens=batch_tokens, block_tokens=block_tokens, seed=seed, epoch=epoch)
    assert all((a == b).all() for x, y in zip(steps, again, strict=True) for a, b in zip(x, y, strict=True))


def test_epochs_and_seeds_differ() -> None:
    sizes = np.full(50, 10)

    def order(seed: int, epoch: int) -> list[int]:
        steps = pack(sizes, batch_tokens=100, block_tokens=100, seed=seed, epoch=epoch)
        return [int(n) for step in steps for n in sorted(int(n) for block in step for n in block)]

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_trailing_turns_without_reply_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    """A long conversation whose last exchange has no reply: those tokens are dropped in the books, not outside them."""
    turns = [message(("user", "assistant")[n % 2], f"message number {n} of this talk") for n in range(12)]
    turns += [message("user", "and what about the roof, the windows, the doors and the pump in the cellar?")] * 1
    long = record("conversation", file="a.jsonl", format="jsonl", line=1, messages=turns)
    for split in ("train", "valid", "test"):
        with ShardWriter(tmp_path / "2-clean" / split) as writer:
            for batch in batched([long] if split == "train" else [talk("question?", "answer.")]):
                writer.write(batch)
    config, _ = load_config(sets=["tokenizer.max_tokens=90"])
    run_tokenizer(config, {"base": tiny_model}, tmp_path / "3-tokenizer")
    inputs = {"clean": tmp_path / "2-clean", "tokenizer": tmp_path / "3-tokenizer"}
    report = run_tokens(config, inputs, tmp_path / "4-tokens")
    dropped = report.details["rules"]["token dropped"]["no trained token"]
    tokenizer = load_tokenizer(tiny_model)
    assert dropped >= len(tokenizer.encode(turns[-1]["content"], add_special_tokens=False))
    assert report.details["rules"]["row dropped"] == {"no trained token": 1}


def test_longer_than_the_models_context_is_refused(clean: Path, tiny_model: Path, tmp_path: Path) -> None:
    config, _ = load_config(sets=["tokenizer.max_tokens=4096"])
    run_tokenizer(config, {"base": tiny_model}, tmp_path / "3-tokenizer")
    with pytest.raises(ConfigError, match="the model's context has 512"):
        run_tokens(config, {"clean": clean, "tokenizer": tmp_path / "3-tokenizer"}, tmp_path / "4-tokens")
