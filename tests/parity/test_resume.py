"""The same seed twice, and an interrupted training beside a quiet one: the same bits, whatever is trained and how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, GPT2Config

from ownchat.cli.ending import terminate
from ownchat.config import Config, load_config
from ownchat.errors import Interrupted
from ownchat.model import score, trial
from ownchat.model.compiled import can_compile
from ownchat.model.load import load_model
from ownchat.model.trial import Paths
from ownchat.monitor.events import read_lines
from ownchat.train import checkpoint, loop
from ownchat.train.stage import run

SETS = (
    "train.batch_tokens=700", "train.block_tokens=200", "model.dtype=float32", "train.epochs=3",
    "train.validate_every=4", "train.threads=1",
)  # fmt: skip
FULL = ("train.method=full", "train.learning_rate=3e-3")
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "bos_token_id": 2, "eos_token_id": 2}
GEMMA2 = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8, "max_position_embeddings": 512,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2,
}  # fmt: skip

# name: (architecture, settings, how attention has to run, so that the case is what it says)
CASES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "LoRA": ("llama", (), "packed"),
    "rsLoRA": ("llama", ("model.lora_variant=rslora", "train.learning_rate=5e-4"), "packed"),
    "DoRA": ("llama", ("model.lora_variant=dora",), "packed"),
    "full": ("llama", FULL, "packed"),
    "full, bfloat16": ("llama", (*FULL, "model.dtype=bfloat16"), "packed"),
    "activations made again": ("llama", ("train.activations=recompute",), "packed"),
    "dropout": ("gpt2", (), "packed"),
    "dropout, padded": ("gpt2 that does not pack", (), "padded"),
    "dropout, padded, full": ("gpt2 that does not pack", FULL, "padded"),
    "DoRA, dropout": ("gpt2", ("model.lora_variant=dora",), "packed"),
    "soft caps, our norms, padded": ("gemma2", (), "padded"),
    "soft caps, our norms, padded, full": ("gemma2", FULL, "padded"),
}


pytestmark = pytest.mark.usefixtures("speed_of_matrix_products")


def settings(*sets: str) -> Config:
    return load_config(sets=[*SETS, *sets])[0]


def base_of(name: str, inputs: dict[str, Path], directory: Path) -> dict[str, Path]:
    """``inputs`` with a random model of another architecture as the base."""
    if name == "llama":
        return inputs
    tokenizer = AutoTokenizer.from_pretrained(inputs["base"])
    torch.manual_seed(0)
    config: Any = Gemma2Config(vocab_size=len(tokenizer), **GEMMA2)
    if name.startswith("gpt2"):
        config = GPT2Config(vocab_size=len(tokenizer), **GPT2)
        assert config.attn_pdrop > 0 and config.resid_pdrop > 0
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return inputs | {"base": directory}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    """Weights, and every row of the metrics but its times."""
    one, other = weights(a), weights(b)
    return curve(a) == curve(b) and one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def curve(output: Path) -> list[dict[str, Any]]:
    rows = read_lines(output / "sft" / "metrics.jsonl")
    return [{key: row[key] for key in row if key not in ("seconds", "tokens_per_second")} for row in rows]


def signal_at(patch: pytest.MonkeyPatch, place: Any, name: str, call: int, *, times: int = 1) -> None:
    """SIGTERM to this process when ``place.name`` is called for the ``call``-th time (the first is 1)."""
    function: Callable[..., Any] = getattr(place, name)
    seen = []

    def signalled(*arguments: Any, **keywords: Any) -> Any:
        seen.append(1)
        for _ in range(times if len(seen) == call else 0):
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **keywords)

    patch.setattr(place, name, signalled)


def interrupted(
    config: Config, inputs: dict[str, Path], output: Path, place: Any, name: str, call: int, times: int = 1
) -> str:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as stopped:
        signal_at(patch, place, name, call, times=times)
        run(config, inputs, output)
    return str(stopped.value)


QUICK = ("LoRA", "full", "dropout, padded")  # the others are slow together


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_same_seed_and_resume_give_the_same_bits(
    name: str, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, sets, attention = CASES[name]
    mine, config = base_of(architecture, inputs, tmp_path / "base"), settings(*sets)
    if "does not pack" in architecture:
        monkeypatch.setattr(trial, "try_paths", lambda model: Paths(packed=False, plain_head=True))
    facts = run(config, mine, tmp_path / "whole").details
    assert facts["attention"] == attention and facts["best_loss"] < facts["base_loss"]
    run(config, mine, tmp_path / "again")
    assert same(tmp_path / "whole", tmp_path / "again"), "the same seed twice"
    assert "saved at step 3" in interrupted(config, mine, tmp_path / "broken", loop, "train_step", 3)
    run(config, mine, tmp_path / "broken")
    assert same(tmp_path / "whole", tmp_path / "broken"), "interrupted and resumed"


def test_our_norms_stand_in_the_soft_capped_model(inputs: dict[str, Path], tmp_path: Path) -> None:
    """What makes the case above one: these norms round otherwise than transformers' own."""
    base = base_of("gemma2", inputs, tmp_path / "base")["base"]
    replaced = [module for module in load_model(base, packed=True).modules() if "forward" in vars(module)]
    assert any(type(module).__name__ == "Gemma2RMSNorm" for module in replaced)
    assert not any("forward" in vars(module) for module in load_model(base).modules())


