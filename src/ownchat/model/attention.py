"""Attention over packed documents: a block holds many, and none sees another.

A block is one row of ``T`` tokens, so that every linear layer works on real tokens only. Attention alone needs the
document borders: it lays the block out as a grid of ``n`` documents by ``L`` tokens (``L``: the longest), attends
causally in each row, and takes the tokens back. Pads stand on the right, so causality already hides them from every
real token. Blocks are made of documents of like length (:mod:`ownchat.tokenizer.packing`), which keeps the grid
nearly full. On a GPU with a kernel that takes cumulative lengths (:mod:`ownchat.model.varlen`) there is no grid.

Chat data opens every document with the same system prompt. Its first ``P`` tokens are the same, see only each other,
and so have the same hidden states in every document: the block holds them once, and every document attends to them.
The gradient is the sum over the documents, exactly as if each had its own copy.

Registered as ``"ownchat_packed"`` through transformers' ``AttentionInterface``; every model that goes through that
interface can use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ownchat.model import varlen

NAME = "ownchat_packed"

TILE = 128  # queries of one tile (benchmarks of rows of 128 to 2,048 tokens in LOG.md)
STORED_MAX_LENGTH = 256  # rows up to this length keep their softmax for the backward pass
# Longer ones, too, so much for a layer, where heads are so narrow that making it again takes a third of attention.
STORED_WIDTH, STORED_BYTES = 32, 32 << 20


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a block ([prefix, rest of document 0, rest of document 1, ...]) stand in the grid.

    ``query_cells``: [n * L] place after the prefix for each cell; pads point to the first token there.
    ``key_cells``: [n * (P + L)] place in the block, the shared prefix before each row.
    ``places``: [T - P] cell for each token after the prefix.
    ``pad``: [n * L, 1] true where a cell is a pad.
    ``cumulative``: int32 [n + 1] where each document begins after the prefix, and T - P.
    ``full``: there is no prefix, and all documents are of one length: the grid is the block itself.
    """

    query_cells: Tensor
    key_cells: Tensor
    places: Tensor
    pad: Tensor
    cumulative: Tensor
    num_documents: int
    longest: int
    prefix: int
    full: bool


def make_layout(lengths: list[int], prefix: int = 0, device: torch.device | str = "cpu") -> Layout:
    """The layout of a block: ``lengths`` are the documents' tokens after the shared ``prefix``.

    >>> layout = make_layout([2, 1], prefix=1)
    >>> layout.query_cells.tolist(), layout.key_cells.tolist(), layout.places.tolist(), layout.cumulative.tolist()
    ([0, 1, 2, 0], [0, 1, 2, 0, 3, 1], [0, 1, 2], [0, 2, 3])
    """
    count, longest = len(lengths), max(lengths)
    columns = torch.arange(longest)
    sizes = torch.tensor(lengths)
    starts = torch.cumsum(sizes, 0) - sizes
    real = columns[None, :] < sizes[:, None]
    cells = torch.where(real, starts[:, None] + columns[None, :], 0)
    keys = torch.cat([torch.arange(prefix).expand(count, prefix), prefix + cells], dim=1)
    places = real.flatten().nonzero()[:, 0]
    return Layout(
        query_cells=to_device(cells.flatten(), device),
        key_cells=to_device(keys.flatten(), device),
        places=to_device(places, device),
        pad=to_device(~real.reshape(-1, 1), device),
        cumulative=to_device(torch.cat([torch.zeros_like(sizes[:1]), sizes.cumsum(0)]).int(), device),
        num_documents=count,
        longest=longest,
        prefix=prefix,
        full=prefix == 0 and min(lengths) == longest,
    )


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of this processor's on a device. A GPU gets it from pinned memory, and nobody waits for the copy."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def can_pack(model: PreTrainedModel) -> bool:
    """Does the model attend with our function (packed blocks), or does it need padded batches?"""
    return model.config._attn_implementation == NAME


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
    def forward(context: Any, x: Tensor, places: Tensor, cells: Tensor, pad: Tensor) -> Tensor:
        context.save_for_backward(cells, pad)
        return x.index_select(0, places)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cells, pad = context.saved_tensors
        return gradients[0].index_select(0, cells).masked_fill_(pad, 0), None, None, None


