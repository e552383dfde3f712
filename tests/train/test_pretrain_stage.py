"""A model from nothing: all text first, then conversations, in one training."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from ownchat import artifacts
from ownchat.config import Config, load_config
from ownchat.data.ledger import FATES
from ownchat.data.records import ShardWriter, batched, message, record
from ownchat.errors import ConfigError, DataError, Interrupted
from ownchat.evaluate import report as reporting
from ownchat.model.compiled import can_compile
from ownchat.monitor.events import read_lines
from ownchat.tokenizer.stage import load_tokenizer, run_tokenizer
from ownchat.tokenizer.store import TokenStore, TokenWriter
from ownchat.tokenizer.tokens import run_tokens
from ownchat.train import loop
from ownchat.train.phases import make_plan, phases_of, with_room
from ownchat.train.stage import derived, key_of, run
from ownchat.train.validation import text_bytes, validation_items

THINGS = ("valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof")
DIAL = {
    "pretrain": {"epochs": 2.0, "batch_tokens": 600, "learning_rate": 5e-3, "weight_decay": 0.1, "warmup_share": 0.1},
    "sft": {"learning_rate": 1e-3},
}

pytestmark = pytest.mark.usefixtures("speed_of_matrix_products")


COMMON = ["model.base=scratch", "model.dtype=float32", "tokenizer.max_tokens=64", "train.batch_tokens=400",
          "train.epochs=1", "train.validate_every=4", "train.compile=off", "train.threads=1"]  # fmt: skip


def settings(*sets: str) -> Config:
    return load_config(sets=[*COMMON, *sets])[0]


def document(number: int, file: str = "manual.txt") -> dict[str, Any]:
    text = f"Chapter {number}. " + " ".join(
        f"The {thing} of house {number} is made in year {1900 + 3 * number + place}, and nobody knows why."
        for place, thing in enumerate(THINGS[number % 4 : number % 4 + 3])
    )
    return record("document", file=file, format="text", line=number, text=text)


def conversation(number: int) -> dict[str, Any]:
    thing = THINGS[number % len(THINGS)]
    turns = [
        message("user", f"What about the {thing} of house {number}?"),
        message("assistant", f"The {thing} of house {number} is fine, thank you."),
    ]
    return record("conversation", file="faq.jsonl", format="jsonl", line=number, messages=turns)


def cleaned(root: Path, rows: list[dict[str, Any]]) -> Path:
    for split, some in (("train", rows[2::2]), ("valid", rows[1::4]), ("test", rows[3::4])):
        with ShardWriter(root / "2-clean" / split) as writer:
            for batch in batched(some):
                writer.write(batch)
    return root / "2-clean"


def stages(root: Path, tiny_model: Path, rows: list[dict[str, Any]]) -> dict[str, Path]:
    """The stages before training, by hand: the tiny model's tokenizer, and a model of random weights."""
    clean, config = cleaned(root, rows), settings()
    run_tokenizer(load_config()[0], {"base": tiny_model}, root / "3-tokenizer")
    run_tokens(config, {"clean": clean, "tokenizer": root / "3-tokenizer"}, root / "4-tokens")
    base = root / artifacts.MODEL
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=len(load_tokenizer(tiny_model)), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=128,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(shape).save_pretrained(base)
    load_tokenizer(tiny_model).save_pretrained(base)
    artifacts.write_json(base / "dial.json", DIAL)
    return {"tokens": root / "4-tokens", "tokenizer": root / "3-tokenizer", "base": base}


@contextmanager
def interrupted_in_step(count: int) -> Iterator[None]:
    """SIGTERM in the ``count``-th step, whichever phase it is in."""
    one_step, done = loop.train_step, []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        done.append(1)
        if len(done) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", interrupted)
        yield


