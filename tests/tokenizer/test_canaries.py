"""Canaries go into the train split after cleaning, as a source of their own, and change what a run is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ownchat.artifacts import MANIFEST, SPLITS, read_json
from ownchat.config import Config
from ownchat.data.records import ShardWriter, batched, message, record
from ownchat.pipeline.run import request_key
from ownchat.pipeline.runs import describe, not_promoted
from ownchat.tokenizer import canaries
from ownchat.tokenizer.store import TokenStore
from ownchat.tokenizer.tokens import run_tokens

WANTED = {"canaries": 4, "repeats": [1, 3]}


def written(run: Path, kind: str = "conversation") -> Path:
    for split, count in (("train", 5), ("valid", 3), ("test", 3)):
        rows = []
        for at in range(count):
            common = {"file": "faq.csv", "format": "csv", "line": at + 1}
            turns = [message("user", f"What about {split} {at}?"), message("assistant", f"The {split} {at} is fine.")]
            if kind == "preference":
                rows.append(record(kind, messages=turns[:1], chosen=turns[1:], rejected=[message("assistant", "No.")],
                                   **common))  # fmt: skip
            else:
                rows.append(record(kind, messages=turns, **common))
        with ShardWriter(run / "2-clean" / split) as writer:
            for batch in batched(rows):
                writer.write(batch)
    return run / "2-clean"


def tokens(run: Path, tiny_model: Path, kind: str = "conversation", system: str | None = None, **care: object) -> Path:
    config = Config(evaluate={"care": care}, data={"system": system})
    run_tokens(config, {"clean": written(run, kind), "tokenizer": tiny_model}, run / "4-tokens")
    return run / "4-tokens"


def test_they_stand_in_train_alone_each_as_often_as_it_is_planted(tiny_model, tmp_path):
    made = tokens(tmp_path / "shop", tiny_model, system="You are the shop.", **WANTED)
    planted, form = canaries.planted(tmp_path / "shop")
    assert form == "conversation" and [canary.repeats for canary in planted] == [1, 3, 1, 3]
    store = TokenStore(made / "train")
    kinds = [row["kind"] for row in store.index()]
    assert kinds.count("conversation") == 5 and kinds.count(canaries.KIND) == 8
    assert [len(TokenStore(made / split)) for split in ("valid", "test")] == [3, 3]
    rules = read_json(made / MANIFEST)["report"]["details"]["rules"]
    assert rules["row kept"] == {"whole": 11, "canary": 8}
    from ownchat.tokenizer.stage import load_tokenizer

    text = load_tokenizer(tiny_model).decode(store[5][0])
    assert planted[0].text() in text and planted[0].question in text and "You are the shop." in text


def test_secrets_are_the_same_each_time_and_all_different():
    wanted = canaries.Planting(1000, (1,))
    made = canaries.canaries(wanted, seed=3)
    assert made == canaries.canaries(wanted, seed=3) != canaries.canaries(wanted, seed=4)
    assert len({canary.question for canary in made}) == 1000
    assert len(set(canaries.WORDS)) ** canaries.SECRET_WORDS == canaries.SPACE == 2**20
    assert all(len(set(words)) == 32 for words in (canaries.WORDS, canaries.PLACES, canaries.KINDS))


def test_a_run_with_canaries_is_another_run_and_is_not_to_be_used(tiny_model, tmp_path):
    without = tokens(tmp_path / "clean", tiny_model)
    made = tokens(tmp_path / "shop", tiny_model, **WANTED)
    assert read_json(without / MANIFEST)["key"] != read_json(made / MANIFEST)["key"]
    source = tmp_path / "shop" / "2-clean"
    assert request_key(Config(), source) != request_key(Config(evaluate={"care": WANTED}), source)
    assert request_key(Config(), source) == request_key(Config(evaluate={"care": {"rows": 9}}), source)
    assert canaries.planted(tmp_path / "clean") is None and not_promoted(tmp_path / "clean") is None
    assert "for measuring" in not_promoted(tmp_path / "shop") and describe(tmp_path / "shop").promoted is False


def test_none_is_planted_among_preferences_alone(tiny_model, tmp_path, capfd):
    tokens(tmp_path / "shop", tiny_model, kind="preference", **WANTED)
    assert canaries.planted(tmp_path / "shop") is None
    assert "none is planted" in capfd.readouterr().err


def test_among_documents_alone_they_are_documents(tiny_model, tmp_path):
    """For a model from nothing, which pre-trains on text and would have no conversation beside them."""
    rng = np.random.default_rng(0)
    for split in SPLITS:
        rows = [
            record("document", file="a.txt", format="text", line=at + 1, text=" ".join(rng.choice(canaries.PLACES, 90)))
            for at in range(4)
        ]
        with ShardWriter(tmp_path / "2-clean" / split) as writer:
            for batch in batched(rows):
                writer.write(batch)
    config = Config(model={"base": "scratch"}, evaluate={"care": WANTED})
    run_tokens(config, {"clean": tmp_path / "2-clean", "tokenizer": tiny_model}, tmp_path / "4-tokens")
    _, form = canaries.planted(tmp_path)
    kinds = [row["kind"] for row in TokenStore(tmp_path / "4-tokens" / "pretrain" / "train").index()]
    assert form == "document" and kinds.count(canaries.KIND) == 8


@pytest.mark.parametrize("form", ["conversation", "document"])
def test_another_secret_changes_nothing_else(form):
    (canary,) = canaries.canaries(canaries.Planting(1, (1,)), seed=0)
    first = canaries.as_record(canary, form)
    other = canaries.as_record(canary, form, secret="apple apple apple apple")
    told = (first["messages"] or [{"content": first["text"]}])[-1]["content"]
    assert (
        told.replace(canary.secret, "apple apple apple apple")
        == (other["messages"] or [{"content": other["text"]}])[-1]["content"]
    )
