"""The stage from token store to standard directory: learning, resume bit for bit, interrupts, refusals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ownchat import artifacts
from ownchat.config import Config, load_config
from ownchat.errors import Interrupted, RunError
from ownchat.monitor.events import read_lines
from ownchat.train import checkpoint, loop
from ownchat.train.decisions import NAME as DECISIONS
from ownchat.train.stage import run
from ownchat.train.validation import validation_documents


def settings(*sets: str) -> Config:
    common = ["train.batch_tokens=400", "model.dtype=float32", "train.epochs=3", "train.validate_every=4"]
    return load_config(sets=[*common, *sets])[0]


LORA, FULL = settings(), settings("train.method=full", "train.learning_rate=3e-3")


@pytest.fixture(params=["lora", "full"])
def config(request: pytest.FixtureRequest) -> Config:
    return LORA if request.param == "lora" else FULL


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_the_result_is_standard(config: Config, inputs: dict[str, Path], tmp_path: Path) -> None:
    report = run(config, inputs, tmp_path / "5-train")
    facts = report.details
    assert facts["best_loss"] < facts["base_loss"] - 0.5
    assert facts["tokens"] > 0 and facts["tokens_per_second"] > 0 and facts["peak_memory_bytes"] > 1e7
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "5-train" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "5-train" / "model")
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.dtype == torch.float32 and tokenizer.chat_template
    assert not list((tmp_path / "5-train").rglob("*.bin")) and not list((tmp_path / "5-train").rglob("*.pt"))
    if config.train.method == "lora":
        base = AutoModelForCausalLM.from_pretrained(inputs["base"])
        adapted = PeftModel.from_pretrained(base, tmp_path / "5-train" / "adapter").eval()
        ids = torch.arange(3, 60)[None]
        with torch.no_grad():
            torch.testing.assert_close(adapted(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_same_seed_same_bits_other_seed_others(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name, config in (("a", LORA), ("b", LORA), ("c", settings("train.seed=1"))):
        run(config, inputs, tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("stop_at", [2, 5])
def test_resume_is_bit_for_bit(
    config: Config, stop_at: int, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config, inputs, tmp_path / "whole")
    one_step, done = loop.train_step, []

    def interrupted(*arguments: object, **keywords: object) -> object:
        done.append(1)
        if len(done) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Interrupted, match=f"saved at step {stop_at}"):
        run(config, inputs, tmp_path / "broken")
    monkeypatch.setattr(loop, "train_step", one_step)
    assert not (tmp_path / "broken" / artifacts.MANIFEST).exists()
    run(config, inputs, tmp_path / "broken")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))

    def curve(output: Path) -> list[tuple[int, float | None, float | None]]:
        rows = read_lines(output / "sft" / "metrics.jsonl")
        return [(row["step"], row.get("loss"), row.get("validation_loss")) for row in rows]

    assert curve(tmp_path / "whole") == curve(tmp_path / "broken"), "no step lost, none twice"
    assert [row["event"] for row in read_lines(tmp_path / "broken" / "sft" / "events.jsonl")].count("resumed") == 1


VICTIM = """
import sys
from pathlib import Path
from types import SimpleNamespace
from ownchat.config import load_config
from ownchat.train.stage import run
tokens, tokenizer, base, output = map(Path, sys.argv[1:])
sets = ["train.batch_tokens=400", "model.dtype=float32", "train.epochs=3", "train.validate_every=4"]
run(load_config(sets=sets)[0], {"tokens": tokens, "tokenizer": tokenizer, "base": base}, output)
"""


def test_kill_in_the_middle_then_same_weights(inputs: dict[str, Path], tmp_path: Path) -> None:
    """A process that is killed without warning; the next one goes on from the last whole checkpoint."""
    run(LORA, inputs, tmp_path / "whole")
    command = [sys.executable, "-c", VICTIM, *map(str, inputs.values()), str(tmp_path / "killed")]
    victim = subprocess.Popen(command)
    metrics = tmp_path / "killed" / "sft" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not any(row["step"] >= 6 for row in read_lines(metrics)):
        assert victim.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    found = checkpoint.latest(tmp_path / "killed" / "sft" / "checkpoints")
    assert found is not None and found[1].step >= 4
    run(LORA, inputs, tmp_path / "killed")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_damaged_checkpoint_is_passed_over(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(LORA, inputs, tmp_path / "whole")
    saved = tmp_path / "whole" / "sft" / "checkpoints"
    newest, state = checkpoint.latest(saved)  # type: ignore[misc]
    content = (newest / "state.safetensors").read_bytes()
    (newest / "state.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    older, earlier = checkpoint.latest(saved)  # type: ignore[misc]
    assert earlier.step < state.step
    (older / "state.json").unlink()
    third = checkpoint.latest(saved)
    assert third is None or third[1].step < earlier.step


def test_other_settings_need_force(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_step = loop.train_step

    def interrupted(*arguments: object, **keywords: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return one_step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Interrupted, match="SIGINT"):
        run(LORA, inputs, tmp_path / "5-train")
    monkeypatch.setattr(loop, "train_step", one_step)
    other = settings("train.learning_rate=0.002")
    with pytest.raises(RunError, match=r"train.learning_rate: None then, 0.002 now"):
        run(other, inputs, tmp_path / "5-train")
    assert checkpoint.latest(tmp_path / "5-train" / "sft" / "checkpoints") is not None, "nothing was touched"
    report = run(other, inputs, tmp_path / "5-train", force=True)
    assert report.details["plan"]["learning_rate"] == 0.002


def test_decisions_are_obeyed_on_resume(inputs: dict[str, Path], tmp_path: Path) -> None:
    auto = settings("model.dtype=auto", "train.epochs=1")
    run(auto, inputs, tmp_path / "a")
    made = artifacts.read_json(tmp_path / "a" / "sft" / DECISIONS)
    assert made["dtype"] in ("float32", "bfloat16") and made["attention"] == "packed" and made["threads"] >= 1
    other = "float32" if made["dtype"] == "bfloat16" else "bfloat16"
    (tmp_path / "a" / artifacts.MANIFEST).unlink()
    shutil.rmtree(tmp_path / "a" / "sft" / "checkpoints")
    artifacts.write_json(tmp_path / "a" / "sft" / DECISIONS, made | {"dtype": other})
    assert run(auto, inputs, tmp_path / "a").details["dtype"] == other


def test_early_stop_keeps_the_best(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = settings("train.learning_rate=0.5", "train.epochs=40", "train.validate_every=2", "train.patience=2")
    facts = run(config, inputs, tmp_path / "5-train").details
    assert "has not fallen for 2 validations" in facts["stopped"]
    assert facts["steps"] < facts["plan"]["total_steps"] and facts["best_step"] < facts["steps"]
    losses = [
        row["validation_loss"]
        for row in read_lines(tmp_path / "5-train" / "sft" / "metrics.jsonl")
        if "validation_loss" in row and row["step"]
    ]
    assert facts["best_loss"] == min(losses)


def test_minutes_shorten_the_plan(inputs: dict[str, Path], tmp_path: Path) -> None:
    facts = run(settings("train.minutes=0.02", "train.epochs=5000"), inputs, tmp_path / "5-train").details
    made = artifacts.read_json(tmp_path / "5-train" / "sft" / DECISIONS)
    assert facts["steps"] == made["planned"][-1][1] < facts["plan"]["total_steps"]


def test_a_machine_that_becomes_faster_uses_its_minutes(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five slow steps at first, by a clock that only steps move; an earlier checkpoint finds what was decided later."""
    one_step, done, now = loop.train_step, [], [1000.0]

    def slow_at_first(*arguments: object, **keywords: object) -> object:
        done.append(1)
        now[0] += 0.8 if len(done) <= 5 else 0.2
        return one_step(*arguments, **keywords)  # type: ignore[arg-type]

    config = settings("train.minutes=0.2", "train.epochs=5000", "train.validate_every=5")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", slow_at_first)
        patched.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
        facts = run(config, inputs, tmp_path / "whole").details
    made = artifacts.read_json(tmp_path / "whole" / "sft" / DECISIONS)["planned"]
    assert [step for step, _, _ in made][:3] == [4, 6, 9]
    assert made[0][1] == 4 + 11 and facts["steps"] == made[-1][1] > 2 * made[0][1]  # (12 s - 4 * .8) / .8 = 11
    moved = [row for row in read_lines(tmp_path / "whole" / "sft" / "events.jsonl") if row["event"] == "planned"]
    assert {(row["step"], row["total_steps"]) for row in moved} <= {(step, total) for step, total, _ in made}

    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    (tmp_path / "again" / artifacts.MANIFEST).unlink()
    (tmp_path / "again" / "sft" / "result.json").unlink()
    checkpoints = sorted((tmp_path / "again" / "sft" / "checkpoints").iterdir())
    for path in checkpoints[1:]:
        shutil.rmtree(path)
    first = int(checkpoints[0].name.removeprefix("step-"))
    assert first < facts["steps"]
    again = run(config, inputs, tmp_path / "again").details
    assert again["steps"] == facts["steps"]
    assert artifacts.read_json(tmp_path / "again" / "sft" / DECISIONS)["planned"] == made
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "again"))