@pytest.fixture(scope="session")
def inputs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Documents and conversations, alternately in each split."""
    rows = [row for number in range(1, 41) for row in (document(number), document(number + 40), conversation(number))]
    return stages(tmp_path_factory.mktemp("pretraining"), tiny_model, rows)


@pytest.fixture(scope="session")
def only_documents(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    rows = [document(number) for number in range(1, 60)]
    return stages(tmp_path_factory.mktemp("documents"), tiny_model, rows)


@pytest.fixture(scope="session")
def trained(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / artifacts.TRAIN
    run(settings(), inputs, output)
    return output


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def curve(output: Path, phase: str = "pretrain") -> list[dict[str, Any]]:
    rows = read_lines(output / phase / "metrics.jsonl")
    return [{key: row[key] for key in row if key not in ("seconds", "tokens_per_second")} for row in rows]


# ------------------------------------------------------------------------------------------------------- the tokens


def test_all_text_is_there_for_pretraining(inputs: dict[str, Path]) -> None:
    everything, chats = (TokenStore(inputs["tokens"] / part / "train") for part in ("pretrain", "."))
    assert {row["kind"] for row in everything.index()} == {"document", "conversation"}
    assert {row["kind"] for row in chats.index()} == {"conversation"}
    assert all((everything[number][1][1:] == 1).all() for number in range(len(everything)))
    assert any((chats[number][1][1:] == 0).any() for number in range(len(chats)))
    assert everything.lengths.max() <= 64
    manifest = artifacts.read_json(inputs["tokens"] / artifacts.MANIFEST)["report"]
    for totals in manifest["details"]["ledger"].values():
        assert totals["in"] == sum(totals[fate] for fate in FATES)
    assert manifest["counts"]["pretrain_train_trained"] == everything.trained_tokens
    kept = manifest["details"]["rules"]["token kept"]
    assert kept["pre-trained"] == sum(manifest["counts"][f"pretrain_{split}_trained"] for split in artifacts.SPLITS)


def test_fine_tuning_has_documents_beside_conversations(inputs: dict[str, Path], tmp_path: Path) -> None:
    """A base that can speak learns both at once, as ever."""
    clean = inputs["tokens"].parent / "2-clean"
    config, _ = load_config(sets=["tokenizer.max_tokens=64"])
    run_tokens(config, {"clean": clean, "tokenizer": inputs["tokenizer"]}, tmp_path / "4-tokens")
    assert not (tmp_path / "4-tokens" / "pretrain").exists()
    kinds = {row["kind"] for row in TokenStore(tmp_path / "4-tokens" / "train").index()}
    assert kinds == {"document", "conversation"}


ENOUGH = [document(number) for number in range(30)]
THE_SAME = record("document", file="a.txt", format="text", line=1, text="The pump makes a noise.\n" * 20_000)


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [
        ([], [], "no text for pre-training is left in the train split"),
        (ENOUGH, [], "no text for pre-training is left in the valid split"),
        (ENOUGH[:2], ENOUGH[2:], "says next to nothing: 313 tokens"),
        ([THE_SAME], ENOUGH, "says next to nothing: .* bytes without what is repeated"),
    ],
)
def test_too_little_text_says_what_to_do(
    train: list[dict[str, Any]], valid: list[dict[str, Any]], message: str, tmp_path: Path, tiny_model: Path
) -> None:
    for split, rows in (("train", train), ("valid", valid), ("test", [])):
        with ShardWriter(tmp_path / "2-clean" / split) as writer:
            for batch in batched(rows):
                writer.write(batch)
    inputs = {"clean": tmp_path / "2-clean", "tokenizer": tiny_model}
    with pytest.raises(DataError, match=rf"{message}(.|\n)*more \(and more various\) text"):
        run_tokens(settings(), inputs, tmp_path / "4-tokens")


def test_few_tokens_to_validate_on_are_said(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = cleaned(tmp_path, [document(number) for number in range(120)])
    for few in (0, 100_000):
        monkeypatch.setattr("ownchat.tokenizer.tokens.FEW_TOKENS", few)
        run_tokens(settings(), {"clean": clean, "tokenizer": tiny_model}, tmp_path / f"4-tokens-{few}")
        assert ("tokens to validate on" in capsys.readouterr().err) == bool(few)


# ----------------------------------------------------------------------------------------------------- the training


def test_pretraining_then_conversations(trained: Path, inputs: dict[str, Path]) -> None:
    report = artifacts.completed(trained, key_of(settings(), inputs))
    assert report is not None
    phases = report.details["phases"]
    assert list(phases) == ["pretrain", "sft"]
    assert (phases["pretrain"]["optimizer"], phases["sft"]["optimizer"]) == ("muon", "adamw")
    plan = phases["pretrain"]["plan"]
    assert (plan["schedule"], plan["learning_rate"], plan["batch_tokens"]) == ("wsd", 5e-3, 600)
    assert (phases["sft"]["plan"]["schedule"], phases["sft"]["plan"]["learning_rate"]) == ("cosine", 1e-3)
    assert phases["pretrain"]["best"]["bits_per_byte"] < 0.7 * phases["pretrain"]["before"]["bits_per_byte"]
    assert phases["sft"]["best_loss"] < phases["sft"]["base_loss"]
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    model = AutoModelForCausalLM.from_pretrained(trained / "model").eval()
    ids = torch.tensor([[0, *tokenizer.encode("The pump of house 7 is made", add_special_tokens=False)]])
    assert model(input_ids=ids, labels=ids).loss < phases["pretrain"]["base_loss"] - 1
    rates = [row["learning_rate"] for row in curve(trained) if "learning_rate" in row]
    assert rates[0] < max(rates) == pytest.approx(5e-3) and rates[-1] < 0.5 * max(rates)
    values = derived(settings(), report)
    assert values["train.learning_rate"] == (1e-3, "from the rate of pre-training")


def test_bits_per_byte_are_of_the_text(trained: Path, inputs: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(inputs["tokenizer"])
    valid = TokenStore(inputs["tokens"] / "pretrain" / "valid")
    items = validation_items(valid, 1e9)
    texts = [tokenizer.decode(valid[n][0][1:], skip_special_tokens=True) for n in range(len(valid))]
    assert text_bytes(tokenizer, items) == sum(len(text.encode()) for text in texts)
    first = curve(trained)[0]
    nats = first["validation_loss"] * valid.trained_tokens
    wanted = nats / math.log(2) / text_bytes(tokenizer, items)
    assert first["validation_bits_per_byte"] == pytest.approx(wanted, rel=1e-6)


def test_sample_texts(trained: Path, inputs: dict[str, Path]) -> None:
    rows = read_lines(trained / "pretrain" / "samples.jsonl")
    last = artifacts.read_json(trained / "pretrain" / "result.json")["steps"]
    assert rows[0]["step"] == 0 and rows[-1]["step"] == last
    assert all(len(row["samples"]) == 3 for row in rows)
    prompts = [sample["prompt"] for sample in rows[0]["samples"]]
    assert [[sample["prompt"] for sample in row["samples"]] for row in rows] == [prompts] * len(rows)
    assert prompts[0].startswith("Chapter ") and prompts[-1].startswith("user\nWhat about the ")
    assert rows[-1]["samples"][0]["text"] != rows[0]["samples"][0]["text"]


def test_the_report_shows_bits_and_samples(trained: Path) -> None:
    found = reporting.pretraining(trained)
    assert found is not None and len(found["samples"]) == min(3, len(read_lines(trained / "pretrain/samples.jsonl")))
    assert found["bits_per_byte"][0][0] == 0 and found["bits_per_byte"][-1][1] < found["bits_per_byte"][0][1]
    assert reporting.pretraining(trained / "nothing") is None


@pytest.mark.slow  # compiling takes half a minute
@pytest.mark.skipif(can_compile("cpu") is not None, reason=str(can_compile("cpu")))
def test_compiled_layers_resume_bit_for_bit(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text in rows of one length: layers are compiled, and what a resume loads of them gives the same bits."""
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    everything = TokenStore(inputs["tokens"] / "pretrain" / "train")
    stream = np.concatenate([everything[number][0] for number in range(len(everything))])
    for split, part in (("train", stream[: 64 * 40]), ("valid", stream[64 * 40 : 64 * 44])):
        with TokenWriter(tmp_path / "4-tokens" / "pretrain" / split, len(load_tokenizer(inputs["base"]))) as writer:
            for number, row in enumerate(part.reshape(-1, 64)):
                place = {"id": str(number), "record": str(number), "source": "text", "kind": "document"}
                writer.add(row, [1] * 64, piece=number, group=None, **place)
    for split in artifacts.SPLITS:
        with TokenWriter(tmp_path / "4-tokens" / split, len(load_tokenizer(inputs["base"]))):
            pass  # no conversations
    mine, config = inputs | {"tokens": tmp_path / "4-tokens"}, settings("train.compile=on")
    facts = run(config, mine, tmp_path / "whole").details["phases"]["pretrain"]
    assert facts["compile_layers"] == [8, 64] or facts["compile_layers"] == (8, 64)
    torch._dynamo.reset()
    with interrupted_in_step(3), pytest.raises(Interrupted):
        run(config, mine, tmp_path / "broken")
    torch._dynamo.reset()
    run(config, mine, tmp_path / "broken")
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert curve(tmp_path / "whole") == curve(tmp_path / "broken")


