"""The records of the test split as tokens and weights, under each prompt that the base may have, and as windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ownchat.data.records import Record
from ownchat.errors import DataError

Document = tuple[list[int], list[int]]  # ids, weights
Prompt = Literal["default", "system"]


def rendered(tokenizer: Any, item: Record) -> Document:
    """Ids and weights of a record, exactly as in training."""
    from ownchat.tokenizer.tokens import render_record

    made = render_record(tokenizer, item)
    return list(made.ids), list(made.weights)


def renderable(tokenizer: Any, items: Sequence[Record]) -> tuple[list[Record], list[Document], int]:
    """The records that the template takes, their tokens, and how many it refused (the tokens stage dropped those)."""
    taken: list[Record] = []
    documents: list[Document] = []
    for item in items:
        try:
            documents.append(rendered(tokenizer, item))
            taken.append(item)
        except DataError:
            continue
    return taken, documents, len(items) - len(taken)


def has_system(item: Record) -> bool:
    return item["kind"] == "conversation" and item["messages"][0]["role"] == "system"


def without_system(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation without the system message at its start: the template then puts its own, if it has one."""
    return list(messages[1:] if messages[0]["role"] == "system" else messages)


def base_prompts(
    tokenizer: Any, items: Sequence[Record], documents: Sequence[Document]
) -> dict[Prompt, Sequence[Document]]:
    """The records under every prompt that the base may have: its default one, and the system message of the data.

    Only the first when no record has a system message; only the second when the template renders the replies
    differently without one, since losses on other tokens do not compare.
    """
    if not any(map(has_system, items)):
        return {"default": documents}
    bare = [item | {"messages": without_system(item["messages"])} if has_system(item) else item for item in items]
    default = [rendered(tokenizer, item) for item in bare]
    if list(map(trained_ids, default)) != list(map(trained_ids, documents)):
        return {"system": documents}
    return {"default": default, "system": documents}


def trained_ids(document: Document) -> list[int]:
    """The tokens that count.

    >>> trained_ids(([5, 6, 7], [0, 1, 1]))
    [6, 7]
    """
    return [id for id, weight in zip(*document, strict=True) if weight]


def windows(document: Document, limit: int) -> list[Document]:
    """Pieces of at most ``limit`` tokens in which every trained token stands once with weight 1.

    Each piece but the first starts with half a window that was scored before and now only gives context.

    >>> windows(([1, 2, 3, 4, 5, 6, 7], [1] * 7), 4)
    [([1, 2, 3, 4], [1, 1, 1, 1]), ([3, 4, 5, 6], [0, 0, 1, 1]), ([5, 6, 7], [0, 0, 1])]
    """
    ids, weights = document
    pieces = [(ids[:limit], weights[:limit])]
    context = limit // 2
    for start in range(limit, len(ids), limit - context):
        stop = start + limit - context
        pieces.append((ids[start - context : stop], [0] * context + weights[start:stop]))
    return pieces
