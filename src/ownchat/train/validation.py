"""What is scored while training: all of the valid split, or an even sample when that is large."""

from __future__ import annotations

from ownchat.model.block import Document
from ownchat.tokenizer.store import Item, TokenStore
from ownchat.train.loop import Plan
from ownchat.train.objectives import documents_of

MAX_SHARE = 0.25  # of the tokens trained between two validations: more would cost more than it tells
MIN_TOKENS = 20_000


def validation_budget(train_tokens: int, plan: Plan) -> float:
    """Tokens that one validation may score."""
    return max(MIN_TOKENS, MAX_SHARE * train_tokens * plan.validate_every / plan.steps_per_epoch)


def validation_items(valid: TokenStore, budget: float) -> list[Item]:
    """The same items at every validation, so that their losses can be compared."""
    every = max(1, round(valid.num_tokens / budget))
    return [valid.item(number) for number in range(0, len(valid.item_lengths), every)]


def validation_documents(valid: TokenStore, budget: float) -> list[Document]:
    """The documents of :func:`validation_items`."""
    return documents_of(validation_items(valid, budget))
