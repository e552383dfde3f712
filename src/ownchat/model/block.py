"""Documents to the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ownchat.model.attention import Layout, make_layout

MIN_SHARED_PREFIX = 8  # shorter ones are not worth their own attention call

Document = tuple[np.ndarray, np.ndarray]  # ids, weights


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


def make_block(documents: Sequence[Document], *, packed: bool = True, device: torch.device | str = "cpu") -> Block:
    """Lay documents out for one forward pass. A document's first token is never a target: nothing stands before it.

    ``packed=False`` pads on the right, for models that do not take an attention function of ours.
    """
    ids = [np.asarray(document[0], np.int64) for document in documents]
    trained = [np.flatnonzero(document[1][1:]) + 1 for document in documents]
    targets = np.concatenate([row[where] for row, where in zip(ids, trained, strict=True)])
    lengths = [len(row) for row in ids]
    prefix = _shared_prefix(ids) if packed else 0
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
        mask = torch.from_numpy((positions < np.array(lengths)[:, None]).astype(np.int64)).to(device)
    return Block(
        ids=torch.from_numpy(flat).to(device),
        positions=torch.from_numpy(positions).to(device),
        mask=mask,
        layout=layout,
        index=torch.from_numpy(index).to(device),
        targets=torch.from_numpy(targets).to(device),
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
