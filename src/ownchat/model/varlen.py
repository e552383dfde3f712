"""Attention over packed documents on a GPU: the flash kernel with cumulative lengths, no grid and no pads.

``torch.nn.attention.varlen`` (Dao 2023, arXiv:2307.08691) takes the block as it is and reads from the cumulative
lengths where a document begins. Whether a machine's kernel does what is said here is tried once on a few random
documents and not assumed; where it does not, :mod:`ownchat.model.attention` takes its general way.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

WIDEST = 256  # of a head
OLDEST = (8, 0)  # compute capability: Ampere
TRIAL = (1, 37, 5, 130)  # lengths of documents
TRIAL_WINDOW = 9
DIFFERS = 0.02  # of the largest number; rounding to bfloat16 is 0.004

# query [T, H, d], key and value [T, K, d], cumulative lengths [n + 1] int32, the longest, scale, window -> [T, H, d]
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float, int | None], Tensor]


def is_supported(
    device: str,
    capability: tuple[int, int] | None,
    dtypes: set[torch.dtype],
    widths: set[int],
    heads: tuple[int, int],
    dropout: float,
) -> bool:
    """Does the kernel take such tensors? ``capability``: none for a GPU that is not NVIDIA's; ``dtypes``, ``widths``:
    of query, key and value; ``heads``: of queries, of keys.

    >>> is_supported("cuda", (9, 0), {torch.bfloat16}, {64}, (8, 2), 0.0)
    True
    """
    if device != "cuda" or capability is None or capability < OLDEST or dropout > 0:
        return False
    if len(dtypes) != 1 or len(widths) != 1 or not dtypes <= {torch.bfloat16, torch.float16}:
        return False
    (width,) = widths
    return width % 8 == 0 and width <= WIDEST and heads[0] % heads[1] == 0


def can_attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    """Can :func:`attend` take these tensors, on this machine, with the right result?"""
    heads, device = (query.shape[1], key.shape[1]), query.device
    if device.type != "cuda":
        return False
    tensors = (query, key, value)
    dtypes, widths = {x.dtype for x in tensors}, {x.shape[-1] for x in tensors}
    if not is_supported(device.type, _capability(device), dtypes, widths, heads, dropout):
        return False
    return _tried(device, query.dtype, query.shape[-1], heads)


def attend(
    query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, longest: int, scale: float, window: int | None
) -> Tensor:
    """Causal attention inside each document. query: [T, H, d]; key, value: [T, K, d]; returns [T, H, d].

    ``cumulative``: int32 [n + 1], where each document begins, and T; ``window``: tokens that a query sees, itself
    included; none: all before it.
    """
    from torch.nn.attention.varlen import varlen_attn

    # The kernel counts how far a query looks back, and knows (-1, 0) alone as causal.
    back = -1 if window is None or window >= longest else window - 1
    out = varlen_attn(
        query, key, value, cumulative, cumulative, longest, longest,
        scale=scale, window_size=(back, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out


def attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, longest: int, scale: float, window: int | None
) -> Tensor:
    """What :func:`attend` has to give, on any device: one document after another."""
    parts = []
    borders = cumulative.tolist()
    for start, end in pairwise(borders):
        q, k, v = (x[start:end].transpose(0, 1)[None] for x in (query, key, value))
        back = torch.arange(end - start, device=query.device)
        back = back[:, None] - back[None, :]
        seen = (back >= 0) if window is None else (back >= 0) & (back < window)
        out = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def agrees(kernel: Kernel, device: torch.device, dtype: torch.dtype, width: int, heads: tuple[int, int]) -> bool:
    """Does ``kernel`` give on random documents what :func:`attend_plainly` gives in float32, gradients included?"""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([0, *TRIAL])
    cumulative, longest, tokens = lengths.cumsum(0).to(device, torch.int32), max(TRIAL), sum(TRIAL)
    shapes = [(tokens, count, width) for count in (heads[0], heads[1], heads[1], heads[0])]
    *inputs, gradient = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    for window in (None, TRIAL_WINDOW):
        found = []
        for function, exact in ((kernel, False), (attend_plainly, True)):
            q, k, v = ((x.float() if exact else x).detach().requires_grad_() for x in inputs)
            out = function(q, k, v, cumulative, longest, width**-0.5, window)
            found.append([out.detach(), *torch.autograd.grad(out, (q, k, v), gradient.to(out.dtype))])
        for ours, wanted in zip(*found, strict=True):
            if not float((ours.float() - wanted).abs().max()) <= DIFFERS * float(wanted.abs().max()):
                return False
    return True


@lru_cache
def _tried(device: torch.device, dtype: torch.dtype, width: int, heads: tuple[int, int]) -> bool:
    # In a thread of its own: whether gradients are made, autocast, and what a checkpoint does with saved tensors are
    # set for each thread, and the caller's are not for the trial.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(agrees, attend, device, dtype, width, heads).result()
        except (RuntimeError, ValueError, TypeError, ImportError, AttributeError):  # no such kernel in this torch
            return False


@lru_cache
def _capability(device: torch.device) -> tuple[int, int] | None:
    return torch.cuda.get_device_capability(device) if torch.version.hip is None else None
