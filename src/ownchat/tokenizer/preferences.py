"""Preference records as tokens: what stands before a judged reply is context, and only the reply is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from ownchat.artifacts import SPLITS
from ownchat.data.ledger import Ledger
from ownchat.data.records import Record, place, shards
from ownchat.errors import DataError
from ownchat.tokenizer.render import Rendered, render
from ownchat.tokenizer.store import TokenWriter

STORE = "prefer"  # the folder of 4-tokens that holds the three splits of preferences


@dataclass(frozen=True)
class Reply:
    """A reply after its conversation: ``chosen``, ``rejected``, or ``judged`` alone."""

    name: str
    desirable: bool
    rendered: Rendered


def replies(tokenizer: PreTrainedTokenizerBase, record: Record) -> list[Reply]:
    """Both answers of a pair, the chosen one first, or the last answer of a conversation that was judged.

    Assistant messages before have weight 0. Raises :class:`~ownchat.errors.DataError`, with file and line, for what
    the template refuses.
    """
    messages = record["messages"] or []
    if record["desirable"] is None:
        sides = [("chosen", True, messages, record["chosen"]), ("rejected", False, messages, record["rejected"])]
    else:
        sides = [("judged", record["desirable"], messages[:-1], messages[-1:])]
    try:
        tools = json.loads(record["tools"]) if record["tools"] else None
        return [
            Reply(name, desirable, render(tokenizer, [*({**turn, "weight": 0} for turn in before), *answer], tools))
            for name, desirable, before, answer in sides
        ]
    except DataError as error:
        raise DataError(error.what, where=place(record), fix=error.fix) from error


def are_all_pairs(clean: Path) -> bool | None:
    """Is every preference of 2-clean a pair? None: there is no preference."""
    found = False
    for split in SPLITS:
        for shard in shards(clean / split):
            table = pq.read_table(shard, columns=["kind", "desirable"])
            mine = pc.equal(table["kind"], "preference")
            found = found or bool(pc.any(mine).as_py())
            if pc.any(pc.and_(mine, pc.is_valid(table["desirable"]))).as_py():
                return False
    return True if found else None


def tokenize_preference(
    tokenizer: PreTrainedTokenizerBase, record: Record, limit: int, writer: TokenWriter, ledger: Ledger
) -> None:
    """Write a preference to the store, or into the ledger why not.

    One of more than ``limit`` tokens is dropped: an answer cannot be cut from its question.
    """
    ledger.enter("row")
    try:
        made = replies(tokenizer, record)
    except DataError as error:
        ledger.fate("row", record["id"], "dropped", "not renderable", parents=[record["id"]], detail=str(error))
        return
    ids = [f"{record['id']}/{reply.name}" for reply in made]
    ledger.enter("token", sum(len(reply.rendered.ids) for reply in made))
    longest = max(len(reply.rendered.ids) for reply in made)
    if rule := _why_not(made, longest > limit):
        detail = f"{longest:,} tokens, at most {limit:,}" if rule == "too long" else ""
        ledger.fate("row", record["id"], "dropped", rule, parents=[record["id"]], detail=detail)
        for id, reply in zip(ids, made, strict=True):
            ledger.fate("token", id, "dropped", rule, count=len(reply.rendered.ids), parents=[record["id"]])
        return
    ledger.fate("row", record["id"], "kept", "preference", parents=[record["id"]])
    for number, (id, reply) in enumerate(zip(ids, made, strict=True)):
        trained = sum(reply.rendered.weights)
        writer.add(
            reply.rendered.ids, reply.rendered.weights, id=id, record=record["id"], source=place(record), piece=number,
            group=record["group"], kind="preference", desirable=reply.desirable,
        )  # fmt: skip
        ledger.fate("token", id, "kept", "trained", count=trained, parents=[record["id"]])
        ledger.fate("token", id, "kept", "context", count=len(reply.rendered.ids) - trained, parents=[record["id"]])


def _why_not(made: list[Reply], too_long: bool) -> str:
    if too_long:
        return "too long"
    return "both replies are the same tokens" if len(made) == 2 and made[0].rendered == made[1].rendered else ""
