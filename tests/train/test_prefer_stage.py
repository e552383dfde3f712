"""Preferences from records to a finished model: the phases, their resume bit for bit, and what cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ownchat import artifacts
from ownchat.config import Config, load_config
from ownchat.data import stage as data
from ownchat.data.records import ShardWriter, batched, read_records
from ownchat.errors import ConfigError, Interrupted, RunError
from ownchat.monitor.events import read_lines
from ownchat.pipeline import runs
from ownchat.tokenizer import stage as tokenizer
from ownchat.tokenizer.store import TokenStore
from ownchat.tokenizer.tokens import run_tokens
from ownchat.train import loop
from ownchat.train.reference import NAME as REFERENCE
from ownchat.train.stage import run

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
GOOD, BAD = "The {0} is fine, thank you for asking.", "Who knows. Ask somebody else about the {0}."
RIGHT, WRONG = "Of course: {0} was looked at today and works as it should.", "Go away with your {0} now."


def settings(*sets: str) -> Config:
    common = ["train.batch_tokens=600", "model.dtype=float32", "train.epochs=2", "train.validate_every=3"]
    common += ["train.preference_epochs=3", "train.preference_learning_rate=5e-3"]
    return load_config(sets=[*common, *sets])[0]


def conversations() -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"Where do I find the {thing} number {n}?"},
                      {"role": "assistant", "content": f"The {thing} {n} stands in the hall, next to the {thing}."}]}
        for thing in THINGS for n in range(3)
    ]  # fmt: skip


def pairs() -> list[dict[str, Any]]:
    return [
        {"prompt": f"What about {thing} {n}?", "chosen": GOOD.format(f"{thing} {n}"), "rejected": BAD.format(thing)}
        for thing in THINGS for n in range(4)
    ]  # fmt: skip


def judged() -> list[dict[str, Any]]:
    return [
        {"prompt": f"Tell me of {thing} {n}.", "label": n > 0,
         "completion": (RIGHT if n else WRONG).format(f"{thing} {n}")}
        for thing in THINGS for n in range(4)
    ]  # fmt: skip


def make(root: Path, base: Path, **files: list[dict[str, Any]]) -> dict[str, Path]:
    """The stages before training, for records in these files. Sentences that are so alike would be one group, and
    stand in one split: so every seventh record is taken for valid, and the one after it for test."""
    (root / "source").mkdir(parents=True)
    for name, rows in files.items():
        (root / "source" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, _ = load_config()
    data.run(config, {"source": root / "source"}, root / "1-data")
    records = list(read_records(root / "1-data"))
    for split, rests in (("train", (2, 3, 4, 5, 6)), ("valid", (0,)), ("test", (1,))):
        with ShardWriter(root / "2-clean" / split) as writer:
            for batch in batched([row for number, row in enumerate(records) if number % 7 in rests]):
                writer.write(batch)
    tokenizer.run_tokenizer(config, {"base": base}, root / "3-tokenizer")
    run_tokens(config, {"clean": root / "2-clean", "tokenizer": root / "3-tokenizer"}, root / "4-tokens")
    return {"tokens": root / "4-tokens", "tokenizer": root / "3-tokenizer", "base": base}


@pytest.fixture(scope="module")
def only_pairs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make(tmp_path_factory.mktemp("pairs"), tiny_model, pairs=pairs())


@pytest.fixture(scope="module")
def both(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make(tmp_path_factory.mktemp("both"), tiny_model, faq=conversations(), pairs=pairs())


@pytest.fixture(scope="module")
def single(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make(tmp_path_factory.mktemp("single"), tiny_model, judged=judged())


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def curve(output: Path, phase: str) -> list[dict[str, Any]]:
    timed = ("seconds", "tokens_per_second")
    rows = read_lines(output / phase / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the ``count``-th step, whichever phase it is in."""
    one_step, done = loop.train_step, []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        done.append(1)
        if len(done) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)

    monkeypatch.setattr(loop, "train_step", interrupted)


