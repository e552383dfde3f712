"""A model from nothing: a stock transformers configuration of some size, random weights, a plain directory.

Nothing of ours is in the result: it opens in transformers and in every tool that knows Qwen3, Llama or GPT-2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ownchat.tokenizer.render import end_of_turn

Architecture = Literal["qwen3", "llama", "gpt2"]
ROPE_THETA = 10_000.0  # for contexts of a few thousand tokens (Su et al. 2021)


@dataclass(frozen=True)
class Size:
    """The shape of a model from nothing. ``inner``: width of the feed-forward part; ``context``: in tokens."""

    architecture: Architecture
    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocab: int
    context: int
    tied: bool = True  # one matrix embeds tokens and scores them

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def embedding_parameters(self) -> int:
        """Weights of the tokens' (and GPT-2's positions') vectors, and of the head where it is not the same matrix."""
        positions = self.context * self.width if self.architecture == "gpt2" else 0
        return self.vocab * self.width * (1 if self.tied else 2) + positions

    @property
    def parameters(self) -> int:
        """Weights in all.

        >>> Size("gpt2", 12, 768, 12, 12, 3072, 50257, 1024).parameters  # GPT-2 as published
        124439808
        """
        width, keys = self.width, self.kv_heads * self.head_width
        if self.architecture == "gpt2":
            attention, inner, norms = 4 * width * width + 4 * width, 2 * width * self.inner + self.inner + width, 4
            return self.embedding_parameters + self.layers * (attention + inner + norms * width) + 2 * width
        layer = 2 * width * width + 2 * width * keys + 3 * width * self.inner + 2 * width
        layer += 2 * self.head_width if self.architecture == "qwen3" else 0  # norms of queries and keys
        return self.embedding_parameters + self.layers * layer + width

    @property
    def training_flops_per_token(self) -> float:
        """Forward and backward: six for each weight that multiplies (Kaplan et al. 2020, arXiv:2001.08361), and causal
        attention over a full context.
        """
        looked_up = self.embedding_parameters - self.vocab * self.width  # all but the head
        return 6.0 * (self.parameters - looked_up) + 6.0 * self.layers * self.width * self.context


def config_of(size: Size, tokenizer: PreTrainedTokenizerBase | None = None) -> Any:
    """The stock transformers configuration of a size. No dropout: packed attention has none, and weight decay is what
    keeps repeated data from being learned by heart (Kim et al. 2025).
    """
    common = {
        "vocab_size": size.vocab,
        "initializer_range": initial_std(size.width),
        "tie_word_embeddings": size.tied,
        "bos_token_id": None if tokenizer is None else tokenizer.bos_token_id,
        "eos_token_id": None if tokenizer is None else tokenizer.eos_token_id,
        "pad_token_id": None,  # a padding row is left out of training, and may be the end token's
    }
    if size.architecture == "gpt2":
        inner = None if size.inner == 4 * size.width else size.inner
        return AutoConfig.for_model(
            "gpt2", n_embd=size.width, n_layer=size.layers, n_head=size.heads, n_inner=inner, n_positions=size.context,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **common,
        )  # fmt: skip
    return AutoConfig.for_model(
        size.architecture, hidden_size=size.width, intermediate_size=size.inner, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, num_key_value_heads=size.kv_heads, head_dim=size.head_width,
        max_position_embeddings=size.context, rms_norm_eps=1e-6, attention_bias=False, attention_dropout=0.0,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA}, **common,
    )  # fmt: skip


def initial_std(width: int) -> float:
    """Of every matrix: sqrt(2 / (5 width)) (Nguyen and Salazar 2019, arXiv:1910.05895), as GPT-NeoX takes it.

    It is GPT-2's 0.02 near GPT-2's width, and keeps activations and first logits the same at other widths.

    >>> round(initial_std(768), 4), round(initial_std(128), 4)
    (0.0228, 0.0559)
    """
    return math.sqrt(2 / (5 * width))


def create(size: Size, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> Any:
    """The untrained model, float32. Same size and seed, same weights; the state of random numbers stays as it is.

    Matrices are normal with :func:`initial_std`; those that add to the residual stream are smaller by
    sqrt(2 layers), for so many are added up (Radford et al. 2019); norms are one, biases zero.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config_of(size, tokenizer), dtype=torch.float32)
    if size.architecture != "gpt2":  # transformers does it for GPT-2
        with torch.no_grad():
            for name, module in model.named_modules():
                if name.endswith(("o_proj", "down_proj")):
                    module.weight.mul_((2 * size.layers) ** -0.5)
    model.generation_config = _generation(model, tokenizer)
    return model.eval()


def save(model: Any, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """A plain Hugging Face directory: safetensors, configurations, the tokenizer with its chat template."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _generation(model: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
    """What ends an answer: the template's end of a turn, and the tokenizer's end of text."""
    settings = model.generation_config
    ends = dict.fromkeys(id for id in (end_of_turn(tokenizer), tokenizer.eos_token_id) if id is not None)
    settings._from_model_config = False  # else transformers may derive it anew and lose the end tokens
    settings.eos_token_id = list(ends) if len(ends) > 1 else next(iter(ends), None)
    settings.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    settings.do_sample = False
    return settings
