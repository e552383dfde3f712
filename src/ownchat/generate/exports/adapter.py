"""A LoRA adapter as a GGUF file, which llama.cpp and Ollama put beside the base's.

For a base of few bits that is the only way that keeps what was learned: merged and rounded to the base's own grid, the
small changes of an adapter round back to where they came from (docs/export.md).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open

from ownchat.artifacts import replacing
from ownchat.errors import ModelError
from ownchat.generate.exports.weights import SUFFIXES, Weights, pairs

PREFIX = "base_model.model."  # of PEFT's names


def write_adapter(adapter: Path, base: Weights, target: Path) -> Path:
    """Write a PEFT directory as a GGUF adapter of ``base``, in float32: it is small.

    Raises :class:`~ownchat.errors.ModelError` for what llama.cpp does not know: DoRA, other ranks for some layers, and
    trained embeddings.
    """
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if settings.get(key):
            raise ModelError(f"llama.cpp has no adapters with {key}", where=str(adapter), fix="leave out --adapter")
    rank, alpha = settings["r"], float(settings["lora_alpha"])
    with replacing(target) as aside:
        writer = gguf.GGUFWriter(aside, gguf.MODEL_ARCH_NAMES[base.architecture])
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        # llama.cpp scales by alpha / rank, rank-stabilised LoRA by alpha / sqrt(rank)
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha * math.sqrt(rank) if settings["use_rslora"] else alpha)
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as handle:
            for name in sorted(handle.keys()):  # a, then b of each: llama.cpp wants both
                writer.add_tensor(*_tensor(name, handle.get_tensor(name).float().numpy(), base, adapter))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return target


def _tensor(name: str, values: np.ndarray, base: Weights, adapter: Path) -> tuple[str, np.ndarray]:
    """``lora_A`` [rank, in] and ``lora_B`` [out, rank] of a layer under llama.cpp's names."""
    layer, found, which = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
    tensor = next((tensor for tensor in base.tensors if tensor.source == f"{layer}.weight"), None)
    if not found or tensor is None or not tensor.name.endswith(SUFFIXES[0]):
        raise ModelError(f"llama.cpp has no place for the adapter's {name}", where=str(adapter))
    if which == "B" and tensor.change in ("pairs of q", "pairs of k"):
        config = base.config
        heads = config.num_attention_heads if tensor.change == "pairs of q" else config.num_key_value_heads
        values = pairs(values, heads)
    return f"{tensor.name}.lora_{which.lower()}", np.ascontiguousarray(values)
