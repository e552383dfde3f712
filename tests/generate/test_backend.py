"""Opening a model with the engine that suits it, and the GGUF files that are made on the way."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ownchat import artifacts
from ownchat.errors import ModelError, UserError
from ownchat.generate import backend
from ownchat.generate.backend import Parts, free_threads, open_engine, parts_of
from ownchat.generate.engine import Request, Sampling
from ownchat.generate.exports.weights import Weights
from ownchat.generate.gguf_cache import adapter_file, model_file, on_grid
from ownchat.generate.locate import Located, locate


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def files(home: Path) -> list[Path]:
    return sorted(path for path in (home / "cache" / "gguf").glob("*") if path.suffix == ".gguf")


@pytest.fixture
def neox(tiny_model: Path, tmp_path: Path) -> Path:
    """A model that llama.cpp knows and ownchat does not write."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = AutoConfig.for_model(
        "gpt_neox", vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=96, bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "neox")
    tokenizer.save_pretrained(tmp_path / "neox")
    return tmp_path / "neox"


# ----------------------------------------------------------------------------------------------------- engines


def test_auto_is_llama_cpp_where_it_can(tiny_model: Path, neox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("a machine with a GPU")
    engine = open_engine(Parts(tiny_model), threads=1)
    assert engine.backend == "llamacpp" and engine.can_schema and engine.context == 512
    engine.close()
    other = open_engine(Parts(neox), threads=1)
    assert other.backend == "hf" and not other.can_schema
    assert "gpt_neox" in capsys.readouterr().err
    with pytest.raises(ModelError, match="gpt_neox"):
        open_engine(Parts(neox), backend="llamacpp", threads=1)
    with pytest.raises(UserError, match='no engine "fast"'):
        open_engine(Parts(tiny_model), backend="fast")  # type: ignore[arg-type]


def test_both_say_the_same(make_run: Callable[..., Path]) -> None:
    """Of a run: with its adapter on the base in llama.cpp and in transformers, and as it was merged."""
    run = make_run()
    parts = parts_of(locate(run))
    assert parts.model != locate(run).model and list(parts.adapters) == ["tuned"]
    tokens = AutoTokenizer.from_pretrained(parts.model).convert_ids_to_tokens(range(300))
    half = {id: -100.0 for id, token in enumerate(tokens) if not token.replace("Ġ", "").isascii()}  # of characters
    asked = [{"role": "user", "content": "Can I return?"}]
    request = Request(messages=asked, max_tokens=20, sampling=Sampling(logit_bias=half))
    answers = []
    for opened in (
        open_engine(parts, backend="llamacpp", threads=1),
        open_engine(parts, backend="hf", threads=1),
        open_engine(Parts(locate(run).model), backend="llamacpp", threads=1),
    ):
        answers.append([id for delta in opened.stream(request) for id in delta.ids])
        opened.close()
    assert answers[0] == answers[1] == answers[2]


def test_without_its_base_a_run_is_served_merged(make_run: Callable[..., Path], tmp_path: Path) -> None:
    located = locate(make_run())
    assert parts_of(Located(located.model, located.adapter, tmp_path / "gone", None)) == Parts(located.model)


@pytest.mark.parametrize("engine", ["llamacpp", "hf", "auto"])
def test_an_adapter_of_another_base(engine: Any, tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = AutoConfig.from_pretrained(tiny_model)
    config.hidden_size, config.intermediate_size = 96, 160
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")
    with pytest.raises(ModelError, match="of another base"):
        open_engine(Parts(tmp_path / "wide", {"x": adapter}), backend=engine, threads=1)
    left_out = open_engine(Parts(tmp_path / "wide", {"x": adapter}, optional=frozenset("x")), backend=engine, threads=1)
    assert left_out.adapters == ()
    left_out.close()


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, (10**15).to_bytes(8, "little") + b"{}", b"\x02" + bytes(7) + b"[]"]
)
def test_a_damaged_adapter(content: bytes, tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(adapter, tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        open_engine(Parts(tiny_model, {"x": damaged}), backend="llamacpp", threads=1)
    (damaged / "adapter_model.safetensors").rename(damaged / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        open_engine(Parts(tiny_model, {"x": damaged}), backend="llamacpp", threads=1)


def test_a_busy_machine_keeps_a_core_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.2, 0.0, 0.0))
    assert free_threads() == 4
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert free_threads() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert free_threads() == 1


# ------------------------------------------------------------------------------------------------------- files


def test_files_are_made_once(tiny_model: Path, adapter: Path, home: Path) -> None:
    file, beside = model_file(tiny_model), adapter_file(adapter, tiny_model)
    before = [(path, path.stat().st_mtime_ns) for path in (file, beside)]
    assert files(home) == sorted([file, beside])
    again = (model_file(tiny_model), adapter_file(adapter, tiny_model))
    assert [(path, path.stat().st_mtime_ns) for path in again] == before
    assert (home / "cache").stat().st_mode & 0o077 == 0


def test_a_model_that_changed_gets_a_new_file(tiny_model: Path, tmp_path: Path, home: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    first = model_file(model)
    os.utime(model / "model.safetensors", (1, 1))
    second = model_file(model)
    assert second != first and files(home) == [second]


def test_files_of_models_that_are_gone_go(tiny_model: Path, adapter: Path, tmp_path: Path, home: Path) -> None:
    older = shutil.copytree(adapter, tmp_path / "step-000004" / "adapter")
    newer = shutil.copytree(adapter, tmp_path / "step-000008" / "adapter")
    files_of = [model_file(tiny_model), adapter_file(older, tiny_model)]
    assert all(file.is_file() for file in files_of)
    shutil.rmtree(older.parent)
    kept = [files_of[0], adapter_file(newer, tiny_model)]
    assert files(home) == sorted(kept)
    assert sorted((home / "cache" / "gguf").glob("*.json")) == sorted(
        file.with_name(f"{file.name}.json") for file in kept
    )


@pytest.mark.parametrize("damage", ["cut", "changed", "no note"])
def test_a_file_that_is_not_as_it_was_written_is_made_again(damage: str, tiny_model: Path) -> None:
    file = model_file(tiny_model)
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "changed":
        file.write_bytes(whole[:-40] + b"\x00" * 40)
    else:
        file.with_name(file.name + ".json").unlink()
        file.write_bytes(b"GGUF of somebody else")
    assert model_file(tiny_model).read_bytes() == whole


def test_a_full_disk_leaves_nothing_behind(tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))  # the file is larger
    try:
        with pytest.raises(UserError, match=r"too large|full"):
            model_file(tiny_model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(home) == []
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(artifacts.shutil, "disk_usage", lambda _: usage(10, 10, 0))
        with pytest.raises(UserError, match=r"are needed and 0\.0 GB are free"):
            model_file(tiny_model)
        if not torch.cuda.is_available():
            engine = open_engine(Parts(tiny_model), threads=1)  # auto: an answer all the same
            assert engine.backend == "hf"
    assert files(home) == []
    assert model_file(tiny_model).is_file()


def test_weights_on_the_grid_take_eight_bits(tiny_model: Path, tmp_path: Path) -> None:
    assert not on_grid(Weights(tiny_model))
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                kind = gguf.GGMLQuantizationType.Q8_0 if "embed" in name else gguf.GGMLQuantizationType.Q4_1
                weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind)))
    directory = shutil.copytree(tiny_model, tmp_path / "grid")
    model.save_pretrained(directory)
    # transformers and llama.cpp order rows of q and k differently; blocks lie within rows, so the grid stays
    assert on_grid(Weights(directory))
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(model_file(directory)).tensors}
    assert types["blk.0.ffn_up.weight"] == "Q8_0"
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(model_file(tiny_model)).tensors}
    assert types["blk.0.ffn_up.weight"] == "F16"


