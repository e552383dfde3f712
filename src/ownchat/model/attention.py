"""Attention over packed documents: a block holds many, and none sees another.

A block is one row of ``T`` tokens, so that every linear layer works on real tokens only. Attention alone needs the
document borders: it lays the block out as a grid of ``n`` documents by ``L`` tokens (``L``: the longest), attends
causally in each row, and takes the tokens back. Pads stand on the right, so causality already hides them from every
real token. Blocks are made of documents of like length (:mod:`ownchat.tokenizer.packing`), which keeps the grid
nearly full.

Chat data opens every document with the same system prompt. Its first ``P`` tokens are the same, see only each other,
and so have the same hidden states in every document: the block holds them once, and every document attends to them.
The gradient is the sum over the documents, exactly as if each had its own copy.

Registered as ``"ownchat_packed"`` through transformers' ``AttentionInterface``; every model that goes through that
interface can use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "ownchat_packed"

# Rows up to this length: batched matrix products with a stored softmax are faster than the fused CPU kernel, whose
# backward is slow for short rows (benchmarks/attention.py). Longer rows would make the stored matrix large.
MATMUL_MAX_LENGTH = 256


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a block ([prefix, rest of document 0, rest of document 1, ...]) stand in the grid.

    ``query_cells``: [n * L] place in the block for each cell; pads point to the block's first token.
    ``key_cells``: [n * (P + L)] the same with the shared prefix before each row.
    ``places``: [T - P] cell for each token after the prefix.
    ``pad``: [n * L, 1] true where a cell is a pad.
    """

    query_cells: Tensor
    key_cells: Tensor
    places: Tensor
    pad: Tensor
    num_documents: int
    longest: int
    prefix: int


def make_layout(lengths: list[int], prefix: int = 0, device: torch.device | str = "cpu") -> Layout:
    """The layout of a block: ``lengths`` are the documents' tokens after the shared ``prefix``.

    >>> layout = make_layout([2, 1], prefix=1)
    >>> layout.query_cells.tolist(), layout.key_cells.tolist(), layout.places.tolist()
    ([1, 2, 3, 0], [0, 1, 2, 0, 3, 0], [0, 1, 2])
    """
    count, longest = len(lengths), max(lengths)
    columns = torch.arange(longest)
    sizes = torch.tensor(lengths)
    starts = prefix + torch.cumsum(sizes, 0) - sizes
    real = columns[None, :] < sizes[:, None]
    cells = torch.where(real, starts[:, None] + columns[None, :], 0)
    keys = torch.cat([torch.arange(prefix).expand(count, prefix), cells], dim=1)
    places = real.flatten().nonzero()[:, 0]
    return Layout(
        query_cells=cells.flatten().to(device),
        key_cells=keys.flatten().to(device),
        places=places.to(device),
        pad=~real.reshape(-1, 1).to(device),
        num_documents=count,
        longest=longest,
        prefix=prefix,
    )


class _ToGrid(torch.autograd.Function):
    """``x[cells]``; its gradient needs no scatter-add, because a token has one cell (a prefix token: one a row)."""

    @staticmethod
    def forward(context: Any, x: Tensor, cells: Tensor, places: Tensor, rows: int, prefix: int) -> Tensor:
        context.save_for_backward(places)
        context.rows, context.prefix = rows, prefix
        return x.index_select(0, cells)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (places,) = context.saved_tensors
        (gradient,) = gradients
        prefix = context.prefix
        if prefix == 0:
            return gradient.index_select(0, places), None, None, None, None
        rows = gradient.view(context.rows, -1, gradient.shape[-1])
        shared = rows[:, :prefix].sum(0, dtype=torch.float32).to(gradient.dtype)
        own = rows[:, prefix:].reshape(-1, gradient.shape[-1]).index_select(0, places)
        return torch.cat([shared, own]), None, None, None, None


