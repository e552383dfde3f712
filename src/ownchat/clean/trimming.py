"""Stock replies taken out of the records for validation and test, so that they stand in train alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ownchat.clean.shingles import fold, text_keys
from ownchat.data.ledger import Entry
from ownchat.data.records import SCHEMA, Record


def without_replies(batch: pa.RecordBatch, stock: np.ndarray) -> tuple[pa.RecordBatch, list[Entry]]:
    """The records without the assistant's messages whose keys are ``stock``; two messages that then meet are joined.

    A conversation without any other reply, and a preference, which needs all of its answers, is dropped.
    """
    kept: list[Record] = []
    entries: list[Entry] = []
    for row in batch.to_pylist():
        gone = [place for place, turn in enumerate(row["messages"] or ()) if _is_stock(turn, stock)]
        answers = [turn for name in ("chosen", "rejected") for turn in row[name] or ()]
        if not gone and not any(_is_stock(turn, stock) for turn in answers):
            kept.append(row)
            continue
        replies = sum(turn["role"] == "assistant" for turn in row["messages"])
        if row["kind"] != "conversation" or len(gone) == replies:
            entries.append(Entry("row", row["id"], "dropped", "leak", parents=(row["id"],)))
            entries.append(
                Entry("message", row["id"], "dropped", "leak", count=len(row["messages"]), parents=(row["id"],))
            )
            continue
        for place in gone:
            entries.append(Entry("message", f"{row['id']}#{place}", "dropped", "leak", parents=(row["id"],)))
        turns: list[dict[str, object]] = []
        for place, turn in enumerate(row["messages"]):
            if place in gone:
                continue
            if turns and turn["role"] == "user" == turns[-1]["role"]:  # templates want speakers in turn
                turns[-1] = {**turns[-1], "content": f"{turns[-1]['content']}\n{turn['content']}"}
                entries.append(Entry("message", f"{row['id']}#{place}", "merged", "leak", parents=(row["id"],)))
            else:
                turns.append(turn)
        kept.append({**row, "messages": turns})
    return pa.RecordBatch.from_pylist(kept, schema=SCHEMA), entries


def _is_stock(turn: dict[str, str], stock: np.ndarray) -> bool:
    if turn["role"] != "assistant" or not turn["content"]:
        return False
    key = text_keys(fold(pa.array([turn["content"]])))[0]
    place = np.searchsorted(stock, key)
    return bool(place < len(stock) and stock[place] == key)
