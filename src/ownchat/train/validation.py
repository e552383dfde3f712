"""Which documents are scored while training: all of the valid split, or an even sample when that is large."""

from __future__ import annotations

from ownchat.model.block import Document
from ownchat.tokenizer.store import TokenStore
from ownchat.train.loop import Plan

MAX_SHARE = 0.25  # of the tokens trained between two validations: more would cost more than it tells
MIN_TOKENS = 20_000


def validation_budget(train_tokens: int, plan: Plan) -> float:
    """Tokens that one validation may score."""
    return max(MIN_TOKENS, MAX_SHARE * train_tokens * plan.validate_every / plan.steps_per_epoch)


def validation_documents(valid: TokenStore, budget: float) -> list[Document]:
    """The same documents at every validation, so that their losses can be compared."""
    every = max(1, round(valid.num_tokens / budget))
    return [valid[number] for number in range(0, len(valid), every)]
