"""What a local engine can be asked: prompts that fit, tokens that exist. The same words from every engine. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from ownchat.errors import UserError
from ownchat.generate.engine import Sampling

NO_LIMIT = 2**31


def room(prompt: Sequence[int], *, vocabulary: int, context: int | None) -> int:
    """Tokens that fit after ``prompt``; raises :class:`~ownchat.errors.UserError` where there are none.

    >>> room([1, 2], vocabulary=10, context=8)
    6
    """
    if not prompt:
        raise UserError("the prompt is empty", where="request")
    if not 0 <= min(prompt) <= max(prompt) < vocabulary:
        raise UserError(f"ids must lie between 0 and {vocabulary - 1}", where="request")
    if context is None:
        return NO_LIMIT
    if len(prompt) >= context:
        raise too_long(len(prompt), context)
    return context - len(prompt)


def check_bias(sampling: Sampling, vocabulary: int) -> None:
    """Raise :class:`~ownchat.errors.UserError` for a ``logit_bias`` of a token that there is not."""
    if out := [id for id in sampling.logit_bias if not 0 <= id < vocabulary]:
        raise UserError(f"there is no token {out[0]}", where="logit_bias", fix=f"ids go up to {vocabulary - 1}")


def check_score(ids: Sequence[int], mask: Sequence[int], *, context: int | None) -> None:
    """Raise :class:`~ownchat.errors.UserError` for what has no probabilities.

    The first token (nothing precedes it), lists of two lengths, and a text longer than the context.
    """
    if len(ids) != len(mask):
        raise UserError(f"{len(ids)} ids and {len(mask)} mask values", where="score")
    if any(mask[:1]):
        raise UserError("the first token has nothing before it and no probability", where="score")
    if context is not None and len(ids) > context:
        raise too_long(len(ids), context)


def too_long(num_tokens: int, context: int) -> UserError:
    """For a prompt, or a text, that does not fit."""
    return UserError(
        f"{num_tokens:,} tokens do not fit: the model's context is {context:,} tokens, the answer's included",
        where="prompt",
        fix="shorten the text, or start a new conversation",
    )