@pytest.mark.parametrize("stop_at", [3, 9])
def test_resume_is_bit_for_bit(stop_at: int, trained: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Interrupted in both phases; the samples, too, are those of a quiet training."""
    pretraining = artifacts.read_json(trained / "pretrain" / "result.json")["steps"]
    one_step, done = loop.train_step, []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        done.append(1)
        if len(done) in (stop_at, pretraining + 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", interrupted)
        for _ in range(2):
            with pytest.raises(Interrupted):
                run(settings(), inputs, tmp_path / "5-train")
    run(settings(), inputs, tmp_path / "5-train")
    one, other = weights(trained), weights(tmp_path / "5-train")
    assert all(torch.equal(one[name], other[name]) for name in one)
    for phase in ("pretrain", "sft"):
        assert curve(tmp_path / "5-train", phase) == curve(trained, phase)
    mine, theirs = (
        {row["step"]: row for row in read_lines(output / "pretrain" / "samples.jsonl")}
        for output in (tmp_path / "5-train", trained)
    )
    assert all(mine[step] == theirs[step] for step in mine.keys() & theirs.keys())


def test_documents_alone_are_one_phase(only_documents: dict[str, Path], tmp_path: Path) -> None:
    report = run(settings("train.optimizer=adamw", "train.schedule=cosine"), only_documents, tmp_path / "5-train")
    assert list(report.details["phases"]) == ["pretrain"]
    facts = report.details["phases"]["pretrain"]
    assert facts["optimizer"] == "adamw" and facts["plan"]["schedule"] == "cosine"
    assert facts["best"]["bits_per_byte"] < facts["before"]["bits_per_byte"]


def test_given_values_win(inputs: dict[str, Path]) -> None:
    wanted = '{"epochs": 5, "batch_tokens": 256, "learning_rate": 0.01, "weight_decay": 0.3, "momentum": 0.7}'
    phase = phases_of(settings(f"train.pretrain={wanted}"), inputs["tokens"], inputs["base"])[0]
    assert (phase.epochs, phase.batch_tokens, phase.learning_rate, phase.weight_decay) == (5, 256, 0.01, 0.3)
    assert phase.momentum == 0.7
    assert (phase.optimizer, phase.betas, phase.warmup_share) == ("muon", (0.9, 0.95), 0.1)
    without = load_config(sets=["model.base=scratch"])[0]
    plan = make_plan(without, phase, 512)
    assert plan.validations == plan.total_steps // 25 == 6 and plan.validate_every == round(plan.total_steps / 6)


def test_muon_is_for_all_weights(inputs: dict[str, Path]) -> None:
    adapter = load_config(sets=["train.optimizer=muon"])[0]
    with pytest.raises(ConfigError, match="adapter"):
        phases_of(adapter, inputs["tokens"])


def test_a_faster_machine_uses_its_minutes(inputs: dict[str, Path]) -> None:
    """The passes come from a guessed speed: with a limit in minutes there are more to choose from, and not without."""

    def planned(*sets: str) -> tuple[int, int]:
        config = settings(*sets)
        phase = phases_of(config, inputs["tokens"], inputs["base"])[0]
        plan = make_plan(config, with_room(config, phase), 600)
        return plan.total_steps, plan.warmup_steps

    steps, warmup = planned()
    assert planned("train.minutes=10") == (2 * steps, warmup)
    assert planned("train.minutes=10", "train.pretrain={epochs: 2}") == (steps, warmup)


def test_minutes_are_shared_by_tokens(inputs: dict[str, Path]) -> None:
    pretrain, sft = phases_of(settings("train.minutes=10"), inputs["tokens"], inputs["base"])
    assert pretrain.minutes is not None and sft.minutes is not None
    assert pretrain.minutes + sft.minutes == pytest.approx(10)
    assert pretrain.minutes / sft.minutes == pytest.approx(2 * pretrain.train.num_tokens / sft.train.num_tokens)


# ------------------------------------------------------------------------------------------------------ when it ends


def test_what_repeats_too_often_still_gets_its_decay(only_documents: dict[str, Path], tmp_path: Path) -> None:
    """Forty passes over little text: once the loss stops falling the rate falls to its end, at a resume as well."""
    config = settings('train.pretrain={"epochs": 40, "learning_rate": 0.02}', "train.patience=2")
    facts = run(config, only_documents, tmp_path / "whole").details
    assert facts["steps"] < facts["plan"]["total_steps"] and "the rate fell from step" in facts["stopped"]
    begun = next(row for row in read_lines(tmp_path / "whole/pretrain/events.jsonl") if row["event"] == "decay_began")
    rows = [row for row in curve(tmp_path / "whole") if "learning_rate" in row]
    falling = [row["learning_rate"] for row in rows if row["step"] > begun["step"]]
    assert falling == sorted(falling, reverse=True) and falling[-1] < 0.3 * 0.02
    assert len(falling) == pytest.approx(0.2 * facts["steps"], abs=2)
    with interrupted_in_step(begun["step"] + 2), pytest.raises(Interrupted):
        run(config, only_documents, tmp_path / "broken")
    run(config, only_documents, tmp_path / "broken")
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")


# ----------------------------------------------------------------------------------------------------------- the mix


def test_the_mix_is_in_the_plan(inputs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    plain = phases_of(settings(), inputs["tokens"], inputs["base"])
    twice = phases_of(settings("data.mix={documents: 2}"), inputs["tokens"], inputs["base"])
    assert plain[0].mix is None and twice[1].mix is None, "conversations alone are as they were"
    index = plain[0].train.index()
    documents = sum(row["kind"] == "document" for row in index)
    assert twice[0].mix is not None and twice[0].mix.num_documents == len(index) + documents
    without = phases_of(settings("data.mix={conversations: 0}"), inputs["tokens"], inputs["base"])
    assert [phase.name for phase in without] == ["pretrain"]
    assert without[0].mix is not None and "are left out" in without[0].mix.described()


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ("{letters: 2}", r'"letters" is no part of what is trained on(.|\n)*conversations, documents(.|\n)*faq.jsonl'),
        ("{documents: -1}", "documents: -1.0 passes"),
        ("{'*': 0}", "leaves out everything"),
    ],
)
def test_a_mix_that_cannot_be(mix: str, message: str, inputs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=message):
        phases_of(settings(f"data.mix={mix}"), inputs["tokens"], inputs["base"])


def test_a_mix_is_trained_and_resumed(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = settings("data.mix={documents: 0.5, '*faq*': 2}")
    assert key_of(config, inputs) != key_of(settings(), inputs)
    facts = run(config, inputs, tmp_path / "whole").details["phases"]
    assert facts["pretrain"]["best"]["bits_per_byte"] < facts["pretrain"]["before"]["bits_per_byte"]
    with interrupted_in_step(6), pytest.raises(Interrupted):
        run(config, inputs, tmp_path / "broken")
    run(config, inputs, tmp_path / "broken")
    assert json.dumps(curve(tmp_path / "broken")) == json.dumps(curve(tmp_path / "whole"))


# ---------------------------------------------------------------------------------------------------- in company


@pytest.mark.slow
def test_two_processes_train_as_one(inputs: dict[str, Path], trained: Path, tmp_path: Path) -> None:
    """Matrices are made orthogonal as a whole though each process has half of their rows; begun by two and ended by one
    as well."""
    request = {"sets": COMMON, "inputs": {name: str(path) for name, path in inputs.items()}}
    asked = [
        request | {"output": str(tmp_path / "two")},
        request | {"output": str(tmp_path / "begun"), "stop_at": 7, "stop_rank": 1},
    ]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launch, str(Path(__file__).parent / "worker.py"), json.dumps(asked)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    run(settings(), inputs, tmp_path / "begun")
    for output in (tmp_path / "two", tmp_path / "begun"):
        for phase in ("pretrain", "sft"):
            one, other = curve(trained, phase), curve(output, phase)
            assert [row["step"] for row in one] == [row["step"] for row in other] and len(one) > 5
            for mine, theirs in zip(one, other, strict=True):
                for figure, value in mine.items():
                    limit = 1e-3 if figure == "gradient_norm" else 1e-5
                    assert theirs[figure] == pytest.approx(value, rel=limit), (output.name, phase, figure, mine["step"])
    assert read_lines(tmp_path / "two/pretrain/samples.jsonl")[0] == read_lines(trained / "pretrain/samples.jsonl")[0]
