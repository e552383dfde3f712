"""What a model and its training cost: parameters, floating-point operations and bytes, before anything is loaded.

Weights are counted on the meta device (shapes without numbers), what the backward pass keeps on a model of the same
architecture with few layers, made as training makes its own. So it holds for any architecture, and for what training
really does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from ownchat.errors import ModelError
from ownchat.model import attention, elementwise
from ownchat.model.activations import Activations
from ownchat.model.attention import STORED_MAX_LENGTH
from ownchat.model.block import Block, Document, make_block
from ownchat.model.load import DTYPES, can_pack
from ownchat.model.lora import Variant, add_lora
from ownchat.model.loss import CHUNK, WEIGHT_CHUNK, negative_log_likelihood
from ownchat.model.quantize import FOUR_BIT_BYTES, Quantize
from ownchat.model.trial import VOCABULARY, Paths, quiet, try_paths

SAMPLE_TOKENS = 32  # of a document with which is seen what is kept
FALLBACK_WIDTHS = 20  # numbers kept for each token and layer, in widths of the model, where a model cannot be counted

# Resident memory of a Python process with torch and transformers, their code included (Linux, measured).
LIBRARY_BYTES = {"cpu": 450_000_000, "cuda": 0}  # on a GPU the allocator's bytes count; its context is in MARGIN


@dataclass(frozen=True)
class Account:
    """A model as its training holds it. Weights are numbers of weights; ``activation`` and ``head`` are bytes."""

    parameters: int  # of the base, tied ones once
    adapter: int  # of LoRA, DoRA's lengths too; 0 in full training
    matrices: int  # weights that a token is multiplied with, the head's and the adapter's not counted
    head: int  # the same of the head: vocabulary x width
    vocabulary: int
    layers: int
    width: int
    attention_width: int  # query heads x their width, over all layers
    query_heads: int  # over all layers
    grid_width: int  # queries, keys and values of a token, over all layers: laid out anew for attention
    packed: bool  # documents in a row, or padded
    activations: Activations
    weight_bytes: int  # of one weight: 2 or 4
    activation_per_token: float  # kept for the backward pass: bytes for each token of a block,
    activation_per_trained: float  # and for each trained token
    quantized: int = 0  # weights of the base that are held in four bits

    @property
    def trained(self) -> int:
        """Weights that training changes."""
        return self.adapter or self.parameters

    @property
    def base_bytes(self) -> int:
        """The base as it is held."""
        return (self.parameters - self.quantized) * self.weight_bytes + int(self.quantized * FOUR_BIT_BYTES)


@dataclass(frozen=True)
class BlockSize:
    """What of a block its cost depends on; sums of blocks are of the same form.

    ``tokens``: of the forward pass (a shared prefix once, pads as well). ``cells``: pairs of a query and a key, over
    the grid of documents. ``trained``: targets. ``short_cells``: cells whose softmax is kept. ``rows``: of keys in the
    grid, where every document has the prefix and is as long as the longest.
    """

    tokens: int
    cells: int
    trained: int
    short_cells: int = 0
    rows: int = 0

    def __add__(self, other: BlockSize) -> BlockSize:
        return BlockSize(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Memory:
    """Bytes by part, at the peak of a training step (in :attr:`checkpoint` while one is written)."""

    libraries: int
    weights: int
    adapter: int
    masters: int  # float32 copies of trained weights that are not float32
    gradients: int
    optimizer: int
    activations: int  # what the backward pass needs, of the largest block
    head: int  # logits of one chunk and their gradient
    checkpoint: int  # a copy of the optimiser's tensors, while they are written

    @property
    def fixed(self) -> int:
        """What does not depend on the block."""
        return self.libraries + self.weights + self.adapter + self.masters + self.gradients + self.optimizer + self.head

    @property
    def peak(self) -> int:
        """A step's activations and a checkpoint's copies are not held at the same time."""
        return self.fixed + max(self.activations, self.checkpoint - self.gradients - self.head)


def read_config(directory: Path) -> Any:
    """The transformers configuration of a model directory; raises :class:`~ownchat.errors.ModelError`."""
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"config.json cannot be used: {str(error).splitlines()[0]}", where=str(directory)) from error


def count(
    config: Any,
    *,
    method: Literal["lora", "full"],
    dtype: str,
    rank: int = 16,
    variant: Variant = "lora",
    activations: Activations = "keep",
    quantize: Quantize = "none",
) -> Account:
    """Build the model of a transformers ``config`` without its numbers, and count.

    >>> from transformers import LlamaConfig
    >>> tiny = LlamaConfig(vocab_size=100, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
    ...                    num_attention_heads=2, tie_word_embeddings=True)
    >>> account = count(tiny, method="lora", dtype="float32", rank=2)
    >>> account.parameters, account.matrices, account.adapter
    (1464, 640, 272)
    """
    config = copy.deepcopy(config)  # the model changes it
    text = config.get_text_config()
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    parameters = sum(weight.numel() for weight in model.parameters())
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear | Conv1D) and module is not head]
    paths = try_paths(model)
    layers, heads, bytes_each = text.num_hidden_layers, text.num_attention_heads, DTYPES[dtype].itemsize
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    grid_width = layers * head_width * (heads + 2 * (getattr(text, "num_key_value_heads", None) or heads))
    with quiet():
        per_token, per_trained = _saved_bytes(config, paths, method, dtype, rank, variant, quantize)
    if paths.packed:  # told apart: they depend on the documents' lengths
        per_token -= bytes_each * (grid_width + layers * heads * SAMPLE_TOKENS)
    if not paths.plain_head:  # all logits, what is done to them, and float32 ones of trained tokens
        per_token, per_trained = per_token + 2 * bytes_each * text.vocab_size, per_trained + 8 * text.vocab_size
    if activations != "keep":  # one layer whole; of each layer its input, which may wait elsewhere
        inputs = layers * text.hidden_size * bytes_each if activations == "recompute" else 0
        per_token = min(per_token, inputs + per_token / layers)
    adapter = 0
    if method == "lora":
        adapter = rank * sum(sum(module.weight.shape) for module in linear)  # A [r, in] and B [out, r] beside each
        adapter += sum(map(_outputs, linear)) if variant == "dora" else 0
    return Account(
        parameters=parameters,
        adapter=adapter,
        matrices=sum(module.weight.numel() for module in linear) + _of_experts(model, text),
        head=0 if head is None else head.weight.numel(),
        vocabulary=text.vocab_size,
        layers=layers,
        width=text.hidden_size,
        attention_width=layers * heads * head_width,
        query_heads=layers * heads,
        grid_width=grid_width,
        packed=paths.packed,
        activations=activations,
        weight_bytes=bytes_each,
        quantized=0 if quantize == "none" else sum(module.weight.numel() for module in linear),
        activation_per_token=per_token,
        activation_per_trained=per_trained,
    )


def size_of(documents: Sequence[Document], *, packed: bool = True, share_prefix: bool = True) -> BlockSize:
    """The size of the block that :func:`~ownchat.model.block.make_block` makes of these documents.

    >>> eight = (np.arange(8), np.ones(8, np.uint8))
    >>> size_of([eight, (np.arange(8, 12), np.ones(4, np.uint8))])
    BlockSize(tokens=12, cells=128, trained=10, short_cells=128, rows=16)
    """
    block: Block = make_block(documents, packed=packed, device="meta", share_prefix=share_prefix)
    tokens, targets, layout = block.ids.numel(), len(block.targets), block.layout
    if layout is None:
        return BlockSize(tokens, tokens * block.ids.shape[1], targets, rows=tokens)
    rows = layout.num_documents * (layout.prefix + layout.longest)
    cells = rows * layout.longest + layout.prefix**2
    return BlockSize(tokens, cells, targets, cells if layout.longest <= STORED_MAX_LENGTH else 0, rows)


def forward_flops(account: Account, size: BlockSize) -> int:
    """Two for each multiply-and-add of matrices, attention and head; norms and gates are not worth counting, nor the
    lengths of DoRA's rows, made once a block: they cost what ``rank`` tokens more would."""
    linear = 2 * (account.matrices + account.adapter) * size.tokens
    return linear + 4 * account.attention_width * size.cells + 2 * account.head * size.trained