class _FromGrid(torch.autograd.Function):
    """``x[places]``; pads get gradient zero."""

    @staticmethod
    def forward(context: Any, x: Tensor, places: Tensor, cells: Tensor, pad: Tensor, prefix: int) -> Tensor:
        context.save_for_backward(cells, pad)
        context.prefix = prefix
        return x.index_select(0, places)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        cells, pad = context.saved_tensors
        spread = gradients[0].index_select(0, (cells - context.prefix).clamp_(min=0))
        return spread.masked_fill_(pad, 0), None, None, None, None


class _MatmulAttention(torch.autograd.Function):
    """softmax(scale * q k' + bias) v with batched matrix products; the softmax is stored, not made again.

    q: [b, g * L, d] (the g query heads of a key head stand below each other), k and v: [b, P + L, d],
    bias: [g * L, P + L].
    """

    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        weights = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale).softmax(-1)
        context.save_for_backward(q, k, v, weights)
        context.scale = scale
        return torch.bmm(weights, v)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, weights = context.saved_tensors
        gradient = gradients[0].contiguous()
        of_weights = torch.bmm(gradient, v.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(context.scale)
        of_q = torch.bmm(of_scores, k)
        of_k = torch.bmm(of_scores.transpose(1, 2), q)
        return of_q, of_k, torch.bmm(weights.transpose(1, 2), gradient), None, None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature. query: [1, H, T, d]; key, value: [1, K, T, d]; returns [1, T, H, d].

    Without a layout the block is one document.
    """
    assert query.shape[0] == 1, "a block is one row"
    if softcap is not None or dropout:
        raise NotImplementedError("packed attention has neither soft caps nor dropout")  # the padded path is taken
    heads, tokens, width = query.shape[1:]
    if layout is None:
        layout = make_layout([tokens], device=query.device)
    scale = width**-0.5 if scaling is None else scaling
    rows, prefix = layout.num_documents, layout.prefix

    def to_grid(x: Tensor, cells: Tensor, prefix: int) -> Tensor:  # -> [n, heads, P + L, d]
        flat = x[0].transpose(0, 1).reshape(x.shape[2], -1)
        grid = _ToGrid.apply(flat, cells, layout.places, rows, prefix)
        return grid.view(rows, -1, x.shape[1], width).transpose(1, 2)

    # The prefix has queries of its own, which only see the prefix; they are not in the grid of queries.
    q = to_grid(query[:, :, prefix:], (layout.query_cells - prefix).clamp(min=0), 0)
    k, v = to_grid(key, layout.key_cells, prefix), to_grid(value, layout.key_cells, prefix)
    out = _attend(q, k, v, scale, sliding_window).transpose(1, 2).reshape(rows * layout.longest, -1)
    out = _FromGrid.apply(out, layout.places, layout.query_cells, layout.pad, prefix)
    if prefix:
        of_prefix = _attend(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], scale, sliding_window)
        out = torch.cat([of_prefix[0].transpose(0, 1).reshape(prefix, -1), out])
    return out.view(1, tokens, heads, width), None


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """q: [n, H, L, d]; k, v: [n, K, P + L, d]; every query sees the prefix and what stands before it in its row."""
    rows, heads, length, width = q.shape
    key_heads, keys = k.shape[1], k.shape[2]
    bias = _causal_bias(length, keys, window, q)
    if length > MATMUL_MAX_LENGTH or q.device.type != "cpu":
        plain = keys == length and (window is None or window >= length)
        grouped = heads != key_heads
        return scaled_dot_product_attention(
            q, k, v, attn_mask=None if plain else bias, is_causal=plain, scale=scale, enable_gqa=grouped
        )
    group = heads // key_heads
    out = _MatmulAttention.apply(
        q.reshape(rows * key_heads, group * length, width),
        k.reshape(rows * key_heads, keys, width),
        v.reshape(rows * key_heads, keys, width),
        bias.repeat(group, 1),
        scale,
    )
    return out.view(rows, heads, length, width)


def _causal_bias(length: int, keys: int, window: int | None, like: Tensor) -> Tensor:
    """[L, P + L]: 0 where a query may look, -inf elsewhere."""
    distance = torch.arange(length, device=like.device)[:, None] + (keys - length)
    distance = distance - torch.arange(keys, device=like.device)[None, :]  # how far back the key stands
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    return torch.zeros(length, keys, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # the layout says it all
