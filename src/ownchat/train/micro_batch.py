"""The micro-batch: as many tokens in one forward pass as the memory holds, by the account of the model."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from ownchat.config import FROM_NOTHING, Config
from ownchat.model import account as accounts
from ownchat.model.account import Account, BlockSize, Memory
from ownchat.model.attention import STORED_MAX_LENGTH
from ownchat.train.decisions import Decisions

MAX_BLOCK_TOKENS = {"cpu": 3072, "cuda": 16384}  # larger blocks gain nothing there
WHOLE_BASE = 0.25  # of a process's memory, up to which the base of an adapter is whole in every process
USABLE = {"cpu": 0.85, "cuda": 0.9}  # of the memory that is there: the rest is for everything else
# Held in a step for each byte that is kept for the backward pass: gradients on their way, and gaps.
ALLOCATOR = {"cpu": 1.7, "cuda": 1.15}
# The heap grows over the first steps by gaps between blocks of other shapes, until it is told to shrink (memory.Heap).
HEAP_GROWTH, FIRST_STEPS = 1.1, 3  # of what is held for activations


def fitting(
    config: Config, base: Path, choice: Decisions, longest: int, available: int, processes: int = 1
) -> dict[str, Any]:
    """What is decided by the memory, ``available`` bytes of it for each process.

    ``block_tokens``: most tokens in one forward pass, as set or by :func:`fitting_block_tokens`. ``base``: an adapter's
    base is ``whole`` in every process where that is little, for then a step moves only the adapter between processes;
    else it is ``sharded``, as trained weights always are.
    """
    account = account_of(config, base, choice)
    little = account.quantized or account.base_bytes <= WHOLE_BASE * available
    held: Literal["whole", "sharded"] = "whole" if account.adapter and little else "sharded"
    if config.train.block_tokens is not None:
        return {"base": held, "block_tokens": config.train.block_tokens}
    spread = 0 if held == "whole" or not account.adapter else account.base_bytes * (processes - 1) // processes
    room = available + spread
    return {
        "base": held,
        "block_tokens": fitting_block_tokens(account, choice.device, longest, room, processes=processes),
    }


def fitting_block_tokens(account: Account, device: str, longest: int, available: int, *, processes: int = 1) -> int:
    """The largest block for ``available`` bytes, at most :data:`MAX_BLOCK_TOKENS`, at least the longest document.

    A longer document is a block of its own in any case, so a smaller figure would only make more blocks.
    """
    fixed = accounts.memory(account, [], device=device, shards=processes).fixed
    # a thousand tokens in documents of the longest kind that keeps its softmax, and all trained
    sample = BlockSize(1024, 1024 * STORED_MAX_LENGTH, 1024, 1024 * STORED_MAX_LENGTH, 1024)
    each = accounts.activation_bytes(account, sample, device) / 1024
    fits = int((USABLE[device] * available - fixed) / (ALLOCATOR[device] * growth(FIRST_STEPS + 1, device) * each))
    return min(MAX_BLOCK_TOKENS[device], max(fits, longest))


def account_of(config: Config, base: Path, choice: Decisions) -> Account:
    """The account of a base model under these settings."""
    return accounts.count(
        accounts.read_config(base),
        method=config.train.method,
        dtype=choice.dtype,
        rank=config.model.lora_rank,
        variant=config.model.lora_variant,
        activations=choice.activations,
        quantize=config.model.quantize,
    )


def growth(steps: int, device: str) -> float:
    """How much more is held for activations after so many steps than after the first three.

    >>> growth(3, "cpu"), growth(24, "cuda")
    (1.0, 1.0)
    """
    return HEAP_GROWTH if device == "cpu" and sys.platform == "linux" and steps > FIRST_STEPS else 1.0


def with_allocator(memory: Memory, device: str, steps: int) -> Memory:
    """With what the allocator holds beside the activations that are kept, after ``steps`` steps."""
    return replace(memory, activations=int(memory.activations * ALLOCATOR[device] * growth(steps, device)))


def as_parts(memory: Memory) -> dict[str, int]:
    """Bytes by part, and their peak."""
    return asdict(memory) | {"peak": memory.peak}


def advice(config: Config, memory: Memory, available: int, device: str) -> list[str]:
    """What would make it fit, the cheapest first."""
    ways = []
    if memory.activations > 0.2 * memory.peak:
        ways.append("a smaller block: --set train.block_tokens=512 --set tokenizer.max_tokens=512")
        if config.train.activations in ("auto", "keep"):
            ways.append("activations made again: --set train.activations=recompute")
    if config.model.base == FROM_NOTHING:
        return [*ways, "a smaller model: --size"]
    if config.train.method == "full":
        ways.append("an adapter in place of all weights: --method lora")
    if memory.weights > 0.5 * USABLE[device] * available:
        ways.append("a smaller base model")
    return ways or ["a machine with more memory"]