def training_flops(account: Account, size: BlockSize) -> int:
    """Forward and backward: frozen weights need the gradient of their input only, trained ones their own as well."""
    frozen = account.matrices if account.adapter else 0
    learned = account.adapter if account.adapter else account.matrices
    attention = 8 * account.attention_width * size.cells
    attention += 2 * account.attention_width * (size.cells - size.short_cells)  # the softmax is made again
    head = (2 if account.adapter else 4) * account.head * size.trained
    again = forward_flops(account, size) if account.activations != "keep" else 0
    return forward_flops(account, size) + (2 * frozen + 4 * learned) * size.tokens + attention + head + again


def memory(account: Account, largest: Sequence[BlockSize], *, device: str = "cpu", shards: int = 1) -> Memory:
    """Bytes by part; ``largest``: blocks among which is the one that takes most.

    ``shards``: devices that share trained weights, gradients and the optimiser's state (FSDP2); frozen weights are
    whole on each.
    """
    trained = account.trained
    masters = 0 if account.adapter or account.weight_bytes == 4 else 4 * trained
    shared = 1 if account.adapter else shards
    logits = CHUNK * account.vocabulary * (account.weight_bytes + 4 + 4 + 4 + account.weight_bytes)
    head_gradient = (
        0 if account.adapter else 2 * 4 * account.head + WEIGHT_CHUNK * account.vocabulary * account.weight_bytes
    )
    return Memory(
        libraries=LIBRARY_BYTES["cpu" if device == "cpu" else "cuda"],
        weights=account.base_bytes // shared,
        adapter=4 * account.adapter,
        masters=masters // shared,
        gradients=4 * trained // shared,
        optimizer=8 * trained // shared,
        activations=max((activation_bytes(account, size, device) for size in largest), default=0),
        head=logits + head_gradient,
        checkpoint=(4 + 8) * trained // shared,
    )


