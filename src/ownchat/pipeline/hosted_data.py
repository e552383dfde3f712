"""What would leave this machine: the train and the valid split as files in OpenAI's chat format, and what is in them.

The files hold what cleaning left, private data masked as the settings say. Names of speakers, times, sources and groups
are not sent. Its ledger: every row of the two splits is kept, or dropped with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ownchat import artifacts
from ownchat.artifacts import CLEAN, HOSTED, TRAIN
from ownchat.data.records import Record, read_records
from ownchat.errors import DataError

Method = Literal["supervised", "dpo"]

FILES = {"train": "training.jsonl", "valid": "validation.jsonl"}
LEAST = 10  # examples, fewer are refused
BYTES_PER_TOKEN = 4.0  # of English text, about; where no tokenizer is at hand
FRAME_TOKENS = 4  # of a message: its role and its ends
AT_ONCE = 1_000  # examples that are counted together
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Part:
    """A file that would leave."""

    path: Path
    examples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Prepared:
    """``tokens`` of the training file, as ``counted`` says; ``left_out``: rows by the reason why they are not sent."""

    method: Method
    training: Part
    validation: Part | None
    tokens: int
    counted: str
    left_out: dict[str, int]


class _LeftOut(Exception):
    """Why a record is not sent."""


def prepare(run: Path, *, bom: bool = False) -> Prepared:
    """Write both files; the same records give the same bytes.

    Pairs of a better and a worse reply are sent where there is no conversation, since a job learns from one kind.
    ``bom``: the files begin with a byte order mark. Raises :class:`~ownchat.errors.DataError` for fewer examples than a
    service takes.
    """
    from ownchat.data.ledger import Ledger
    from ownchat.evaluate.preferences import is_pair
    from ownchat.evaluate.replies import is_trained

    def has_reply(row: Record) -> bool:
        return row["kind"] == "conversation" and any(map(is_trained, row["messages"]))

    train = run / CLEAN / "train"
    talks = any(map(has_reply, read_records(train)))
    method: Method = "supervised" if talks or not any(map(is_pair, read_records(train))) else "dpo"
    folder = run / TRAIN / HOSTED
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Part] = {}
    left_out: Counter[str] = Counter()
    with Ledger(folder) as ledger:
        for split, name in FILES.items():
            with artifacts.replacing(folder / name) as aside, open(aside, "wb") as file:
                count, total, digest = 0, 0, hashlib.sha256()
                for row in read_records(run / CLEAN / split):
                    ledger.enter("row")
                    try:
                        line = _line(row, method)
                    except _LeftOut as reason:
                        left_out[str(reason)] += 1
                        ledger.fate("row", row["id"], "dropped", str(reason))
                        continue
                    ledger.fate("row", row["id"], "kept", name)
                    line = BOM + line if bom and not count else line
                    file.write(line)
                    digest.update(line)
                    count, total = count + 1, total + len(line)
            parts[split] = Part(folder / name, count, total, digest.hexdigest())
    if (found := parts["train"].examples) < LEAST:
        why = "".join(f"; {count:,} left out: {reason}" for reason, count in left_out.most_common(3))
        raise DataError(
            f"{found} example{'' if found == 1 else 's'} to learn from, and a service wants {LEAST} at least{why}",
            where=str(folder / FILES["train"]), fix="import more conversations",
        )  # fmt: skip
    tokens, counted = _tokens(folder / FILES["train"])
    return Prepared(
        method, parts["train"], parts["valid"] if parts["valid"].examples else None, tokens, counted, dict(left_out)
    )


def is_sent(row: Record, method: Method) -> bool:
    """Is a row of the train split among what a job of this method gets?"""
    try:
        _line(row, method)
    except _LeftOut:
        return False
    return True


# ------------------------------------------------------------------------------------------------------- a line


def _line(row: Record, method: Method) -> bytes:
    example = _conversation(row) if method == "supervised" else _pair(row)
    text = json.dumps(example, ensure_ascii=False)
    if _control(text):
        raise _LeftOut("holds a control token")  # the service would refuse the whole file
    return text.encode("utf-8", "replace") + b"\n"


def _control(text: str) -> bool:
    from ownchat.serve.training_file import CONTROL

    return CONTROL.search(text) is not None


def _conversation(row: Record) -> dict[str, Any]:
    from ownchat.evaluate.replies import is_trained

    if row["kind"] != "conversation":
        raise _LeftOut(f"a {row['kind']}, and the service learns conversations")
    turns = list(row["messages"])
    while turns and not is_trained(turns[-1]):  # nothing is learned of it
        turns.pop()
    messages = [_message(turn, weighted=True) for turn in turns]
    if not any(turn["role"] == "assistant" and turn.get("weight") != 0 for turn in messages):
        raise _LeftOut("has no reply to learn")
    return {"messages": messages} | _tools(row)


def _pair(row: Record) -> dict[str, Any]:
    from ownchat.evaluate.preferences import is_pair

    if not is_pair(row):
        raise _LeftOut("has no second reply to compare with")
    before, *replies = ([_message(turn) for turn in row[name] or ()] for name in ("messages", "chosen", "rejected"))
    if not before or any(len(reply) != 1 or not reply[0].get("content") for reply in replies):
        raise _LeftOut("is no pair of single replies to a message")
    return {
        "input": {"messages": before} | _tools(row),
        "preferred_output": replies[0],
        "non_preferred_output": replies[1],
    }


def _message(turn: dict[str, Any], *, weighted: bool = False) -> dict[str, Any]:
    """Role and content; calls of tools and what answers them; a weight where a reply is not learned."""
    sent: dict[str, Any] = {"role": turn["role"], "content": turn["content"] or ""}
    if calls := turn.get("tool_calls"):
        sent["tool_calls"] = json.loads(calls)
    if turn.get("tool_call_id"):
        sent["tool_call_id"] = turn["tool_call_id"]
    empty = not sent["content"].strip() and "tool_calls" not in sent
    if weighted and turn["role"] == "assistant" and (turn.get("weight") == 0 or empty):
        sent["weight"] = 0
    return sent


def _tools(row: Record) -> dict[str, Any]:
    return {"tools": json.loads(row["tools"])} if row["tools"] else {}


# ------------------------------------------------------------------------------------------------------- tokens


def _tokens(file: Path) -> tuple[int, str]:
    """About how many a service counts in the file, and how that was counted: its own tokenizer is not at hand."""
    from ownchat.model import starter

    path = artifacts.home() / "models" / starter.NAME / "tokenizer.json"
    if not path.is_file():
        frame = sum(FRAME_TOKENS * len(texts) for texts in _texts(file))
        letters = sum(len(text.encode()) for texts in _texts(file) for text in texts)
        return round(letters / BYTES_PER_TOKEN) + frame, f"estimated: {BYTES_PER_TOKEN:.0f} bytes a token"
    from tokenizers import Tokenizer

    tokenizer, total = Tokenizer.from_file(str(path)), 0
    held: list[list[str]] = []

    def count() -> int:
        made = tokenizer.encode_batch_fast([text for texts in held for text in texts], add_special_tokens=False)
        return sum(len(found.ids) + FRAME_TOKENS for found in made)

    for texts in _texts(file):
        held.append(texts)
        if len(held) == AT_ONCE:
            total += count()
            held.clear()
    return total + count(), "estimated with the starter's tokenizer"


def _texts(file: Path) -> Iterator[list[str]]:
    """The texts of each example, with the calls of tools and their descriptions."""
    with open(file, encoding="utf-8-sig") as lines:
        for line in lines:
            row = json.loads(line)
            told = row.get("input", row)
            turns = [*told["messages"], *row.get("preferred_output", ()), *row.get("non_preferred_output", ())]
            texts = [turn["content"] + json.dumps(turn.get("tool_calls", "")).strip('"') for turn in turns]
            yield texts + ([json.dumps(told["tools"])] if "tools" in told else [])
