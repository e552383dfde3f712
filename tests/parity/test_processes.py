"""R processes train as one does: the same losses, the same resume, and files that any number of them goes on from."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config

from ownchat import artifacts
from ownchat.config import load_config
from ownchat.model import account as accounts
from ownchat.monitor.events import read_lines
from ownchat.train import checkpoint
from ownchat.train.stage import run

WORKER = Path(__file__).parent.parent / "train" / "worker.py"
COMMON = [
    "train.batch_tokens=300", "train.block_tokens=120", "train.epochs=3", "train.validate_every=5",
    "train.patience=100", "train.threads=1", "model.dtype=float32", "train.compile=off",
]  # fmt: skip
LORA = [*COMMON, "train.learning_rate=1e-3"]
FULL = [*COMMON, "train.method=full", "train.learning_rate=3e-4"]
STOP = 7


def torchrun(processes: int, requests: list[dict[str, Any]], *options: str) -> str:
    """Train these one after another in so many processes; what they printed."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *options]
    done = subprocess.run(
        [sys.executable, *launch, str(WORKER), json.dumps(requests)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


@dataclass
class Place:
    """Where the trainings of this module are, and what they are made from."""

    root: Path
    inputs: dict[str, Path]
    log: str = ""  # what the processes printed

    def request(self, output: str, sets: list[str], **more: Any) -> dict[str, Any]:
        inputs = {name: str(path) for name, path in self.inputs.items()} | more.pop("inputs", {})
        return {"sets": sets, "inputs": inputs, "output": str(self.root / output)} | more

    def alone(self, output: str, sets: list[str], **inputs: Path) -> None:
        run(load_config(sets=sets)[0], self.inputs | inputs, self.root / output)

    def curve(self, output: str) -> list[tuple[int, str, float]]:
        rows = read_lines(self.root / output / "sft" / "metrics.jsonl")
        names = ("loss", "validation_loss", "validation_token_accuracy", "gradient_norm", "tokens")
        return [(row["step"], name, row[name]) for row in rows for name in names if name in row]

    def model(self, output: str) -> dict[str, torch.Tensor]:
        return load_file(self.root / output / "model" / "model.safetensors")

    def same_curve(self, one: str, other: str, *, rel: float = 1e-5) -> None:
        """Equal within float32 rounding, and the same steps, each once."""
        mine, theirs = self.curve(one), self.curve(other)
        assert [key[:2] for key in mine] == [key[:2] for key in theirs] and len(mine) > 60
        for (step, name, a), (_, _, b) in zip(mine, theirs, strict=True):
            within = 100 * rel if name == "gradient_norm" else rel
            few = 0.02 if name == "validation_token_accuracy" else None  # of two tokens about as likely the other one
            assert b == pytest.approx(a, rel=within, abs=few), (step, name)


@pytest.fixture(scope="module")
def padded(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with soft caps: its documents are padded, and its logits are not one product."""
    directory = tmp_path_factory.mktemp("padded")
    tokenizer = AutoTokenizer.from_pretrained(inputs["base"])
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=600, query_pre_attn_scalar=8, initializer_range=0.1,
        bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def place(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """What is asked of two processes in one start of them: starting takes longer than training."""
    here = Place(tmp_path_factory.mktemp("processes"), inputs)
    here.alone("lora-1", LORA)
    here.alone("full-1", FULL)
    asked = [here.request("full", FULL), here.request("spread", LORA, sharded=True)]
    stopped = here.request("full-2-2", FULL, stop_at=STOP, stop_rank=1)
    here.log = torchrun(2, [*asked, stopped, here.request("full-2-2", FULL)])
    return here


def test_two_processes_train_as_one(place: Place) -> None:
    place.same_curve("full-1", "full")
    for key, tensor in place.model("full-1").items():
        torch.testing.assert_close(place.model("full")[key], tensor, rtol=1e-3, atol=2e-4)


def test_an_adapter_whose_base_is_spread_learns_the_same(place: Place) -> None:
    assert artifacts.read_json(place.root / "spread" / "sft" / "decisions.json")["base"] == "sharded"
    place.same_curve("lora-1", "spread")


def test_each_process_holds_and_writes_its_rows(place: Place) -> None:
    saved, _ = checkpoint.latest(place.root / "full" / "sft" / "checkpoints")  # type: ignore[misc]
    files = sorted(file.name for file in saved.glob("state-*"))
    assert files == ["state-00001-of-00002.safetensors", "state-00002-of-00002.safetensors"]
    sizes = [(saved / name).stat().st_size for name in files]
    assert max(sizes) < 0.6 * sum(sizes)
    whole = AutoModelForCausalLM.from_pretrained(saved / "model")  # a standard directory
    masters = checkpoint.Saved(saved)
    for name, weight in whole.named_parameters():
        assert torch.equal(masters.read(f"master.{name}"), weight.detach()), name


def test_interrupted_and_resumed_by_as_many_is_bit_for_bit(place: Place) -> None:
    """The signal went to the second process alone; both stopped after the same step, and saved once."""
    assert place.log.count(f"saved at step {STOP}") == 2
    assert place.curve("full-2-2") == place.curve("full")
    one, other = place.model("full-2-2"), place.model("full")
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("name", ["full", "spread"])
def test_what_is_moved_is_what_is_counted(place: Place, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/scaling.py says from the model what FSDP2 gathers and sums; here it is what it handed over."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent.parent / "benchmarks")
    scaling = importlib.import_module("scaling")
    found = next(json.loads(line) for line in place.log.splitlines() if line.startswith(f'{{"output": "{name}"'))
    method = "full" if name == "full" else "lora"
    account = accounts.count(accounts.read_config(place.inputs["base"]), method=method, dtype="float32")
    passes = found["passes"] / found["steps"]
    assert passes > 1
    one = scaling.collectives(account, base="sharded", passes=1)
    gathered, summed = sum(one.gathers) * passes, sum(one.sums) * (passes if name == "full" else 1)
    assert found["gathered"] / found["steps"] == pytest.approx(gathered, rel=0.02)
    assert found["summed"] / found["steps"] == pytest.approx(summed, rel=0.02)


# ------------------------------------------------------------------------------------ more of it, in more starts


@pytest.fixture(scope="module")
def more(place: Place, padded: Path) -> Place:
    """The padded path, an adapter beside a whole base, and what one process begins and two end, or the reverse."""
    place.alone("padded-1", FULL, base=padded)
    for name, sets in (("full", FULL), ("lora", LORA)):
        place.alone(f"{name}-low-1", [*sets, "model.dtype=bfloat16"])
    torchrun(1, [place.request("lora-1-2", LORA, stop_at=STOP, stop_rank=0)])
    shutil.copytree(place.root / "lora-1-2", place.root / "begun")
    torchrun(
        2,
        [
            place.request("lora", LORA),
            place.request("padded", FULL, inputs={"base": str(padded)}),
            place.request("full-low", [*FULL, "model.dtype=bfloat16"]),
            place.request("lora-low", [*LORA, "model.dtype=bfloat16"], sharded=True),
            place.request("recomputed", [*FULL, "train.activations=recompute"]),
            place.request("full-2-1", FULL, stop_at=STOP, stop_rank=0),
            place.request("lora-2-1", LORA, sharded=True, stop_at=STOP, stop_rank=1),
            place.request("lora-1-2", LORA),
        ],
    )
    shutil.copytree(place.root / "full-2-1", place.root / "damaged")
    place.alone("full-2-1", FULL)
    place.alone("lora-2-1", LORA)
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("alone", "name"), [("lora-1", "lora"), ("padded-1", "padded"), ("full-1", "recomputed")])
def test_two_processes_train_as_one_in_every_way(more: Place, alone: str, name: str) -> None:
    more.same_curve(alone, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full-low", "lora-low"])
def test_low_precision(more: Place, name: str) -> None:
    """Masters and sums stay float32; what is computed is rounded to bfloat16, in other blocks otherwise."""
    more.same_curve(f"{name}-1", name, rel=0.02)
    saved, _ = checkpoint.latest(more.root / name / "sft" / "checkpoints")  # type: ignore[misc]
    masters = checkpoint.Saved(saved)
    assert {masters.read(key).dtype for key in masters} == {torch.float32}
    if name == "full-low":
        assert load_file(saved / "model" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(("resumed", "wanted"), [("full-2-1", "full"), ("lora-2-1", "lora"), ("lora-1-2", "lora-1")])
def test_another_number_of_processes_goes_on(more: Place, resumed: str, wanted: str) -> None:
    more.same_curve(wanted, resumed)
    events = [row["event"] for row in read_lines(more.root / resumed / "sft" / "events.jsonl")]
    assert events.count("resumed") == 1 and events.count("finished") == 1


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_shard_is_seen(more: Place, damage: str, tmp_path: Path) -> None:
    broken = tmp_path / "checkpoints"
    shutil.copytree(more.root / "damaged" / "sft" / "checkpoints", broken)
    newest, state = checkpoint.latest(broken)  # type: ignore[misc]
    assert state.step == STOP
    shard = newest / "state-00002-of-00002.safetensors"
    if damage == "missing":
        shard.unlink()
    else:
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    told: list[str] = []
    older = checkpoint.latest(broken, lambda path, why: told.append(why))
    assert older is not None and older[1].step == 5
    assert len(told) == 1 and shard.name in told[0]


@pytest.mark.slow
def test_memory_that_runs_out_in_one_process(place: Place) -> None:
    """It notes smaller blocks and ends; torchrun starts all again, and the mathematics is the same."""
    large = [*FULL, "train.block_tokens=240"]
    torchrun(2, [place.request("short", large, short_at=6, short_rank=1)], "--max-restarts=1")
    place.same_curve("full-1", "short")
    (rescue,) = artifacts.read_json(place.root / "short" / "sft" / "decisions.json")["rescues"]
    assert rescue["step"] == 6 and rescue["block_tokens"] < 240
    events = [row["event"] for row in read_lines(place.root / "short" / "sft" / "events.jsonl")]
    assert events.count("out_of_memory") == 1 and events.count("resumed") == 1


@pytest.mark.slow
def test_one_process_under_torchrun_is_one_process(more: Place) -> None:
    begun = more.curve("begun")
    assert max(step for step, _, _ in begun) == STOP
    assert begun == more.curve("lora-1")[: len(begun)], "bit for bit"


@pytest.mark.long
def test_four_processes_and_back(place: Place, tmp_path: Path) -> None:
    here = Place(tmp_path, place.inputs)
    torchrun(2, [here.request("2-4", LORA, sharded=True, stop_at=STOP, stop_rank=0)])
    asked = [here.request("full", FULL), here.request("lora", LORA), here.request("spread", LORA, sharded=True)]
    stopped = [here.request(f"4-{n}", FULL, stop_at=STOP, stop_rank=n - 1) for n in (4, 2)]
    torchrun(4, [*asked, *stopped, here.request("4-4", FULL), here.request("2-4", LORA)])
    torchrun(2, [here.request("4-2", FULL)])
    for method, names in {"full": ["full", "4-2"], "lora": ["lora", "spread", "2-4"]}.items():
        os.symlink(place.root / f"{method}-1", tmp_path / f"{method}-1")
        for name in names:
            here.same_curve(f"{method}-1", name)
    assert here.curve("4-4") == here.curve("full")
