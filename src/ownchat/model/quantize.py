"""Frozen weights in four bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314): an eighth of float32's memory.

bitsandbytes holds the matrices of all layers but the head as 4-bit normal floats, 64 to a scale, and the scales in
eight bits; a product makes them floating-point numbers again. Only an adapter beside them can be trained.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from ownchat.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

Quantize = Literal["none", "4bit"]

FOUR_BIT_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8  # of a weight, with its share of the scales


def check(quantize: Quantize, method: str, *, here: bool = True) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` when weights in four bits cannot be trained so.

    ``here``: on this machine, which needs bitsandbytes.
    """
    if quantize == "none":
        return
    if method != "lora":
        raise ConfigError(
            "weights in four bits cannot be trained themselves, only an adapter beside them",
            where=f"model.quantize = {quantize}, train.method = {method}",
            fix="use train.method=lora, or model.quantize=none",
        )
    if here:
        check_installed(quantize)


def check_installed(quantize: Quantize) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` when bitsandbytes is not there."""
    if quantize != "none" and find_spec("bitsandbytes") is None:
        raise ConfigError(
            "the package bitsandbytes is not installed",
            where=f"model.quantize = {quantize}",
            fix="pip install 'ownchat[gpu]', or use model.quantize=none",
        )


def settings(quantize: Quantize, compute: Any) -> dict[str, Any]:
    """What ``from_pretrained`` has to be told; ``compute``: the torch type of products."""
    if quantize == "none":
        return {}
    check_installed(quantize)
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    }


def keep_gradients(model: nn.Module) -> None:
    """On processors with AVX512-BF16, bitsandbytes (0.50) lays weights out anew in the first evaluation, for a kernel
    that has no gradient: training would go on without an error, and without the gradient of what a matrix reads.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
