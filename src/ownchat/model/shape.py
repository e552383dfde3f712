"""From a number of weights to layers, width and heads.

Within a wide range the loss depends on the number of weights and hardly on the shape (Kaplan et al. 2020,
arXiv:2001.08361, figure 5), so the shape is one that machines like: a width of whole multiples of 64, about 64 for each
layer. Narrow models gain from more layers (Levine et al. 2020, arXiv:2006.12467).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ownchat.errors import ConfigError
from ownchat.model.create import Architecture, Size

STEP = 64  # widths (below 256 also half of it), and widths of the feed-forward part
ASPECT, NARROW_ASPECT = 64, 40  # width for each layer; of narrow models, which lose more by few layers
FEWEST_LAYERS = 2
NARROW, WIDE = 256, 2048  # below: heads of 32; from there on: heads of 128; else of 64
OFF = 0.10  # of the weights asked for: no longer this size, and as bad as twice as many layers as is usual
MANY = 10**9  # weights, from which several heads share keys and values
UNTIED = 4 * 10**9  # weights, above which embedding and head are two matrices, as in Qwen3
MOST_WIDTH = 32_768


def size_of(weights: int, *, architecture: Architecture, vocab: int, context: int, shape: Mapping[str, int]) -> Size:
    """The size nearest to ``weights``, embeddings included; ``shape``: parts that are given (``model.shape``).

    Raises :class:`~ownchat.errors.ConfigError` when nothing within 10 % can be made, and for parts that do not go
    together.
    """
    tied = architecture == "gpt2" or weights <= UNTIED
    found = list(_candidates(weights, architecture, vocab, context, tied, shape))
    if not found:
        raise _impossible(weights, architecture, vocab, context, shape)

    return min(found, key=lambda size: abs(size.parameters / weights - 1) / OFF + _unusual(size))


def given_size(*, architecture: Architecture, vocab: int, context: int, shape: Mapping[str, int]) -> Size:
    """The size of a shape whose layers and width are given."""
    width, heads = shape["width"], _heads(shape["width"], shape)
    size = Size(
        architecture, shape["layers"], width, heads, shape.get("kv_heads", heads),
        shape.get("inner", _inner(width, architecture)), vocab, context,
    )  # fmt: skip
    return check(size)


def smallest(*, architecture: Architecture, vocab: int, context: int) -> Size:
    """The least that is made without a shape being given."""
    shape = {"layers": FEWEST_LAYERS, "width": STEP}
    return given_size(architecture=architecture, vocab=vocab, context=context, shape=shape)


def check(size: Size) -> Size:
    """The size itself; raises :class:`~ownchat.errors.ConfigError` for parts that do not go together."""
    if (problem := _problem(size)) is not None:
        raise ConfigError(problem, where="model.shape", fix="choose a width that is heads x 32, 64 or 128")
    return size


def _problem(size: Size) -> str | None:
    if min(size.layers, size.width, size.heads, size.kv_heads, size.inner) < 1:
        return "every part must be at least 1"
    if size.width % size.heads:
        return f"a width of {size.width:,} cannot be shared by {size.heads} heads"
    if size.architecture != "gpt2" and size.head_width % 2:
        return f"heads of {size.head_width}: rotary positions need an even width"
    if size.heads % size.kv_heads:
        return f"{size.heads} heads cannot share {size.kv_heads} heads of keys and values"
    if size.architecture == "gpt2" and size.kv_heads != size.heads:
        return "in GPT-2 every head has its own keys and values"
    return None


def _candidates(
    weights: int, architecture: Architecture, vocab: int, context: int, tied: bool, shape: Mapping[str, int]
) -> Iterator[Size]:
    """Everything within 10 % of the weights asked for."""
    widest = min(MOST_WIDTH, int((1 + OFF) * weights / vocab))
    widths = (*range(STEP, NARROW, STEP // 2), *range(NARROW, widest + 1, STEP))
    for width in [shape["width"]] if "width" in shape else widths:
        heads = _heads(width, shape)
        shared = _kv_heads(heads) if architecture != "gpt2" and weights >= MANY else heads
        usual = _inner(width, architecture)
        near = {usual, *((usual - STEP, usual + STEP) if width < NARROW and architecture != "gpt2" else ())}
        for inner in [shape["inner"]] if "inner" in shape else sorted(near - {0}):
            one = Size(architecture, 1, width, heads, shape.get("kv_heads", shared), inner, vocab, context, tied)
            if _problem(one) is not None:
                continue
            layer = replace(one, layers=2).parameters - one.parameters
            rest = one.parameters - layer
            nearest = round((weights - rest) / layer)
            counts = [shape["layers"]] if "layers" in shape else range(max(FEWEST_LAYERS, nearest - 1), nearest + 2)
            for layers in counts:
                size = replace(one, layers=layers)
                if layers >= 1 and abs(size.parameters / weights - 1) <= OFF:
                    yield size


def _unusual(size: Size) -> float:
    """How far the shape is from :data:`ASPECT`: 1 at twice as wide, or as deep."""
    usual = NARROW_ASPECT if size.width < NARROW else ASPECT
    return abs(math.log2(size.width / size.layers / usual))


def _heads(width: int, shape: Mapping[str, int]) -> int:
    if "heads" in shape:
        return shape["heads"]
    wanted = 32 if width < NARROW else 64 if width < WIDE else 128
    return next((width // each for each in (wanted, 64, 32, 16, 8, 4, 2) if width % each == 0), 1)


def _kv_heads(heads: int) -> int:
    """A quarter, where it is a whole number (Ainslie et al. 2023, arXiv:2305.13245)."""
    return heads // 4 if heads % 4 == 0 else heads


def _inner(width: int, architecture: Architecture) -> int:
    """Four widths; with a gate, which is a third matrix, 8/3 of it (Shazeer 2020, arXiv:2002.05202)."""
    return 4 * width if architecture == "gpt2" else max(STEP, STEP * round(8 * width / 3 / STEP))


def _impossible(
    weights: int, architecture: Architecture, vocab: int, context: int, shape: Mapping[str, int]
) -> ConfigError:
    where = "model.size"
    if shape:
        if {"layers", "width"} <= shape.keys():
            makes = given_size(architecture=architecture, vocab=vocab, context=context, shape=shape).parameters
            what = f"model.shape makes {words(makes)} weights, and {words(weights)} are asked for"
            return ConfigError(what, where=where, fix="leave one of the two out")
        return ConfigError(
            f"no model of {words(weights)} weights has this shape", where="model.shape", fix="give less of the shape"
        )
    least = smallest(architecture=architecture, vocab=vocab, context=context)
    if weights < least.parameters:
        return ConfigError(
            f"{words(weights)} weights: with a vocabulary of {vocab:,} tokens the smallest model has "
            f"{words(least.parameters)}",
            where=where,
            fix=f"--size {words(least.parameters)} or more, or a smaller vocabulary (tokenizer.vocab)",
        )
    return ConfigError(f"no model of {words(weights)} weights can be made", where=where, fix="choose another size")


def words(weights: float) -> str:
    """A number of weights as people write it.

    >>> words(124_439_808), words(1_300_000_000), words(200_000), words(1_950_000)
    ('124M', '1.3B', '200k', '1.95M')
    """
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if weights >= unit:
            return f"{weights / unit:.3g}{name}"
    return f"{weights:g}"
