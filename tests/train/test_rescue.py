"""Out of memory: the allocator really refuses, the step is made again in smaller blocks, the numbers stay the same."""

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
from safetensors.torch import load_file

from ownchat import artifacts
from ownchat.config import load_config
from ownchat.errors import ConfigError, Interrupted, RunError
from ownchat.monitor.events import read_lines
from ownchat.train import checkpoint, loop
from ownchat.train.objectives import Likelihood
from ownchat.train.stage import run

SETS = [
    "train.batch_tokens=500", "train.block_tokens=250", "model.dtype=float32", "train.epochs=1.4", "train.threads=1",
    "train.validate_every=2",
]  # fmt: skip

# Trains; from block CUT of the run (from 0) on the process cannot take more than it has, and all of that but MEGABYTES
# is taken: what the allocator kept of earlier blocks too. Until the loop ends.
VICTIM = """
import json, resource, sys
from pathlib import Path
import torch
from ownchat.config import load_config
from ownchat.train import memory, stage
from ownchat.train.objectives import Likelihood

sets, inputs, output, cut, megabytes = json.loads(sys.argv[1])
terms, finish, calls, ballast = Likelihood.terms, stage._finish, [], []

def limited(self, model, block, items, context):
    calls.append(1)
    if len(calls) == cut + 1:
        memory.return_freed_pages()
        memory.keep_freed_pages()
        now = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), -1))
        try:
            while True:
                ballast.append(torch.empty(1 << 20, dtype=torch.uint8))
        except RuntimeError:
            del ballast[-megabytes:]
    return terms(self, model, block, items, context)

def unlimited(*arguments):
    ballast.clear()
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    return finish(*arguments)

Likelihood.terms, stage._finish = limited, unlimited
stage.run(load_config(sets=sets)[0], {name: Path(path) for name, path in inputs.items()}, Path(output))
"""

needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to RLIMIT_AS")


@pytest.fixture(scope="module")
def wide(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same data with a model whose activations are large: about 0.2 MB for each token."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("wide")
    tokenizer = AutoTokenizer.from_pretrained(inputs["base"])
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 8192, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **special)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return inputs | {"base": directory}


def victim(
    sets: list[str], inputs: dict[str, Path], output: Path, *, cut: int, megabytes: int
) -> subprocess.CompletedProcess[str]:
    given = json.dumps([sets, {name: str(path) for name, path in inputs.items()}, str(output), cut, megabytes])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", VICTIM, given], capture_output=True, text=True, env=environment)


def curve(output: Path) -> list[tuple[int, float | None, float | None]]:
    rows = read_lines(output / "sft" / "metrics.jsonl")
    return [(row["step"], row.get("loss"), row.get("validation_loss")) for row in rows]


def rescues(output: Path) -> list[dict[str, Any]]:
    return [row for row in read_lines(output / "sft" / "events.jsonl") if row["event"] == "out_of_memory"]


@needs_limits
def test_a_step_that_does_not_fit_is_made_again_in_smaller_blocks(wide: dict[str, Path], tmp_path: Path) -> None:
    """The second block of a step in the middle of the run meets the limit: half of the gradient is there by then."""
    config = load_config(sets=SETS)[0]
    facts = run(config, wide, tmp_path / "whole").details
    assert facts["rescues"] == [] and facts["plan"]["block_tokens"] == 250
    done = victim(SETS, wide, tmp_path / "rescued", cut=7, megabytes=45)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "out of memory in step" in done.stderr and "same mathematics" in done.stderr
    first, *others = rescues(tmp_path / "rescued")
    assert first["step"] > 1 and first["block_tokens_before"] == 250 and "can't allocate memory" in first["why"]
    assert first["block_tokens"] < 130 and all(row["step"] >= first["step"] for row in others)
    decided = artifacts.read_json(tmp_path / "rescued" / "sft" / "decisions.json")
    assert decided["rescues"][0]["step"] == first["step"] and len(decided["rescues"]) == 1 + len(others)
    for (step, loss, valid), (step2, loss2, valid2) in zip(
        curve(tmp_path / "whole"), curve(tmp_path / "rescued"), strict=True
    ):
        assert step == step2
        assert loss == loss2 if loss is None else loss2 == pytest.approx(loss, rel=1e-6)
        assert valid == valid2 if valid is None else valid2 == pytest.approx(valid, rel=1e-6)


@pytest.mark.slow
@needs_limits
def test_nothing_left_to_try_is_an_error_that_says_what_to_do(wide: dict[str, Path], tmp_path: Path) -> None:
    """So little that one document does not fit: blocks are halved, activations made again, and then it ends."""
    done = victim(SETS, wide, tmp_path, cut=7, megabytes=2)
    assert done.returncode == 1 and "RunError" in done.stderr.splitlines()[-2], done.stderr[-3000:]
    assert 'with activations on "recompute"' in done.stderr and "tokenizer.max_tokens" in done.stderr
    *tried, last = rescues(tmp_path)
    assert [row["activations"] for row in tried][-1] == "recompute" and last["done"] == "ended"
    assert {row["step"] for row in rescues(tmp_path)} == {last["step"]}
    saved = {int(path.name[5:]) for path in (tmp_path / "sft" / "checkpoints").glob("step-*")}
    assert saved and max(saved) < last["step"]
    config = load_config(sets=SETS)[0]  # with room again the same command goes on, from there and as decided
    facts = run(config, wide, tmp_path).details
    assert facts["activations"] == "recompute" and facts["steps"] == facts["plan"]["total_steps"]