def blocks_scored(inputs: dict[str, Path], output: Path) -> tuple[int, int]:
    """A quiet training; how many blocks it scored in all validations, and in one."""
    with pytest.MonkeyPatch.context() as patch:
        calls, tried = [], score._try

        def counted(*given: Any) -> Any:
            calls.append(1)
            return tried(*given)

        patch.setattr(score, "_try", counted)
        run(settings(), inputs, output)
    validations = sum("validation_loss" in row for row in curve(output))
    return len(calls), len(calls) // validations


@pytest.mark.parametrize("where", ["after step 4", "after the last step"])
def test_signal_while_validating(where: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    """It is answered after the block at hand: the step is saved, and validated after the resume."""
    in_all, in_one = blocks_scored(inputs, tmp_path / "whole")
    last = curve(tmp_path / "whole")[-1]["step"]
    call, step = (in_one + 1, 4) if where == "after step 4" else (in_all, last)
    said = interrupted(settings(), inputs, tmp_path / "broken", score, "_try", call)
    assert f"saved at step {step} of {last}" in said
    rows = curve(tmp_path / "broken")
    assert rows[-1]["step"] == step and "loss" in rows[-1], "not validated"
    found = checkpoint.latest(tmp_path / "broken" / "sft" / "checkpoints")
    assert found is not None and found[1].step == step and not found[1].validated
    run(settings(), inputs, tmp_path / "broken")
    assert same(tmp_path / "whole", tmp_path / "broken")
    events = [row["event"] for row in read_lines(tmp_path / "broken" / "sft" / "events.jsonl")]
    assert events.count("stopped") == events.count("resumed") == 1


def test_signal_while_the_base_is_validated(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(settings(), inputs, tmp_path / "whole")
    said = interrupted(settings(), inputs, tmp_path / "broken", score, "_try", 1)
    assert "before the first step" in said
    assert not (tmp_path / "broken" / "sft" / "checkpoints").exists()
    run(settings(), inputs, tmp_path / "broken")
    assert same(tmp_path / "whole", tmp_path / "broken")


def test_signal_while_saving(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(settings(), inputs, tmp_path / "whole")
    said = interrupted(settings(), inputs, tmp_path / "broken", checkpoint, "save_file", 2)
    assert "saved at step 8 " in said
    run(settings(), inputs, tmp_path / "broken")
    assert same(tmp_path / "whole", tmp_path / "broken")


def test_second_signal_while_saving_ends_at_once(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The half-written checkpoint goes, the one before is whole."""
    run(settings(), inputs, tmp_path / "whole")
    before = signal.signal(signal.SIGTERM, terminate)  # as the program does
    try:
        interrupted(settings(), inputs, tmp_path / "broken", checkpoint, "save_file", 2, times=2)
    finally:
        signal.signal(signal.SIGTERM, before)
    saved = tmp_path / "broken" / "sft" / "checkpoints"
    assert [path.name for path in saved.iterdir()] == ["step-000004"]
    assert checkpoint.latest(saved)[1].step == 4  # type: ignore[index]
    run(settings(), inputs, tmp_path / "broken")
    assert same(tmp_path / "whole", tmp_path / "broken")


def test_metrics_survive_a_kill_while_they_are_cut_back(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a resume, rows of steps after the checkpoint go; one that dies there leaves all rows or the right ones."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(9)))

    def died(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", died)
    with pytest.raises(KeyboardInterrupt):
        loop.forget_after(path, 4)
    assert [row["step"] for row in read_lines(path)] == list(range(9))
    monkeypatch.undo()
    loop.forget_after(path, 4)
    assert [row["step"] for row in read_lines(path)] == [0, 1, 2, 3, 4]


ALONE = """
import sys
from pathlib import Path
from ownchat.cli import _exit_codes
from ownchat.config import load_config
from ownchat.train.stage import run
tokens, tokenizer, base, output, *sets = sys.argv[1:]
inputs = {"tokens": Path(tokens), "tokenizer": Path(tokenizer), "base": Path(base)}
with _exit_codes():
    run(load_config(sets=sets)[0], inputs, Path(output))
"""


def in_a_process_of_its_own(inputs: dict[str, Path], output: Path, *sets: str) -> None:
    subprocess.run([sys.executable, "-c", ALONE, *map(str, inputs.values()), str(output), *SETS, *sets], check=True)


@pytest.mark.slow  # compiling takes half a minute
@pytest.mark.skipif(can_compile("cpu") is not None, reason=str(can_compile("cpu")))
def test_compiled_kernels(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled in one process; what is kept of it is loaded by the next ones."""
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    sets = ("train.compile=on",)
    run(settings(*sets), inputs, tmp_path / "whole")
    assert list((tmp_path / "home").glob("compiled/*/inductor/*"))
    in_a_process_of_its_own(inputs, tmp_path / "again", *sets)
    assert same(tmp_path / "whole", tmp_path / "again")
    interrupted(settings(*sets), inputs, tmp_path / "broken", loop, "train_step", 3)
    in_a_process_of_its_own(inputs, tmp_path / "broken", *sets)
    assert same(tmp_path / "whole", tmp_path / "broken")


def test_another_process_gives_the_same_bits(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(settings(), inputs, tmp_path / "whole")
    interrupted(settings(), inputs, tmp_path / "broken", loop, "train_step", 5)
    in_a_process_of_its_own(inputs, tmp_path / "broken")
    assert same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.slow  # a minute: every start loads the libraries anew
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """The benchmark with few moments: the program itself, on the demo's rows."""
    script = Path(__file__).parent.parent.parent / "benchmarks" / "kill.py"
    command = [sys.executable, str(script), "--kills", "3", "--method", "lora", "--rows", "80", "--epochs", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["methods"]["lora"]
    assert sum(found["moments"].values()) == found["kills"] == 3
    assert found["runs"] >= 1 and found["different"] == []
