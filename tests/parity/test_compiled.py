"""Compiled norms and gates, compiled layers: the same loss and gradients, and the same bits after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, Qwen3Config

from ownchat.model import elementwise
from ownchat.model.block import make_block
from ownchat.model.compiled import can_compile, compiled_kernels, compiled_layers, is_compiled, layers_name
from ownchat.model.load import load_model
from ownchat.model.lora import add_lora
from ownchat.model.loss import negative_log_likelihood
from ownchat.train.decisions import Decisions, worth_compiling, worth_compiling_layers

SMALL: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
FROM_NOTHING: dict[str, PretrainedConfig] = {
    "qwen3": Qwen3Config(**SMALL),
    "llama": LlamaConfig(**SMALL),
    "gpt2": GPT2Config(
        vocab_size=320, n_embd=32, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    ),
}  # fmt: skip

if (missing := can_compile("cpu")) is not None:
    pytest.skip(missing, allow_module_level=True)


def gradients(model: Any, rows: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
    generator = np.random.default_rng(0)
    block = make_block([(generator.integers(3, 300, n), np.ones(n, np.uint8)) for n in rows])
    model.zero_grad(set_to_none=True)
    loss = negative_log_likelihood(getattr(model, "get_base_model", lambda: model)(), block)
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow  # compiling takes half a minute
def test_compiled_equals_plain(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    model = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    before = elementwise.kernels
    with compiled_kernels(True, "float32", "cpu"):
        assert elementwise.kernels is not before
        for rows in ([20, 31], [7, 9, 30], [40]):  # one compilation serves all sizes
            loss, found = gradients(model, rows)
            made, elementwise.kernels = elementwise.kernels, before
            wanted_loss, wanted = gradients(model, rows)
            elementwise.kernels = made
            assert loss == pytest.approx(wanted_loss, rel=1e-6)
            for name, gradient in wanted.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    assert elementwise.kernels is before and is_compiled("float32", "cpu")
    assert list(tmp_path.glob("compiled/*/inductor/*")), "kept for the next run"


@pytest.mark.slow  # compiling takes half a minute
@pytest.mark.parametrize("name", FROM_NOTHING)
def test_compiled_layers_equal_plain_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    torch._dynamo.reset()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(FROM_NOTHING[name]).save_pretrained(tmp_path / "base")
    model = load_model(tmp_path / "base", packed=True).train()
    wanted = {rows: gradients(model, list(rows)) for rows in ((24, 24), (24, 20), (24,))}
    counters.clear()
    with compiled_layers(model, (2, 24), "float32"):
        for rows in ((24, 20), (24,)):
            loss, found = gradients(model, list(rows))
            assert loss == wanted[rows][0], "blocks of another size are computed as before"
            assert all(torch.equal(found[name], gradient) for name, gradient in wanted[rows][1].items())
        assert not counters["stats"]
        loss, found = gradients(model, [24, 24])
        assert counters["stats"]["unique_graphs"] == 1, "all layers share one code"
    assert loss == pytest.approx(wanted[24, 24][0], rel=1e-6)
    for parameter, gradient in wanted[24, 24][1].items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-5, msg=parameter)
    assert gradients(model, [24, 24])[0] == wanted[24, 24][0], "and afterwards nothing is compiled"
    assert is_compiled(layers_name(model.config, "float32", (2, 24)), "cpu")


def test_layers_that_cannot_be_compiled_are_computed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o700)
    torch._dynamo.reset()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(FROM_NOTHING["llama"]).save_pretrained(tmp_path / "base")
    model = load_model(tmp_path / "base", packed=True).train()
    wanted, _ = gradients(model, [24, 24])
    with inductor.patch({"cpp.cxx": (str(compiler),)}), compiled_layers(model, (2, 24), "float32"):
        loss, _ = gradients(model, [24, 24])
    torch._dynamo.reset()
    assert loss == wanted
    assert "cannot be compiled" in "".join(capfd.readouterr())


def test_layers_are_compiled_where_it_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    choice, model = Decisions("cpu", "float32", 2, 0.2, 0.2), FROM_NOTHING["qwen3"]

    def worth(setting: str, seconds: float, choice: Decisions = choice) -> bool:
        return worth_compiling_layers(setting, choice, model, (4, 512), 0.1e12 * seconds, None)

    assert worth("auto", 200) and not worth("auto", 100) and not worth("off", 1e6) and worth("on", 1)
    assert not any(
        worth("on", 1e6, Decisions(device, dtype, 2, 0.2, 0.2, activations=activations))
        for device, dtype, activations in (
            ("cuda", "float32", "keep"), ("cpu", "bfloat16", "keep"), ("cpu", "float32", "recompute"))
    )  # fmt: skip


def test_a_function_that_cannot_be_compiled_is_computed_all_the_same(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o700)
    torch._dynamo.reset()  # what another test compiled in this process
    model = add_lora(load_model(tiny_model, packed=True), rank=8, alpha=16, seed=0)
    wanted, _ = gradients(model, [20, 31])
    # inductor's own way: pytest's leaves the setting deleted
    with inductor.patch({"cpp.cxx": (str(compiler),)}), compiled_kernels(True, "float32", "cpu"):
        loss, _ = gradients(model, [20, 31])
    torch._dynamo.reset()
    assert loss == wanted
    assert "cannot be compiled" in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("setting", "seconds", "minutes", "expected"),
    [("auto", 60, None, False), ("auto", 36_000, None, True), ("auto", 36_000, 1, False), ("on", 1, None, True),
     ("off", 36_000, None, False)],
)  # fmt: skip
def test_only_long_runs_pay_for_compiling(
    setting: str, seconds: float, minutes: float | None, expected: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    choice = Decisions("cpu", "bfloat16", 2, 0.2, 0.4)
    assert worth_compiling(setting, choice, seconds * 0.2e12, minutes) is expected


def test_what_was_compiled_before_serves_shorter_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    choice = Decisions("cpu", "bfloat16", 2, 0.2, 0.4)
    flops = 300 * 0.2e12
    assert not worth_compiling("auto", choice, flops, None)
    from ownchat.model.compiled import cache_directory

    cache_directory().mkdir(parents=True)
    (cache_directory() / "cpu-bfloat16").touch()
    assert worth_compiling("auto", choice, flops, None)
