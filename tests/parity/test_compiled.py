"""Compiled norms and gates: the same loss and gradients, and the same bits after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._inductor import config as inductor

from ownchat.model import elementwise
from ownchat.model.block import make_block
from ownchat.model.compiled import can_compile, compiled_kernels, is_compiled
from ownchat.model.load import load_model
from ownchat.model.lora import add_lora
from ownchat.model.loss import negative_log_likelihood
from ownchat.train.decisions import Decisions, worth_compiling

if (missing := can_compile("cpu")) is not None:
    pytest.skip(missing, allow_module_level=True)


def gradients(model: Any, rows: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
    generator = np.random.default_rng(0)
    block = make_block([(generator.integers(3, 300, n), np.ones(n, np.uint8)) for n in rows])
    model.zero_grad(set_to_none=True)
    loss = negative_log_likelihood(model.get_base_model(), block)
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
