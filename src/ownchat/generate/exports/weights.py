"""Weights and settings of a Hugging Face directory under llama.cpp's names, one tensor in memory at a time.

Layouts as in llama.cpp's ``convert_hf_to_gguf.py``: its Llama rotates neighbouring pairs where transformers rotates
the two halves of a head, so the rows of q and k change places; GPT-2's matrices are stored transposed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from safetensors import safe_open
from transformers import AutoConfig

from ownchat.errors import ModelError
from ownchat.model.load import check_directory

Change = Literal["", "pairs of q", "pairs of k", "transpose"]

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
}
SUPPORTED = "Llama, Mistral, Qwen2, Qwen3 and GPT-2"
SUFFIXES = (".weight", ".bias")
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Tensor:
    """Where a tensor comes from, its shape in the GGUF file, and what happens to it on the way."""

    name: str
    source: str
    shape: tuple[int, ...]
    change: Change
    kind: gguf.MODEL_TENSOR


class Weights:
    """A model directory with safetensors; ``architecture`` is llama.cpp's.

    Raises :class:`~ownchat.errors.ModelError` for an architecture or a setting of one that llama.cpp computes
    differently from transformers, or that is not written here.
    """

    def __init__(self, directory: Path) -> None:
        check_directory(directory)
        self.directory = directory
        stored = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if stored.get("model_type") not in ARCHITECTURES:
            raise self._refused(f"models of type {stored.get('model_type')}")
        self.config: Any = AutoConfig.from_pretrained(directory)
        self.architecture = ARCHITECTURES[stored["model_type"]]
        self.is_gpt2 = self.architecture == gguf.MODEL_ARCH.GPT2
        self._check_settings()
        files = sorted(directory.glob("*.safetensors"))
        with ExitStack() as stack:
            opened = [(file, stack.enter_context(safe_open(file, framework="pt"))) for file in files]
            self._places = {name: file for file, handle in opened for name in handle.keys()}  # noqa: SIM118
            shapes = {name: tuple(handle.get_slice(name).get_shape()) for _, handle in opened for name in handle.keys()}  # noqa: SIM118
        self.tensors = [tensor for name, shape in shapes.items() if (tensor := self._tensor(name, shape)) is not None]
        self.rows = next(t.shape[0] for t in self.tensors if t.kind == gguf.MODEL_TENSOR.TOKEN_EMBD)

    def read(self, tensor: Tensor) -> np.ndarray:
        """Its values in float32, as llama.cpp lays them out."""
        if tensor.source == ROPE_FACTORS:
            return self._rope_factors()
        with safe_open(self._places[tensor.source], framework="pt") as handle:
            values: np.ndarray = handle.get_tensor(tensor.source).float().numpy()
        match tensor.change:
            case "pairs of q":
                return pairs(values, self.config.num_attention_heads)
            case "pairs of k":
                return pairs(values, self.config.num_key_value_heads)
            case "transpose":
                return np.ascontiguousarray(values.T)
        return values

    def settings(self) -> Iterator[tuple[str, Any]]:
        """``(method of GGUFWriter, value)`` of everything that llama.cpp has to know to compute."""
        config = self.config
        if self.is_gpt2:
            yield "add_context_length", config.n_positions
            yield "add_embedding_length", config.n_embd
            yield "add_block_count", config.n_layer
            yield "add_feed_forward_length", config.n_inner or 4 * config.n_embd
            yield "add_head_count", config.n_head
            yield "add_layer_norm_eps", config.layer_norm_epsilon
            return
        yield "add_context_length", config.max_position_embeddings
        yield "add_embedding_length", config.hidden_size
        yield "add_block_count", config.num_hidden_layers
        yield "add_feed_forward_length", config.intermediate_size
        yield "add_head_count", config.num_attention_heads
        yield "add_head_count_kv", config.num_key_value_heads
        yield "add_layer_norm_rms_eps", config.rms_norm_eps
        yield "add_key_length", self._head_size
        yield "add_value_length", self._head_size
        yield "add_rope_dimension_count", self._head_size
        yield "add_rope_freq_base", float(config.rope_parameters["rope_theta"])
        if config.rope_parameters["rope_type"] == "linear":
            yield "add_rope_scaling_type", gguf.RopeScalingType.LINEAR
            yield "add_rope_scaling_factor", float(config.rope_parameters["factor"])

    @property
    def context(self) -> int:
        """Tokens that the model can attend to."""
        return int(self.config.n_positions if self.is_gpt2 else self.config.max_position_embeddings)

    # ------------------------------------------------------------------------------------------------ inside

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """None for what llama.cpp does not want: masks of old GPT-2 files, and a head that is the embedding."""
        if name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")):
            return None
        if name == "lm_head.weight" and self.config.tie_word_embeddings:
            return None
        found = self._names.get_type_and_name(name, SUFFIXES)
        if found is None:
            raise self._refused(f"a tensor {name}")
        change: Change = ""
        if self.is_gpt2 and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            change, shape = "transpose", shape[::-1]
        elif self.architecture == gguf.MODEL_ARCH.LLAMA and name.endswith((".q_proj.weight", ".q_proj.bias")):
            change = "pairs of q"
        elif self.architecture == gguf.MODEL_ARCH.LLAMA and name.endswith((".k_proj.weight", ".k_proj.bias")):
            change = "pairs of k"
        return Tensor(found[1], name, shape, change, found[0])

    @property
    def _names(self) -> gguf.TensorNameMap:
        if not hasattr(self, "_map"):
            layers = self.config.n_layer if self.is_gpt2 else self.config.num_hidden_layers
            self._map = gguf.get_tensor_name_map(self.architecture, layers)
        return self._map

    @property
    def _head_size(self) -> int:
        found = getattr(self.config, "head_dim", None)
        return int(found if found is not None else self.config.hidden_size // self.config.num_attention_heads)

    def _check_settings(self) -> None:
        config = self.config
        if self.is_gpt2:
            if config.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
                raise self._refused(f"GPT-2 with the activation {config.activation_function}")
            if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
                raise self._refused("GPT-2 with another scale of attention")
            return
        if config.hidden_act != "silu":
            raise self._refused(f"a model with the activation {config.hidden_act}")
        windowed = getattr(config, "sliding_window", None)
        if windowed is not None and getattr(config, "use_sliding_window", True):
            raise self._refused("a model with a sliding window")
        rope = config.rope_parameters
        if rope["rope_type"] not in ("default", "linear", "llama3") or rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise self._refused(f"a model with {rope['rope_type']} rotary positions")

    def _rope_factors(self) -> np.ndarray:
        """By how much each frequency of Llama 3's rotary positions is slower than the plain one [head size / 2]."""
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        size = self._head_size
        plain = self.config.rope_parameters["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float64) / size)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](self.config, device="cpu")
        return (plain / scaled.double().numpy()).astype(np.float32)

    @property
    def extra(self) -> list[Tensor]:
        """What llama.cpp wants as a tensor and transformers computes."""
        if self.is_gpt2 or self.config.rope_parameters["rope_type"] != "llama3":
            return []
        return [Tensor(ROPE_FACTORS, ROPE_FACTORS, (self._head_size // 2,), "", gguf.MODEL_TENSOR.ROPE_FREQS)]

    def _refused(self, what: str) -> ModelError:
        return ModelError(
            f"{what}: not written as GGUF",
            where=str(self.directory),
            fix=f"{SUPPORTED} are; --to vllm takes the directory as it is",
        )


def pairs(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from halves (transformers) to neighbouring pairs (llama.cpp); the shape stays.

    >>> pairs(np.arange(4), 1).tolist()
    [0, 2, 1, 3]
    """
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))