@pytest.mark.parametrize("moved", ["all", "the last rows of one matrix", "one value of the embedding"])
def test_what_training_moved_off_the_grid_is_not_rounded_back(moved: str, tiny_model: Path, tmp_path: Path) -> None:
    """All weights tuned with a small learning rate: the base with 1e-4 on it, a hundredth of a step of the grid."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                kind = gguf.GGMLQuantizationType.Q8_0 if "embed" in name else gguf.GGMLQuantizationType.Q4_1
                weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind)))
                if moved == "all":
                    weight.add_(torch.randn_like(weight) * 1e-4)
        if moved == "the last rows of one matrix":
            model.model.layers[1].mlp.up_proj.weight[-2:].add_(torch.randn(2, 64) * 1e-4)
        elif moved == "one value of the embedding":
            model.model.embed_tokens.weight[7, 3] += 1e-4
    directory = shutil.copytree(tiny_model, tmp_path / "tuned")
    model.save_pretrained(directory)
    assert not on_grid(Weights(directory))
    reader = gguf.GGUFReader(model_file(directory))
    assert {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) == 2} == {"F16"}


def test_a_damaged_config(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        backend.end_ids_of(Parts(model), AutoTokenizer.from_pretrained(tiny_model))


def test_memory_of_keys_and_values() -> None:
    starter = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}
    assert backend._cache_bytes(starter) == 2 * 30 * 3 * 64 * 2
    assert backend._cache_bytes({"n_layer": 12, "n_head": 12, "n_embd": 768}) == 2 * 12 * 768 * 2


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