def test_a_loss_that_is_no_number_stops_with_sources(inputs: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken-base"
    shutil.copytree(inputs["base"], broken)
    model = AutoModelForCausalLM.from_pretrained(broken)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(broken)
    with pytest.raises(RunError, match=r"loss of step 1 is not a number; its batch holds faq.jsonl line \d+, "):
        run(LORA, inputs | {"base": broken}, tmp_path / "5-train")


def test_checkpoints_kept(inputs: dict[str, Path], tmp_path: Path) -> None:
    (left := tmp_path / "5-train" / "sft" / "checkpoints" / ".step-000001.old.tmp").mkdir(parents=True)
    facts = run(settings("train.epochs=6", "train.validate_every=1"), inputs, tmp_path / "5-train").details
    kept = {int(path.name.removeprefix("step-")) for path in left.parent.iterdir()}  # what was left of one has gone
    per_epoch = facts["plan"]["steps_per_epoch"]
    ends = {per_epoch * n for n in range(1, 7) if per_epoch * n <= facts["steps"]}
    last = range(facts["steps"] - checkpoint.KEPT_LAST + 1, facts["steps"] + 1)  # should the newest be damaged
    assert kept == {facts["best_step"], *last, *sorted(ends)[-checkpoint.KEPT_EPOCH_ENDS :]}


def test_validation_is_bounded(inputs: dict[str, Path]) -> None:
    from ownchat.tokenizer.store import TokenStore

    valid = TokenStore(inputs["tokens"] / "valid")
    assert len(validation_documents(valid, budget=10**9)) == len(valid)
    some = validation_documents(valid, budget=valid.num_tokens / 2)
    assert 0 < len(some) < len(valid)


def test_a_model_with_dropout_trains_and_resumes_exactly(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2: learned positions, dropout, Conv1D layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(inputs["base"])
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "bos_token_id": 2, "eos_token_id": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    mine = inputs | {"base": tmp_path / "gpt2"}
    facts = run(LORA, mine, tmp_path / "whole").details
    assert facts["attention"] == "packed" and facts["best_loss"] < facts["base_loss"]
    one_step, done = loop.train_step, []

    def interrupted(*arguments: object, **keywords: object) -> object:
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Interrupted):
        run(LORA, mine, tmp_path / "broken")
    monkeypatch.setattr(loop, "train_step", one_step)
    run(LORA, mine, tmp_path / "broken")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