@pytest.mark.parametrize("preference", ["dpo", "kto", "orpo"])
@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_preferences_alone(only_pairs: dict[str, Path], tmp_path: Path, preference: str, method: str) -> None:
    """From the base; the better reply wins, and what is judged is the objective's own loss."""
    report = run(settings(f"train.preference={preference}", f"train.method={method}"), only_pairs, tmp_path)
    facts = report.details
    assert list(facts["phases"]) == ["prefer"] and not (tmp_path / "sft").exists()
    assert facts["objective"] == preference and facts["best_loss"] < facts["base_loss"]
    assert facts["best"]["accuracy"] > 0.9 and facts["best"]["margin"] > facts["before"]["margin"]
    rows = curve(tmp_path, "prefer")
    if preference != "orpo":
        start = {"dpo": 0.6931472, "kto": 0.5}[preference]
        assert rows[0]["validation_loss"] == pytest.approx(start), "the model is its reference"
        assert rows[0]["validation_margin"] == 0.0 and rows[0]["validation_accuracy"] == 0.5
    assert (tmp_path / "prefer" / REFERENCE).is_file() == (preference != "orpo")
    steps = [row for row in rows if "loss" in row]
    assert all({"margin", "accuracy"} <= row.keys() for row in steps)
    assert steps[-1]["margin"] > steps[0]["margin"]
    best = min((row["validation_loss"], row["step"]) for row in rows[1:] if "validation_loss" in row)
    assert (facts["best_loss"], facts["best_step"]) == best
    assert facts["best"]["token_accuracy"] > facts["before"]["token_accuracy"], "of the better replies"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert (tmp_path / "adapter").exists() == (method == "lora") and model.dtype == torch.float32


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_phases_are_one_result(both: dict[str, Path], tmp_path: Path, method: str) -> None:
    """The second phase begins where the first was best; the adapter is one, over the original base."""
    facts = run(settings(f"train.method={method}"), both, tmp_path).details
    assert list(facts["phases"]) == ["sft", "prefer"]
    sft, prefer = facts["phases"].values()
    assert facts["steps"] == prefer["steps"] and facts["seconds"] == round(sft["seconds"] + prefer["seconds"], 1)
    assert sft["best_loss"] < sft["base_loss"] and prefer["best_loss"] < prefer["base_loss"]
    for phase in ("sft", "prefer"):
        made = {path.name for path in (tmp_path / phase).iterdir()}
        assert {"decisions.json", "metrics.jsonl", "events.jsonl", "checkpoints", "result.json"} <= made
    first, second = (artifacts.read_json(tmp_path / phase / "decisions.json") for phase in ("sft", "prefer"))
    assert [first[name] for name in ("dtype", "threads", "float32_tflops")] == [
        second[name] for name in ("dtype", "threads", "float32_tflops")
    ], "the machine is measured once"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.arange(3, 60)[None]
    if method == "lora":
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(both["base"]), tmp_path / "adapter")
        with torch.no_grad():
            torch.testing.assert_close(adapted.eval()(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    # what the reference says of the first chosen reply is what the first phase's best model says of it
    store = TokenStore(both["tokens"] / "prefer" / "train")
    said = load_file(tmp_path / "prefer" / REFERENCE)["train"][0]
    best = tmp_path / "sft" / "checkpoints" / f"step-{sft['best_step']:06d}"
    if method == "lora":
        before = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(both["base"]), best / "adapter")
    else:
        before = AutoModelForCausalLM.from_pretrained(best / "model")
    for document, wanted in zip(store.item(0).documents, said.tolist(), strict=True):
        ids, trained = torch.tensor(document[0]), torch.tensor(document[1][1:] == 1)
        with torch.no_grad():
            scores = before.eval()(ids[None]).logits[0, :-1].double().log_softmax(-1)
        assert float(scores.gather(1, ids[1:, None])[:, 0][trained].sum()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "preference"), [("lora", "kto"), ("lora", "dpo"), ("full", "dpo"), ("full", "orpo")]
)
def test_resume_is_bit_for_bit_in_every_phase(
    both: dict[str, Path], tmp_path: Path, method: str, preference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(f"train.method={method}", f"train.preference={preference}")
    facts = run(config, both, tmp_path / "whole").details
    steps = facts["phases"]["sft"]["steps"]
    interrupt_after(2, monkeypatch)
    with pytest.raises(Interrupted, match="saved at step 2"):
        run(config, both, tmp_path / "broken")
    assert not (tmp_path / "broken" / "prefer").exists()
    monkeypatch.undo()
    interrupt_after(steps - 2 + 4, monkeypatch)
    with pytest.raises(Interrupted, match="saved at step 4"):
        run(config, both, tmp_path / "broken")
    monkeypatch.undo()
    assert not (tmp_path / "broken" / artifacts.MANIFEST).exists()
    finished = (tmp_path / "broken" / "sft" / "metrics.jsonl").stat().st_mtime_ns
    run(config, both, tmp_path / "broken")
    assert (tmp_path / "broken" / "sft" / "metrics.jsonl").stat().st_mtime_ns == finished, "it was done"
    for phase in ("sft", "prefer"):
        assert curve(tmp_path / "whole", phase) == curve(tmp_path / "broken", phase)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


def test_a_signal_while_the_reference_is_made(
    both: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ownchat.train import reference

    whole = settings()
    run(whole, both, tmp_path / "whole")
    summed, asked = reference.sums, []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        asked.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        return summed(*arguments, **keywords)

    monkeypatch.setattr(reference, "sums", interrupted)
    with pytest.raises(Interrupted, match="before the first step"):
        run(whole, both, tmp_path / "broken")
    monkeypatch.undo()
    assert asked and not (tmp_path / "broken" / "prefer" / REFERENCE).exists()
    run(whole, both, tmp_path / "broken")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


def test_judged_replies_are_for_kto(single: dict[str, Path], tmp_path: Path) -> None:
    for preference in ("dpo", "orpo"):
        with pytest.raises(ConfigError, match=r"train.preference=kto"):
            run(settings(f"train.preference={preference}"), single, tmp_path / preference)
        assert not (tmp_path / preference).exists()
    facts = run(settings("train.preference=kto"), single, tmp_path / "kto").details
    assert facts["best_loss"] < facts["base_loss"] and facts["best"]["accuracy"] > 0.9
    desirable, undesirable = TokenStore(single["tokens"] / "prefer" / "train").judgements
    assert desirable > 2 * undesirable
    assert 1 <= desirable * facts["kto_weights"][0] / (undesirable * facts["kto_weights"][1]) <= 4 / 3 + 1e-9
    assert all("kl" in row for row in curve(tmp_path / "kto", "prefer") if "loss" in row)


def test_pairs_and_judged_replies_together(tiny_model: Path, tmp_path: Path) -> None:
    mixed = make(tmp_path / "data", tiny_model, pairs=pairs(), judged=judged())
    store = TokenStore(mixed["tokens"] / "prefer" / "train")
    assert store.documents_per_item == 1 and sum(store.judgements) == len(store)
    facts = run(settings("train.preference=kto"), mixed, tmp_path / "5-train").details
    assert facts["best_loss"] < facts["base_loss"] and facts["best"]["accuracy"] > 0.9


def test_other_settings_need_force(both: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = run(settings(), both, tmp_path / "whole").details["phases"]["sft"]["steps"]
    interrupt_after(steps + 1, monkeypatch)
    output = tmp_path / "run" / artifacts.TRAIN
    with pytest.raises(Interrupted):
        run(settings(), both, output)
    monkeypatch.undo()
    # the first beat of this phase, and not the last one of the phase before
    assert runs.status(tmp_path / "run") == "interrupted, step 0"
    other = settings("train.preference_beta=0.2")
    with pytest.raises(RunError, match=r"train.preference_beta: 0.1 then, 0.2 now"):
        run(other, both, output)
    assert (output / "prefer" / REFERENCE).is_file(), "nothing was touched"
    run(other, both, output, force=True)


def test_minutes_are_shared(both: dict[str, Path]) -> None:
    from ownchat.train.phases import phases_of

    alone = phases_of(settings(), both["tokens"])
    assert [phase.minutes for phase in alone] == [None, None]
    sft, prefer = phases_of(settings("train.minutes=10"), both["tokens"])
    assert sft.minutes + prefer.minutes == pytest.approx(10)
    assert sft.minutes / prefer.minutes == pytest.approx(2 * sft.train.num_tokens / (3 * prefer.train.num_tokens))


@pytest.mark.long
def test_two_processes_prefer_as_one(both: dict[str, Path], tmp_path: Path) -> None:
    """Both phases, each objective, an adapter and all weights: losses, figures and the reference."""
    common = ["train.batch_tokens=600", "train.block_tokens=200", "model.dtype=float32", "train.epochs=1",
              "train.validate_every=3", "train.preference_epochs=2", "train.threads=1",
              "train.compile=off"]  # fmt: skip
    variants = {
        "dpo": ["train.preference=dpo", "train.preference_learning_rate=1e-3"],
        "kto": ["train.preference=kto", "train.preference_learning_rate=1e-3"],
        "orpo": ["train.preference=orpo", "train.preference_learning_rate=1e-3"],
        "full": ["train.method=full", "train.preference_learning_rate=3e-4"],
    }
    asked = []
    for name, sets in variants.items():
        run(load_config(sets=[*common, *sets])[0], both, tmp_path / f"{name}-1")
        inputs = {key: str(path) for key, path in both.items()}
        asked.append({"sets": [*common, *sets], "inputs": inputs, "output": str(tmp_path / f"{name}-2")})
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launch, str(Path(__file__).parent / "worker.py"), json.dumps(asked)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    for name in variants:
        for phase in ("sft", "prefer"):
            one, two = (curve(tmp_path / f"{name}-{processes}", phase) for processes in (1, 2))
            assert [row["step"] for row in one] == [row["step"] for row in two] and len(one) > 3
            for mine, theirs in zip(one, two, strict=True):
                assert mine.keys() == theirs.keys()
                for figure, value in mine.items():
                    if figure.endswith("accuracy") and mine["step"] <= 1:
                        continue  # the model is its reference still: all gains are zero, give or take a rounding
                    loose = figure in ("gradient_norm", "margin", "validation_margin", "kl", "validation_kl")
                    limit = pytest.approx(value, rel=1e-3 if loose else 2e-5, abs=1e-4 if loose else 1e-7)
                    assert theirs[figure] == limit, (name, phase, mine["step"], figure)
        if name != "orpo":
            known = [load_file(tmp_path / f"{name}-{count}" / "prefer" / REFERENCE) for count in (1, 2)]
            for key, values in known[0].items():
                torch.testing.assert_close(known[1][key], values, rtol=1e-4, atol=1e-3)


def test_a_plan_counts_every_phase(only_pairs: dict[str, Path], both: dict[str, Path], tmp_path: Path) -> None:
    from ownchat.train.plan import Machine, forecast

    alone = forecast(settings(), only_pairs, Machine(), scratch=tmp_path)
    store = TokenStore(only_pairs["tokens"] / "prefer" / "train")
    assert alone.tokens == 3 * store.num_tokens and alone.epochs == 3 and alone.measured_memory
    assert alone.seconds["reference"] > 0
    together = forecast(settings(), both, Machine("h100"), scratch=None)
    sft, prefer = together.phases
    assert (sft["name"], sft["objective"], prefer["name"], prefer["objective"]) == (
        "sft",
        "likelihood",
        "prefer",
        "dpo",
    )
    for name in ("steps", "tokens", "trained_tokens", "validations"):
        assert getattr(together, name) == sft[name] + prefer[name]
    assert together.seconds["training"] == pytest.approx(sft["seconds"] + prefer["seconds"], abs=0.02)
    kto, orpo = (
        forecast(settings(f"train.preference={name}"), both, Machine("h100"), scratch=None) for name in ("kto", "orpo")
    )
    assert "reference" in together.seconds and kto.flops == together.flops and "reference" not in orpo.seconds
