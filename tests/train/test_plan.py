"""The plan before the training, and the training after it: the counts are equal; the micro-batch fits and stays."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ownchat import artifacts
from ownchat.config import Config, load_config
from ownchat.errors import ConfigError, Interrupted, ModelError
from ownchat.model import account as accounts
from ownchat.model.account import Account
from ownchat.monitor.events import read_lines
from ownchat.tokenizer.store import TokenStore
from ownchat.train import decisions, loop, memory, micro_batch, speed, stage
from ownchat.train.devices import DEVICES, device_named
from ownchat.train.plan import Machine, forecast
from ownchat.train.workload import validation_blocks


def settings(*sets: str) -> Config:
    return load_config(sets=["train.batch_tokens=400", "model.dtype=float32", "train.threads=1", *sets])[0]


def account_of(tiny_model: Path, method: str = "lora") -> Account:
    return accounts.count(accounts.read_config(tiny_model), method=method, dtype="float32")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("sets", [("train.epochs=2.5",), ("train.method=full", "train.validate_every=3")])
def test_the_plan_is_what_training_does(sets: tuple[str, ...], inputs: dict[str, Path], tmp_path: Path) -> None:
    config = settings(*sets, "train.patience=50")
    plan = forecast(config, inputs, Machine(), scratch=tmp_path)
    assert not list(tmp_path.iterdir()), "the probe leaves nothing behind"
    report = stage.run(config, inputs, tmp_path / "5-train")
    facts = report.details
    assert (plan.steps, plan.tokens) == (report.counts["steps"], report.counts["tokens"])
    assert plan.model["trained"] == facts["trained_weights"]
    assert plan.block_tokens == facts["plan"]["block_tokens"] == 3072
    rows = read_lines(tmp_path / "5-train" / "sft" / "metrics.jsonl")
    assert len([row for row in rows if "loss" in row]) == plan.steps
    events = [row["event"] for row in read_lines(tmp_path / "5-train" / "sft" / "events.jsonl")]
    parts = plan.seconds
    assert events.count("validated") == plan.validations == events.count("saved") + 1
    assert plan.measured_memory and plan.fits and plan.peak_bytes < plan.available_bytes
    sums = parts["base validation"] + parts["steps"] + parts["validations"] + parts["checkpoints"]
    assert parts["training"] == pytest.approx(sums, abs=0.1)
    derived = stage.derived(config, report)
    assert derived["train.block_tokens"][0] == 3072


def test_trained_tokens_are_counted(inputs: dict[str, Path]) -> None:
    plan = forecast(settings("train.epochs=1"), inputs, Machine(), scratch=None)
    assert plan.trained_tokens == TokenStore(inputs["tokens"] / "train").trained_tokens
    assert plan.tokens == plan.data["tokens"] and not plan.measured_memory
    assert any("formula alone" in note for note in plan.notes)


def test_minutes_bound_the_time(inputs: dict[str, Path]) -> None:
    plan = forecast(settings("train.minutes=0.0001"), inputs, Machine(), scratch=None)
    assert plan.seconds["training"] <= 0.01
    assert any("train.minutes" in note for note in plan.notes)


# ---------------------------------------------------------------------------------------------------- micro-batch


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_block_fits_what_is_there(method: str, tiny_model: Path) -> None:
    account = account_of(tiny_model, method)

    def chosen(available: float, longest: int = 100) -> int:
        return micro_batch.fitting_block_tokens(account, "cpu", longest, int(available))

    fixed = accounts.memory(account, []).fixed
    assert chosen(100e9) == 3072, "larger gains nothing on a processor"
    assert micro_batch.fitting_block_tokens(account, "cuda", 100, int(100e9)) == 16384
    assert chosen(fixed / 2) == 100, "a longer document would be a block of its own in any case"
    assert chosen(fixed / 2, longest=5000) == 3072
    sizes = [chosen(available) for available in np.linspace(1.2 * fixed, 1.4 * fixed, 8)]
    assert sizes == sorted(sizes) and 100 < sizes[1] < 3072
    for available, tokens in zip(np.linspace(1.2 * fixed, 1.4 * fixed, 8), sizes, strict=True):
        if tokens > 100:
            block = [(np.arange(64) + n, np.ones(64, np.uint8)) for n in range(tokens // 64)]
            needed = micro_batch.with_allocator(accounts.memory(account, [accounts.size_of(block)]), "cpu", 1000)
            assert needed.peak <= available


def test_the_decision_is_made_once(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little memory small blocks; a resume with much memory goes on with them."""
    config = settings("train.validate_every=3")
    account = account_of(inputs["base"])
    little = accounts.memory(account, []).fixed * 1.2
    monkeypatch.setattr(memory, "available_bytes", lambda: int(little))
    one_step, done = loop.train_step, []

    def interrupted(*arguments: object, **keywords: object) -> object:
        done.append(1)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Interrupted):
        stage.run(config, inputs, tmp_path / "5-train")
    decided = artifacts.read_json(tmp_path / "5-train" / "sft" / decisions.NAME)["block_tokens"]
    assert decided < 3072
    monkeypatch.setattr(loop, "train_step", one_step)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**12)
    report = stage.run(config, inputs, tmp_path / "5-train")
    assert report.details["plan"]["block_tokens"] == decided


