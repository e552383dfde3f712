"""Documents to the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ownchat.model.attention import Layout, can_pack, make_layout, to_device
from ownchat.tokenizer.store import Document as Document

MIN_SHARED_PREFIX = 8  # shorter ones are not worth their own attention call


@dataclass(frozen=True)
class Block:
    """One forward pass over several documents.

    ``ids``, ``positions``: [1, T] packed, or [n, L] padded on the right; ``mask``: [n, L] or None when packed.
    ``index``: [K] places (in the flattened ids) whose next token is trained; ``targets``: [K] these tokens, in the
    order of the documents. ``trained``: targets of each document. ``num_tokens``: real tokens of the documents, a
    shared prefix counted in each.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor | None
    layout: Layout | None
    index: Tensor
    targets: Tensor
    trained: tuple[int, ...]
    num_tokens: int


def blocks_for(model: Any, batch: Sequence[Sequence[Document]]) -> Iterator[Block]:
    """The blocks of a batch, one after another, as ``model`` takes them and on its device.

    A block is made when it is asked for. On a GPU that is while the one before is still computed there, as long as
    the caller reads no number of it (``float(loss)``): the processor lays it out and the copy stands in the queue.
    """
    packed, share = can_pack(model), shares_prefix(model)
    for documents in batch:
        yield make_block(documents, packed=packed, device=model.device, share_prefix=share)


def shares_prefix(model: Any) -> bool:
    """May a prefix be computed once for all documents of a block?

    Not on a GPU, where a kernel over cumulative lengths reads every document as a whole; and not where dropout is
    active, because one draw for the prefix would stand for all documents.
    """
    return shares_prefix_on(model.device.type) and not (model.training and _has_dropout(model))


def shares_prefix_on(device: str) -> bool:
    """The same as far as it depends on the device: ``"cpu"``, ``"cuda"``, ..."""
    return device != "cuda"


def make_block(
    documents: Sequence[Document],
    *,
    packed: bool = True,
    device: torch.device | str = "cpu",
    share_prefix: bool = True,
) -> Block:
    """Lay documents out for one forward pass. A document's first token is never a target: nothing stands before it.

    ``packed=False`` pads on the right, for models that do not take an attention function of ours. ``share_prefix``:
    hold tokens with which all documents open once (:func:`shares_prefix`).
    """
    ids = [np.asarray(document[0], np.int64) for document in documents]
    trained = [np.flatnonzero(document[1][1:]) + 1 for document in documents]
    targets = np.concatenate([row[where] for row, where in zip(ids, trained, strict=True)])
    lengths = [len(row) for row in ids]
    prefix = _shared_prefix(ids) if packed and share_prefix else 0
    longest = max(lengths)
    rests = np.array([length - prefix for length in lengths])
    starts = prefix + np.cumsum(rests) - rests if packed else np.arange(len(ids)) * longest

    def place(number: int, where: np.ndarray) -> np.ndarray:  # of a document's token in the flattened ids
        return np.where(where < prefix, where, starts[number] + where - prefix)

    index = np.concatenate([place(number, where - 1) for number, where in enumerate(trained)])
    layout = mask = None
    if packed:
        flat = np.concatenate([ids[0][:prefix], *(row[prefix:] for row in ids)])[None]
        positions = np.concatenate([np.arange(prefix), *(np.arange(prefix, length) for length in lengths)])[None]
        layout = make_layout(rests.tolist(), prefix, device)
    else:
        flat = np.stack([np.pad(row, (0, longest - len(row))) for row in ids])
        positions = np.tile(np.arange(longest), (len(ids), 1))
        mask = to_device(torch.from_numpy((positions < np.array(lengths)[:, None]).astype(np.int64)), device)
    return Block(
        ids=to_device(torch.from_numpy(flat), device),
        positions=to_device(torch.from_numpy(positions), device),
        mask=mask,
        layout=layout,
        index=to_device(torch.from_numpy(index), device),
        targets=to_device(torch.from_numpy(targets), device),
        trained=tuple(len(where) for where in trained),
        num_tokens=sum(lengths),
    )


def _shared_prefix(ids: list[np.ndarray]) -> int:
    """Tokens with which every document opens; at least one token of each document stays its own."""
    if len(ids) < 2:
        return 0
    limit = min(len(row) for row in ids) - 1
    heads = np.stack([row[:limit] for row in ids])
    differs = np.flatnonzero((heads != heads[0]).any(axis=0))
    shared = int(differs[0]) if len(differs) else limit
    return shared if shared >= MIN_SHARED_PREFIX else 0


def _has_dropout(model: nn.Module) -> bool:
    """As a module, or as a number that an attention module hands to its function."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return True
        if any(isinstance(value, float) and value > 0 and "drop" in name for name, value in vars(module).items()):
            return True
    return False
