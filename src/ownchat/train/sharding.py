"""Weights, gradients and the optimiser's state spread over processes: FSDP2 (Zhao et al. 2023, arXiv:2304.11277).

Each decoder layer is gathered when it is needed and let go of afterwards; a gradient is summed over the processes, and
each keeps the rows it moves. The model's own code knows nothing of it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from ownchat.model.block import Document, blocks_for
from ownchat.model.loss import log_probabilities
from ownchat.model.score import blocks_of, score_documents
from ownchat.tokenizer.packing import cut
from ownchat.tokenizer.store import Item
from ownchat.train.distributed import World, deal

FILE_BYTES = 2 << 30  # of a model's weights in one file, and so of what is held to write it


class Sharded(nn.Module):
    """A causal language model whose weights are spread over processes. It is used like the model itself.

    Around its forward pass, or that of its decoder, FSDP2 gathers what belongs to no layer (embedding, last norm,
    head). That stays whole until the backward pass is over, so that the loss finds the head's matrix.
    """

    def __init__(self, model: Any, *, whole_base: bool) -> None:
        super().__init__()
        self.model, self.whole_base = model, whole_base
        self.sums_locally = not all(weight.requires_grad for weight in model.parameters())

    def forward(self, part: nn.Module | None = None, /, **inputs: Any) -> Any:
        return (self.model if part is None else part)(**inputs)

    def get_decoder(self) -> Callable[..., Any]:
        return partial(self, self.model.get_decoder())

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


def shard(model: Any, world: World, *, dtype: str, whole_base: bool = False) -> Any:
    """Spread a model over the processes, in place; returns what to train.

    Trained weights are float32 and computed with in ``dtype``. ``whole_base``: weights that are not trained stay
    whole in every process, and only the adapter is spread: a gather and a sum for each step, not for each layer.
    """
    for weight in model.parameters():
        weight.data = weight.data.contiguous()
    frozen = {weight for weight in model.parameters() if not weight.requires_grad}
    whole_base = whole_base and bool(frozen)
    # an adapter's matrices are float32 beside a base that has the type of computation already
    low = torch.bfloat16 if dtype == "bfloat16" and not frozen else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    sharded, mesh = Sharded(model, whole_base=whole_base), init_device_mesh(model.device.type, (world.size,))
    if not whole_base:
        for module in list(model.modules()):
            if isinstance(module, GradientCheckpointingLayer):
                fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    ignored = frozen if whole_base else None
    fully_shard(sharded, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=ignored)
    for module in sharded.modules():
        if isinstance(module, FSDPModule):  # the sum, where its default is the mean: the loss has the global count
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return sharded


def before_pass(model: Any, *, is_last: bool) -> None:
    """An adapter's small gradient is summed over processes once in a step, after its last pass.

    In full training it is after each pass: no process could hold the whole gradient.
    """
    if isinstance(model, Sharded) and model.sums_locally:
        model.set_requires_gradient_sync(is_last)
        if model.whole_base:
            model.set_reshard_after_backward(is_last)


def empty_pass(model: Any) -> None:
    """A pass over two tokens that adds nothing to any gradient, where other processes have one more block."""
    block = next(blocks_for(model, [[(np.zeros(2, np.int64), np.array([0, 1], np.uint8))]]))
    nothing = log_probabilities(model, block).sum() * 0.0
    if torch.is_grad_enabled():
        nothing.backward()


def passes(items: Sequence[Item], world: World, block_tokens: int) -> list[list[Item]]:
    """See :meth:`~ownchat.train.distributed.World.passes`."""
    lengths = [sum(len(ids) for ids, _ in item.documents) for item in items]
    tokens = np.asarray(lengths, np.int64)
    shares = [
        cut(np.asarray(numbers, np.int64), tokens, block_tokens) if numbers else []
        for numbers in deal(lengths, world.size)
    ]
    most, mine = max(map(len, shares)), shares[world.rank]
    return [[items[number] for number in block] for block in mine] + [[] for _ in range(most - len(mine))]


def score_together(
    world: World,
    model: Any,
    documents: Sequence[Document],
    *,
    block_tokens: int,
    likeliest: list[np.ndarray] | None = None,
    **settings: Any,
) -> list[np.ndarray]:
    """See :meth:`~ownchat.train.distributed.World.score`."""
    lengths = [len(ids) for ids, _ in documents]
    shares = deal(lengths, world.size)
    num_passes = [len(blocks_of(numbers, lengths, block_tokens)) for numbers in shares]
    mine = shares[world.rank]
    right: list[np.ndarray] | None = None if likeliest is None else []
    own = score_documents(
        model, [documents[number] for number in mine], block_tokens=block_tokens, likeliest=right, **settings
    )
    training = model.training
    model.eval()
    with torch.no_grad():
        for _ in range(max(num_passes) - len(blocks_of(mine, lengths, block_tokens))):
            empty_pass(model)
    model.train(training)
    model.reshard()
    ends = np.cumsum([np.count_nonzero(weights[1:]) for _, weights in documents])

    def gathered(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        values = torch.zeros(int(ends[-1]), dtype=torch.float64)
        for number, part in zip(mine, parts, strict=True):
            values[ends[number] - len(part) : ends[number]] = torch.from_numpy(part)
        everything = world.sum(values.to(model.device)).cpu().numpy()
        return np.split(everything, ends[:-1])

    if likeliest is not None and right is not None:
        likeliest[:] = [part > 0 for part in gathered(right)]
    return gathered(own)


# ------------------------------------------------------------------------------------------------------ to files


def save_adapter(wrapped: Any, directory: Path, world: World) -> None:
    """By the first process; the others take part in gathering it."""
    trained = [(name, weight) for name, weight in wrapped.named_parameters() if weight.requires_grad]
    state = {name: _whole(weight).cpu() for name, weight in trained}
    if world.first:
        wrapped.save_pretrained(str(directory), safe_serialization=True, state_dict=state)


def save_model(model: Any, directory: Path, world: World, *, dtype: str) -> None:
    """By the first process: gathered one weight at a time, written file by file."""
    compute = getattr(torch, dtype)
    weights = ((name, _whole(weight).to(compute).cpu()) for name, weight in _saved_weights(model))
    if getattr(model, "_weight_conversions", None):  # names or shapes on disk are others: transformers knows how
        state = dict(weights)
        if world.first:
            model.save_pretrained(directory, state_dict=state)
        return
    if not world.first:
        for _ in weights:
            pass
        return
    directory.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    index: dict[str, int] = {}
    total = 0
    for held in _filled(weights):
        files.append(directory / f"{len(files)}.safetensors")
        save_file(held, files[-1], metadata={"format": "pt"})
        index |= dict.fromkeys(held, len(files) - 1)
        total += sum(tensor.nbytes for tensor in held.values())
    names = ["model.safetensors"]
    if len(files) > 1:
        names = [f"model-{number + 1:05d}-of-{len(files):05d}.safetensors" for number in range(len(files))]
        content = {"metadata": {"total_size": total}, "weight_map": {key: names[place] for key, place in index.items()}}
        (directory / "model.safetensors.index.json").write_text(json.dumps(content, indent=2))
    for file, name in zip(files, names, strict=True):
        file.rename(directory / name)
    config = copy.deepcopy(model.config)
    config.dtype = compute
    config.save_pretrained(directory)
    if model.can_generate():
        model.generation_config.save_pretrained(directory)


def _saved_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """What a directory holds: parameters, tied ones once, and the buffers that are saved."""
    yield from model.named_parameters()
    kept = set(model.state_dict())
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in kept)


def _filled(weights: Iterator[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Weights together, up to the size of a file."""
    held: dict[str, Tensor] = {}
    for name, tensor in weights:
        if held and sum(other.nbytes for other in held.values()) + tensor.nbytes > FILE_BYTES:
            yield held
            held = {}
        held[name] = tensor.contiguous()
    yield held


def _whole(weight: Any) -> Tensor:
    """All rows of a weight; where they are spread, every process has to ask for it."""
    detached = weight.detach()
    return detached.full_tensor() if hasattr(detached, "full_tensor") else detached