def test_a_given_block_is_taken(inputs: dict[str, Path]) -> None:
    plan = forecast(settings("train.block_tokens=150"), inputs, Machine(), scratch=None)
    assert plan.block_tokens == 150 and plan.largest_block <= 150


def test_what_does_not_fit_is_said(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 300_000_000)  # less than the libraries take
    plan = forecast(settings("train.method=full"), inputs, Machine(), scratch=tmp_path)
    assert not plan.fits and any("not probed" in note for note in plan.notes)
    assert any("--method lora" in way for way in plan.advice)


def test_memory_that_is_there_heeds_control_groups(tmp_path: Path) -> None:
    group = tmp_path / "sys" / "fs" / "cgroup" / "job"
    group.mkdir(parents=True)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n")
    (tmp_path / "proc" / "self" / "status").write_text("Name: python\nVmRSS:  500000 kB\n")
    assert memory.available_bytes(tmp_path) == 6_500_000 * 1024
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/job\n")
    for name, value in {"memory.max": 2_000_000_000, "memory.current": 1_500_000_000}.items():
        (group / name).write_text(f"{value}\n")
    (group / "memory.stat").write_text("inactive_file 200000000\nactive_file 100000000\n")
    assert memory.available_bytes(tmp_path) == 2_000_000_000 - 1_200_000_000 + 500_000 * 1024
    assert memory.available_bytes(tmp_path / "elsewhere") > 10**14, "nothing says"


def test_validation_is_cut_as_scoring_cuts_it() -> None:
    from ownchat.model.score import blocks_of

    lengths = [5, 40, 12, 30, 30, 7, 90]
    documents = [(np.zeros(n, np.int64), np.ones(n, np.uint8)) for n in lengths]
    ours = [[len(ids) for ids, _ in block] for block in validation_blocks(documents, 64)]
    assert ours == [[lengths[n] for n in block] for block in blocks_of(range(len(lengths)), lengths, 64)]


# ------------------------------------------------------------------------------------------------- other machines


def test_eight_of_another_machine(inputs: dict[str, Path]) -> None:
    config = settings("train.method=full", "model.dtype=auto", "train.block_tokens=50")
    one = forecast(config, inputs, Machine("h100", 1, 2.0), scratch=None)
    eight = forecast(config, inputs, Machine("H100", 8, 2.0), scratch=None)
    assert one.machine["dtype"] == "bfloat16" and one.available_bytes == 80e9
    assert eight.memory["optimizer"] == one.memory["optimizer"] // 8
    assert eight.seconds["steps"] < one.seconds["steps"]
    assert eight.money == pytest.approx(eight.seconds["total"] / 3600 * 8 * 2.0, abs=0.01)
    assert "30%" in one.machine["speed"] and "989" in one.machine["speed"], "the assumption is printed"
    assert any("FSDP" in note for note in eight.notes)
    json.dumps(eight.as_json())


def test_a_device_without_bfloat16(inputs: dict[str, Path]) -> None:
    config = settings("model.dtype=auto")
    assert forecast(config, inputs, Machine("t4"), scratch=None).machine["dtype"] == "float32"


def test_unknown_device_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="h100"):
        device_named("h1000")


def test_faster_devices_are_faster(tiny_model: Path) -> None:
    account = account_of(tiny_model)
    rates = {name: speed.speed_on(device, account).training for name, device in DEVICES.items()}
    assert rates["h100"] > rates["a100"] > rates["t4"]


def test_a_base_that_cannot_be_counted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(ModelError, match="cannot be used"):
        accounts.read_config(tmp_path)