class Failing:
    """Likelihood whose forward pass raises torch's error in given calls, as CUDA would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
        self.calls, self.seen = calls, 0
        self._terms = Likelihood.terms
        monkeypatch.setattr(Likelihood, "terms", lambda *arguments: self(*arguments))

    def __call__(self, *arguments: Any) -> Any:
        self.seen += 1
        if self.seen in self.calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self._terms(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_resume_after_a_rescue_is_bit_for_bit(
    method: str, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rescued in step 4, last checkpoint at step 2, killed after step 5: steps 3 to 5 are made as they were."""
    config = load_config(sets=[*SETS, f"train.method={method}", "train.validate_every=50"])[0]  # saved when told to
    # two blocks and more in each step: in the second block of step 4
    per_step: list[int] = []
    one_step = loop.train_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", lambda *a, **k: (per_step.append(len(a[3])), one_step(*a, **k))[1])
        run(config, inputs, tmp_path / "plain")
    assert per_step[3] > 1
    call = sum(per_step[:3]) + 2

    def train(output: Path, *, ends: dict[int, int]) -> None:
        """``ends``: after this many calls of train_step a signal, or an error as good as a kill."""
        calls = []

        def ended(*arguments: Any, **keywords: Any) -> Any:
            calls.append(1)
            if (number := ends.get(len(calls))) == signal.SIGTERM:
                os.kill(os.getpid(), signal.SIGTERM)
            elif number == signal.SIGKILL:
                raise KeyboardInterrupt
            return one_step(*arguments, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_step", ended)
            run(config, inputs, output)

    with monkeypatch.context() as patch:
        Failing(patch, call)
        train(tmp_path / "whole", ends={})
    with monkeypatch.context() as patch:
        Failing(patch, call)
        with pytest.raises(Interrupted, match="saved at step 2"):
            train(tmp_path / "broken", ends={2: signal.SIGTERM})
    with monkeypatch.context() as patch:
        Failing(patch, call - sum(per_step[:2]))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken", ends={5: signal.SIGKILL})  # steps 3, 4, 4 again, 5, and no 6
    assert checkpoint.latest(tmp_path / "broken" / "sft" / "checkpoints")[1].step == 2  # type: ignore[index]
    train(tmp_path / "broken", ends={})  # nothing fails any more
    assert [row["step"] for row in rescues(tmp_path / "broken")] == [4]
    assert curve(tmp_path / "whole") == curve(tmp_path / "broken")
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(weights[1][name], tensor) for name, tensor in weights[0].items())


def test_a_validation_that_does_not_fit(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ownchat.model import score

    config = load_config(sets=[*SETS, "train.block_tokens=500"])[0]
    plain = run(config, inputs, tmp_path / "plain").details
    real, calls = score.log_probabilities_and_hits, []

    def fails_once(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*arguments)

    monkeypatch.setattr(score, "log_probabilities_and_hits", fails_once)
    facts = run(config, inputs, tmp_path / "rescued").details
    (row,) = rescues(tmp_path / "rescued")
    assert row["part"] == "validate" and row["step"] == 0 and row["block_tokens"] < 250
    assert facts["validation_block_tokens"] == row["block_tokens"]
    assert facts["best_loss"] == pytest.approx(plain["best_loss"], rel=1e-6)
    steps = [[loss for _, loss, _ in curve(tmp_path / name)] for name in ("plain", "rescued")]
    assert steps[0] == steps[1], "training is not concerned"


def test_activations_that_are_set_stay_as_they_are(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [*SETS, "train.block_tokens=1"]
    Failing(monkeypatch, 3)
    with pytest.raises(RunError, match=r"train\.activations=auto"):
        run(load_config(sets=[*alone, "train.activations=keep"])[0], inputs, tmp_path / "keep")
    facts = run(load_config(sets=[*alone, "train.activations=recompute"])[0], inputs, tmp_path / "recompute").details
    assert facts["activations"] == "recompute" and facts["rescues"] == []
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="nothing to offload them from"):
            run(load_config(sets=[*SETS, "train.activations=offload"])[0], inputs, tmp_path / "offload")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_nothing_of_a_failed_step_is_held(method: str, tiny_model: Path) -> None:
    """Fails in the last layer, in the forward pass: what the first layers left for the backward pass is let go."""
    import weakref

    import numpy as np

    from ownchat.model.load import load_model
    from ownchat.model.lora import add_lora
    from ownchat.tokenizer.store import Item
    from ownchat.train.optim import Optimizer
    from ownchat.train.rescue import OutOfMemory

    model = load_model(tiny_model, packed=True)
    if method == "lora":
        add_lora(model, rank=4, alpha=8, seed=0)
    model.requires_grad_(method == "full") if method == "full" else None
    held: list[weakref.ref[torch.Tensor]] = []
    attention = model.model.layers[-1].self_attn

    def fail(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        held.append(weakref.ref(arguments[0].grad_fn))  # type: ignore[arg-type]
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = attention.v_proj.register_forward_pre_hook(fail)
    optimizer = Optimizer(model, weight_decay=0.0)
    documents = [(np.arange(3, 40), np.ones(37, np.uint8)), (np.arange(5, 20), np.ones(15, np.uint8))]
    rows = [Item(number, (document,)) for number, document in enumerate(documents)]
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with pytest.raises(OutOfMemory) as caught:
        loop.train_step(model, Likelihood(), optimizer, [rows], 1e-2, 1.0)
    assert (caught.value.items, caught.value.tokens) == (2, 52)
    assert caught.value.__context__ is None and held[0]() is None
    optimizer.drop_gradients()
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    hook.remove()
    loss = loop.train_step(model, Likelihood(), optimizer, [rows[:1], rows[1:]], 1e-2, 1.0).loss
    assert loss > 0