def activation_bytes(account: Account, size: BlockSize, device: str = "cpu") -> int:
    """What one block leaves for its backward pass."""
    kept = account.activation_per_token * size.tokens + account.activation_per_trained * size.trained
    layers = 1 if account.activations == "keep" else account.layers  # made again: of one layer at a time
    if account.packed:
        kept += account.weight_bytes * account.grid_width * size.rows / layers
        if device == "cpu":  # short rows keep their softmax; other devices have kernels that do not
            kept += account.weight_bytes * account.query_heads * size.short_cells / layers
    return int(kept)


# ---------------------------------------------------------------------------------------------------- counting


def _outputs(module: Any) -> int:
    return int(module.nf if isinstance(module, Conv1D) else module.out_features)


def _of_experts(model: Any, config: Any) -> int:
    """Of the matrices of experts, which transformers stacks, the share that a token goes through."""
    stacks = sum(weight.numel() for weight in model.parameters() if weight.ndim == 3)
    experts = next((value for name in _EXPERTS if (value := getattr(config, name, None))), None)
    return stacks * (getattr(config, "num_experts_per_tok", None) or 1) // experts if experts else 0


def _saved_bytes(
    config: Any, paths: Paths, method: str, dtype: str, rank: int, variant: Variant, quantize: Quantize
) -> tuple[float, float]:
    """(bytes for each token, bytes for each trained token) that autograd keeps, attention's grid included.

    Seen on real models with two and four of the layers, made as training makes its model: a difference of the two is a
    layer's. Wide models are made narrower in proportion, since what is kept grows with the width.
    """
    text = config.get_text_config()
    try:
        small, narrower = _reduced(config, 2)
        kept = [
            _slopes(_small_model(reduced, paths, method, dtype, rank, variant, quantize))
            for reduced in (small, _reduced(config, 4)[0])
        ]
    except Exception:  # an architecture without a small form: an estimate from its shape
        return float(FALLBACK_WIDTHS * text.hidden_size * text.num_hidden_layers * DTYPES[dtype].itemsize), 0.0
    layer = [(four - two) / 2 for two, four in zip(*kept, strict=True)]
    rest = [two - 2 * each for two, each in zip(kept[0], layer, strict=True)]
    per_token, per_trained = (
        narrower * (text.num_hidden_layers * each + other) for each, other in zip(layer, rest, strict=True)
    )
    return per_token, per_trained


def _reduced(config: Any, layers: int) -> tuple[Any, int]:
    """A configuration with few layers, a small vocabulary, and a width divided by the number that is returned, too."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    count = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == count:  # an entry for each layer
            setattr(text, name, [value[number % count] for number in range(layers)])
    text.num_hidden_layers, text.vocab_size = layers, VOCABULARY
    text.pad_token_id = text.bos_token_id = text.eos_token_id = 0
    sizes = {name: value for name in _WIDTHS if isinstance(value := getattr(text, name, None), int)}
    by = next(by for by in (16, 8, 4, 2, 1) if by == 1 or _divides(by, sizes))
    for name, value in sizes.items():
        setattr(text, name, value // by)
    return config, by


def _divides(by: int, sizes: dict[str, int]) -> bool:
    return sizes["hidden_size"] // by >= 256 and all(value % by == 0 for value in sizes.values())


def _small_model(
    config: Any, paths: Paths, method: str, dtype: str, rank: int, variant: Variant, quantize: Quantize
) -> Any:
    with torch.random.fork_rng(devices=[]):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    model.plain_head = paths.plain_head
    if paths.packed:
        model.set_attn_implementation(attention.NAME)
    elementwise.use_ours(model)
    if method == "lora":
        ours = quantize == "none"  # four bits keep what PEFT keeps
        add_lora(model, rank=rank, alpha=rank, seed=0, variant=variant, ours=ours)
    return model.train()


def _slopes(model: Any) -> tuple[float, float]:
    """Bytes for each token and for each trained one: differences of three blocks of documents of equal length."""
    few, more_documents, more_trained = (_saved_in(model, *size) for size in ((2, 4), (4, 2), (2, 8)))
    return (more_documents - few) / (2 * SAMPLE_TOKENS), (more_trained - few) / 8


def _saved_in(model: Any, documents: int, trained: int) -> int:
    """Bytes that are kept for the backward pass of one block, weights aside, each storage once."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weight = (np.arange(SAMPLE_TOKENS) >= SAMPLE_TOKENS - trained).astype(np.uint8)
    block = [((np.arange(SAMPLE_TOKENS) + number) % VOCABULARY, weight) for number in range(documents)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = negative_log_likelihood(model, make_block(block, packed=can_pack(model)))
    del loss  # until here it holds what was kept, so that no place in memory was used twice
    return sum(kept.values())


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_WIDTHS = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "moe_intermediate_size",
    "shared_expert_intermediate_size",
)  # fmt: skip