class _TiledAttention(torch.autograd.Function):
    """Causal attention of every row by batched matrix products, a tile of queries at a time.

    q: [n, L, H, d]; k, v: [n, P + L, K, d]; returns [n, L, H, d]. A tile looks only at the keys that it may see, which
    halves the work of long rows. The softmax is stored for short rows and made again in the backward pass of long ones,
    where it would be large (its rows by its columns, as in Dao et al. 2022, arXiv:2205.14135, without the kernel).
    """

    @staticmethod
    def forward(
        context: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        keys, values = _by_head(k), _by_head(v)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        kept: list[Tensor] = []
        # With dropout the weights are kept in any case: what was dropped has to be the same in the backward pass.
        store = any(context.needs_input_grad[:3]) and (bool(dropout) or _is_stored(q, k.shape[1]))
        for tile in _tiles(q, k, window):
            weights = _attention_weights(_rows(q, tile, k.shape[2]), keys, tile, scale, q)
            used = weights
            if dropout:
                used = torch.nn.functional.dropout(weights, dropout)
            _put(out, tile, torch.bmm(used, values[:, tile.keys]), k.shape[2])
            if store:
                kept += [weights, used] if dropout else [weights]
        context.save_for_backward(q, k, v, *kept)
        context.settings = (scale, window, dropout)
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = context.saved_tensors
        scale, window, dropout = context.settings
        heads = k.shape[2]
        keys, values, gradient = _by_head(k), _by_head(v), gradients[0]
        of_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
        for number, tile in enumerate(_tiles(q, k, window)):
            rows, of_out = _rows(q, tile, heads), _rows(gradient, tile, heads)
            if dropout:
                weights, used = kept[2 * number : 2 * number + 2]
            else:
                weights = used = kept[number] if kept else _attention_weights(rows, keys, tile, scale, q)
            of_weights = torch.bmm(of_out, values[:, tile.keys].transpose(1, 2))
            if dropout:  # what was dropped is zero in `used`; a weight that is zero itself has no gradient either
                of_weights = of_weights.div_(1 - dropout).masked_fill_(used == 0, 0)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            _put(of_q, tile, torch.baddbmm(rows, of_scores, keys[:, tile.keys], beta=0, alpha=scale), heads)
            of_keys[:, tile.keys].baddbmm_(of_scores.transpose(1, 2), rows, alpha=scale)
            of_values[:, tile.keys].baddbmm_(used.transpose(1, 2), of_out)
        shape = (k.shape[0], heads, k.shape[1], k.shape[3])
        return of_q, of_keys.view(shape).transpose(1, 2), of_values.view(shape).transpose(1, 2), None, None, None


def _is_stored(q: Tensor, keys: int) -> bool:
    """Is the softmax of queries [n, L, H, d] kept for the backward pass? The number of layers does not count: what
    a few keep says what many will."""
    rows, length, heads, width = q.shape
    size = rows * heads * length * (keys - length + (length + TILE) // 2) * q.element_size()
    return length <= STORED_MAX_LENGTH or (width <= STORED_WIDTH and size <= STORED_BYTES)


@dataclass(frozen=True)
class _Tile:
    """Queries ``start`` to ``end`` of each row, and the keys that at least one of them sees."""

    start: int
    end: int
    keys: slice
    bias: Tensor  # [g * (end - start), keys]: 0 where a query may look, -inf elsewhere


def _tiles(q: Tensor, k: Tensor, window: int | None) -> Iterator[_Tile]:
    length, prefix, group = q.shape[1], k.shape[1] - q.shape[1], q.shape[2] // k.shape[2]
    for start in range(0, length, TILE):
        end = min(start + TILE, length)
        first = 0 if window is None else max(0, prefix + start - window + 1)
        keys = slice(first, prefix + end)
        bias = _causal_bias(end - start, prefix + end - first, group, window, q.dtype, q.device)
        yield _Tile(start, end, keys, bias)


def _by_head(x: Tensor) -> Tensor:
    """[n, L, K, d] -> [n * K, L, d]."""
    return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _rows(x: Tensor, tile: _Tile, key_heads: int) -> Tensor:
    """[n, L, H, d] -> [n * K, g * tile, d]: the g query heads of a key head stand below each other."""
    part = x[:, tile.start : tile.end].unflatten(2, (key_heads, -1))
    return part.permute(0, 2, 3, 1, 4).reshape(x.shape[0] * key_heads, -1, x.shape[3])


def _put(out: Tensor, tile: _Tile, rows: Tensor, key_heads: int) -> None:
    """The reverse of :func:`_rows`, written into ``out``."""
    count, _, heads, width = out.shape
    part = rows.view(count, key_heads, heads // key_heads, tile.end - tile.start, width).permute(0, 3, 1, 2, 4)
    out[:, tile.start : tile.end].unflatten(2, (key_heads, -1)).copy_(part)


def _attention_weights(rows: Tensor, keys: Tensor, tile: _Tile, scale: float, like: Tensor) -> Tensor:
    return torch.baddbmm(tile.bias, rows, keys[:, tile.keys].transpose(1, 2), alpha=scale).softmax(-1, like.dtype)


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
    if softcap is not None:
        raise NotImplementedError("packed attention has no soft caps")  # the padded path is taken
    tokens, width = query.shape[2:]
    if layout is None:
        layout = make_layout([tokens], device=query.device)
    scale = width**-0.5 if scaling is None else scaling
    if _is_plain(layout, query, key, value, sliding_window, dropout):
        grid = (layout.num_documents, layout.longest)
        q, k, v = (x[0].unflatten(1, grid).transpose(0, 1) for x in (query, key, value))  # [n, heads, L, d]
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
        return out.transpose(1, 2).reshape(1, tokens, query.shape[1], width), None
    return _general_attention(query, key, value, layout, scale, sliding_window, dropout), None


def _is_plain(layout: Layout, q: Tensor, k: Tensor, v: Tensor, window: int | None, dropout: float) -> bool:
    """Is it what torch's fused kernel for processors does best: full rows, nothing but causal, float32? (In bfloat16
    the tiles are faster, as the kernel does not use AMX: LOG.md.)"""
    plain = layout.full and not dropout and (window is None or window >= layout.longest)
    return plain and q.device.type == "cpu" and q.dtype == torch.float32 and q.shape[-1] == k.shape[-1] == v.shape[-1]


def _general_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, sliding_window: int | None, dropout: float
) -> Tensor:
    """:func:`packed_attention` for documents of any lengths and a shared prefix."""
    tokens, rows, prefix = query.shape[2], layout.num_documents, layout.prefix
    if prefix == 0 and varlen.can_attend(query, key, value, dropout):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return varlen.attend(q, k, v, layout.cumulative, layout.longest, scale, sliding_window)[None]

    def to_grid(x: Tensor, cells: Tensor, prefix: int) -> Tensor:  # -> [n, P + L, heads, d]
        flat = x[0].transpose(0, 1).reshape(x.shape[2], -1)
        grid = _ToGrid.apply(flat, cells, layout.places, rows, prefix)
        return grid.view(rows, -1, x.shape[1], x.shape[3])

    # The prefix has queries of its own, which only see the prefix; they are not in the grid of queries.
    q = to_grid(query[:, :, prefix:], layout.query_cells, 0)
    k, v = to_grid(key, layout.key_cells, prefix), to_grid(value, layout.key_cells, prefix)
    out = _attend(q, k, v, scale, sliding_window, dropout).reshape(rows * layout.longest, -1)
    out = _FromGrid.apply(out, layout.places, layout.query_cells, layout.pad)
    if prefix:
        q, k, v = (x[:, :, :prefix].transpose(1, 2) for x in (query, key, value))
        of_prefix = _attend(q, k, v, scale, sliding_window, dropout)
        out = torch.cat([of_prefix.reshape(prefix, -1), out])
    return out.view(1, tokens, query.shape[1], -1)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, dropout: float) -> Tensor:
    """q: [n, L, H, d]; k, v: [n, P + L, K, d]; every query sees the prefix and what stands before it in its row."""
    length, keys = q.shape[1], k.shape[1]
    if q.device.type == "cpu" and q.shape[3] == v.shape[3]:
        return _TiledAttention.apply(q, k, v, scale, window, dropout)
    plain = keys == length and (window is None or window >= length)
    bias = None if plain else _causal_bias(length, keys, 1, window, q.dtype, q.device)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=bias, is_causal=plain, scale=scale, dropout_p=dropout, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out.transpose(1, 2)


@lru_cache(maxsize=64)  # the layers of a model ask for the same few
def _causal_bias(
    length: int, keys: int, group: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[g * L, keys] for the last L positions of ``keys``: 0 where a query may look, -inf elsewhere."""
    back = torch.arange(length, device=device)[:, None] + (keys - length) - torch.arange(keys, device=device)[None, :]
    hidden = back < 0
    if window is not None:
        hidden |= back >= window
    bias = torch.zeros(length, keys, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
    return bias.repeat(group, 1)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # the layout says it all
