"""General rows go into training and nowhere else; they have their own books; a run with other rows is another run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ownchat import artifacts
from ownchat.clean import stage as clean
from ownchat.config import Config, load_config
from ownchat.data import stage as data
from ownchat.data.ledger import Entry, lineage, read_ledger
from ownchat.data.records import read_records
from ownchat.errors import ConfigError, DataError
from ownchat.evaluate import general
from ownchat.generate.replay import INSTRUCTIONS, own_answers
from ownchat.pipeline import replay
from ownchat.pipeline.run import request_key, train
from ownchat.tokenizer.replay import KIND
from ownchat.tokenizer.stage import run_tokenizer
from ownchat.tokenizer.store import TokenStore
from ownchat.tokenizer.tokens import run_tokens

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
QUICK = [
    "train.batch_tokens=400", "train.epochs=1", "evaluate.answers=2", "evaluate.answer_tokens=8",
    "evaluate.care={checks: [forgetting], rows: 2, samples: 0}",
]  # fmt: skip


@pytest.fixture
def faq(tmp_path: Path) -> Path:
    rows = "".join(f"What about {thing} {n}?,The {thing} {n} is fine.\n" for n in range(4) for thing in THINGS)
    (tmp_path / "faq.csv").write_text("question,answer\n" + rows)
    return tmp_path / "faq.csv"


def write_rows(path: Path, *pairs: tuple[str, str]) -> Path:
    rows = [[{"role": "user", "content": asked}, {"role": "assistant", "content": said}] for asked, said in pairs]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def settings(path: Path, *more: str) -> Config:
    return load_config(sets=[f"train.replay={{share: 0.25, path: '{path}'}}", *more])[0]


@pytest.fixture
def run(faq: Path, tmp_path: Path, tiny_model: Path) -> Path:
    """Its first three stages."""
    config, run = load_config()[0], tmp_path / "run"
    data.run(config, {"source": faq}, run / artifacts.IMPORT)
    clean.run(config, {"data": run / artifacts.IMPORT}, run / artifacts.CLEAN)
    run_tokenizer(config, {"base": tiny_model}, run / artifacts.TOKENIZER)
    return run


def tokens(config: Config, run: Path, name: str = artifacts.TOKENS) -> artifacts.Report:
    inputs = {"clean": run / artifacts.CLEAN, "tokenizer": run / artifacts.TOKENIZER}
    return run_tokens(config, inputs | replay.prepared(config, run, lambda report, text: None), run / name)


def test_rows_of_a_file_are_cleaned_counted_and_trained(run: Path, tmp_path: Path) -> None:
    held_out = next(read_records(run / artifacts.CLEAN / "test"))["messages"]
    probe = general.read_probes([])[0].questions[0]
    path = write_rows(
        tmp_path / "general.jsonl",
        ("What is a lake?", "A lake is water with land around it."),
        ("Whom can I ask?", "Write to maria.fernandez@example.org, please."),
        (held_out[0]["content"].upper(), "This question stands in the test split."),
        (probe.question, "And this one in the probe."),
    )
    config = settings(path)
    plain = tokens(load_config()[0], run, "4-plain")
    report = tokens(config, run)
    made = artifacts.read_json(run / replay.STAGE / artifacts.MANIFEST)["report"]
    assert made["counts"] == {"rows": 4, "records": 2}
    assert made["details"]["rules"]["row dropped"] == {"held out": 2}
    texts = json.dumps(list(read_records(run / replay.STAGE / replay.RECORDS)))
    assert "A lake is water" in texts and "fernandez" not in texts and "[EMAIL_1]" in texts
    # the user's own: as they are without
    for split in ("train", "valid", "test"):
        own, before = TokenStore(run / artifacts.TOKENS / split), TokenStore(run / "4-plain" / split)
        kinds = [row["kind"] for row in own.index()]
        assert kinds == ["conversation"] * len(before) + [KIND] * (2 if split == "train" else 0)
        for number in range(len(before)):
            assert all(np.array_equal(*pair) for pair in zip(own[number], before[number], strict=True))
    assert plain.counts.items() <= report.counts.items()
    assert report.counts["replay"] == 2 and report.counts["replay_trained"] > 0
    rules = report.details["rules"]
    assert rules["row kept"] == {"replay": 2, "whole": 40}
    assert rules["token kept"]["replay"] == report.counts["replay_trained"]
    last = TokenStore(run / artifacts.TOKENS / "train").index()[-1]
    trail = lineage(last["id"], [run / replay.STAGE, run / artifacts.TOKENS])
    assert {(row["stage"], row["fate"]) for row in trail if row["unit"] == "row"} >= {
        ("3-replay", "kept"), ("4-tokens", "kept"),
    }  # fmt: skip
    assert last["source"].startswith("general.jsonl line ")
    # the same again is not made again; without it nothing is left of it
    assert tokens(config, run).seconds == report.seconds
    assert tokens(load_config()[0], run).counts == plain.counts and not (run / replay.STAGE).exists()


def test_what_cannot_be_replayed_is_told(run: Path, tmp_path: Path, faq: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        replay.inputs(settings(tmp_path / "nothing.jsonl"))
    question = next(read_records(run / artifacts.CLEAN / "valid"))["messages"][0]["content"]
    path = write_rows(tmp_path / "leak.jsonl", (question, "An answer."))
    with pytest.raises(DataError, match=r"no row is left to replay \(held out: 1\)"):
        tokens(settings(path), run)
    with pytest.raises(ConfigError, match="out of range"):
        request_key(load_config(sets=["train.replay={share: 2}"])[0], faq)


def test_other_rows_are_another_request(faq: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "general.jsonl", ("What is a lake?", "Water with land around it."))
    plain = request_key(load_config()[0], faq)
    first = request_key(settings(path), faq)
    assert first != plain and first == request_key(settings(path), faq)
    write_rows(path, ("What is a lake?", "A large pond."))
    assert request_key(settings(path), faq) not in (plain, first)
    assert request_key(load_config(sets=["train.replay={share: 0.1}"])[0], faq) not in (plain, first)


def test_a_probe_whose_texts_are_left_out_makes_another_request(faq: Path, tmp_path: Path) -> None:
    """Or a setting of the evaluation would make the tokens anew under a model that is finished."""
    path = write_rows(tmp_path / "general.jsonl", ("What is a lake?", "Water with land around it."))
    probe, other = tmp_path / "probe.jsonl", tmp_path / "prompts.jsonl"
    probe.write_text('{"text": "What is a lake?"}\n')
    other.write_text('{"prompt": "Say something."}\n')
    plain = request_key(settings(path), faq)
    given = [f"evaluate.care={{probes: ['{each}']}}" for each in (probe, other)]
    assert request_key(settings(path, given[0]), faq) != plain == request_key(settings(path, given[1]), faq)
    for sets in given:  # without general rows nothing of the model depends on it
        assert request_key(load_config(sets=[sets])[0], faq) == request_key(load_config()[0], faq)


def test_preferences_alone_have_nothing_to_mix_into(tmp_path: Path, tiny_model: Path) -> None:
    rows = [
        {"prompt": f"What about {thing} {n}?", "chosen": f"The {thing} {n} is fine.", "rejected": "No idea."}
        for thing in THINGS for n in range(3)
    ]  # fmt: skip
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, run = load_config()[0], tmp_path / "run"
    data.run(config, {"source": tmp_path / "answers.jsonl"}, run / artifacts.IMPORT)
    clean.run(config, {"data": run / artifacts.IMPORT}, run / artifacts.CLEAN)
    run_tokenizer(config, {"base": tiny_model}, run / artifacts.TOKENIZER)
    path = write_rows(tmp_path / "general.jsonl", ("What is a lake?", "Water with land around it."))
    with pytest.raises(DataError, match=r"train\.replay: there are no conversations or documents"):
        tokens(settings(path), run)


@pytest.fixture(scope="module")
def talking(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has learned to end what it says."""
    directory = tmp_path_factory.mktemp("talking")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    said = [[{"role": "user", "content": text}, {"role": "assistant", "content": "A good question."}]
            for text in INSTRUCTIONS.read_text(encoding="utf-8").splitlines()[:24]]  # fmt: skip
    texts = [tokenizer.apply_chat_template(row, tokenize=False) for row in said]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(50):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_the_bases_own_answers(
    talking: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    rows = list(own_answers(talking))
    made = [row for row in rows if not isinstance(row, Entry)]
    assert len(rows) == len(INSTRUCTIONS.read_text(encoding="utf-8").splitlines())
    assert len(made) > 20 and all(row["synthetic"] for row in made)
    assert made[0]["messages"][1]["content"] == "A good question."
    kept = list((tmp_path / "home" / "replay").iterdir())
    assert len(kept) == 1 and list(own_answers(talking)) == rows
    kept[0].write_text(kept[0].read_text().replace('"ended": true', '"ended": false'))
    assert all(isinstance(row, Entry) and row.rule == "answer did not end" for row in own_answers(talking)), (
        "not cached"
    )
    endless = sum(isinstance(row, Entry) for row in own_answers(tiny_model))
    assert endless > 20, "a model that never learned to end has next to nothing to give"


@pytest.mark.slow
def test_a_whole_run(talking: Path, faq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    said: list[str] = []
    config, origins = load_config(sets=[*QUICK, f"model.base={talking}", "train.replay={share: 0.2}"])
    done = train(faq, config=config, origins=origins, say=said.append)
    assert any("general rows in the base's own words" in line for line in said)
    facts = done.report["training"]["phases"]["sft"]["replay"]
    assert facts["share"] == pytest.approx(0.2, abs=0.03)
    assert (
        done.report["training"]["trained_tokens"]
        == sum(TokenStore(done.run / artifacts.TOKENS / "train").item_trained) - facts["trained_tokens"]
    )
    assert "3-replay" in done.report["ledger"]
    kept = read_ledger(done.run / artifacts.TOKENS).to_pylist()
    assert (
        sum(row["count"] for row in kept if row["unit"] == "token" and row["rule"] == "replay")
        == (facts["trained_tokens"])
    )
    assert not train(faq, config=config, origins=origins, say=said.append).worked
    plain, origins = load_config(sets=[*QUICK, f"model.base={talking}"])
    other = train(faq, config=plain, origins=origins, say=said.append)
    assert other.run.name == "faq-2" and other.report["training"]["phases"]["sft"]["replay"] is None
    figures = {name: report["held_out"]["base"]["loss"] for name, report in
               {"with": done.report, "without": other.report}.items()}  # fmt: skip
    assert figures["with"] == figures["without"], "the same test split"
