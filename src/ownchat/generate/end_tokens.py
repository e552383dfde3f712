"""Which tokens end an answer: what the template writes after one, and what the model's own files say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ownchat.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def end_token_ids(tokenizer: PreTrainedTokenizerBase, model: Any) -> list[int]:
    """All end tokens, the most telling first: the template's, the generation configuration's, the tokenizer's.

    A tokenizer without a chat template, or whose template ends a turn with plain text, adds none of its own.
    """
    sources = (
        _of_template(tokenizer),
        getattr(model.generation_config, "eos_token_id", None),
        model.config.get_text_config().eos_token_id,
        tokenizer.eos_token_id,
    )
    return list(dict.fromkeys(id for source in sources for id in _flat(source)))


def _of_template(tokenizer: PreTrainedTokenizerBase) -> int | None:
    from ownchat.tokenizer.render import end_of_turn

    try:
        return end_of_turn(tokenizer)
    except UserError:  # such a model cannot be trained as it is, but it can be talked to
        return None


def _flat(source: int | Iterable[int] | None) -> list[int]:
    if source is None:
        return []
    return [source] if isinstance(source, int) else list(source)
