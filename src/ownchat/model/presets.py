"""Sizes that were published, by name, and how a size is written: ``30M``, ``1.3B``, ``gpt2-medium``, ``gpt3-13b``.

GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (layers and widths), heads from the
published checkpoints. GPT-3: Brown et al. 2020, arXiv:2005.14165, table 2.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ownchat.errors import ConfigError, nearest


@dataclass(frozen=True)
class Preset:
    """A published model. ``batch_tokens`` and ``learning_rate``: none where the paper does not say."""

    layers: int
    width: int
    heads: int
    context: int  # tokens
    batch_tokens: int | None
    learning_rate: float | None
    source: str
    note: str = ""  # where the paper contradicts itself


def parse_size(text: str) -> int | Preset:
    """The number of weights, or the preset, that ``model.size`` names; raises :class:`~ownchat.errors.ConfigError`.

    >>> parse_size("30M"), parse_size("1.3b"), parse_size("250_000"), parse_size("GPT2").layers
    (30000000, 1300000000, 250000, 12)
    """
    name = text.strip().lower()
    if name in PRESETS:
        return PRESETS[name]
    found = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)\s*([kmb]?)", name)
    weights = round(float(found[1].replace("_", "")) * UNITS[found[2]]) if found else 0
    if weights > 0:
        return weights
    hint = nearest(name, PRESETS) or f"write a number of weights (30M, 1.3B) or one of {', '.join(PRESETS)}"
    raise ConfigError(f'"{text}" is no size of a model', where="model.size", fix=hint)


def preset_name(preset: Preset) -> str:
    return next(name for name, each in PRESETS.items() if each is preset)


UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_GPT2, _GPT3 = "Radford et al. 2019", "Brown et al. 2020, table 2.1"
_HALF, _ONE, _TWO = 2**19, 2**20, 2**21  # "0.5M", "1M", "2M" tokens
PRESETS: dict[str, Preset] = {
    "gpt2": Preset(12, 768, 12, 1024, _HALF, None, _GPT2),  # 512 sequences in a batch; rates "manually tuned"
    "gpt2-medium": Preset(24, 1024, 16, 1024, _HALF, None, _GPT2),
    "gpt2-large": Preset(36, 1280, 20, 1024, _HALF, None, _GPT2),
    "gpt2-xl": Preset(48, 1600, 25, 1024, _HALF, None, _GPT2),
    "gpt3-125m": Preset(12, 768, 12, 2048, _HALF, 6.0e-4, _GPT3),
    "gpt3-350m": Preset(24, 1024, 16, 2048, _HALF, 3.0e-4, _GPT3),
    "gpt3-760m": Preset(24, 1536, 16, 2048, _HALF, 2.5e-4, _GPT3),
    "gpt3-1.3b": Preset(
        24, 2048, 16, 2048, _ONE, 2.0e-4, _GPT3, "the table says 24 heads of 128, which make 3,072 and not 2,048"
    ),
    "gpt3-2.7b": Preset(32, 2560, 32, 2048, _ONE, 1.6e-4, _GPT3),
    "gpt3-6.7b": Preset(32, 4096, 32, 2048, _TWO, 1.2e-4, _GPT3),
    "gpt3-13b": Preset(
        40, 5120, 40, 2048, _TWO, 1.0e-4, _GPT3, "the table says a width of 5,140, and 40 heads of 128 make 5,120"
    ),
}
