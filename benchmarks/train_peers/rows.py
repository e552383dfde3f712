"""The rows that every side trains on, and what they are scored on afterwards: real text, always the same.

``sgd``        two-sided service conversations (Schema-Guided Dialogue), about 250 tokens each
``faq``        the demo's questions and answers with its system message, short
``documents``  running text in pieces of 2,048 tokens
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]  # messages | prompt and completion | text
Splits = dict[str, list[Row]]  # train; valid, for stopping; test, for the held-out loss

IGNORED = -100  # the label of a token that is not trained
ROLES = {"USER": "user", "SYSTEM": "assistant"}
PIECE_TOKENS = 2048
SIZES = {"sgd": (512, 32, 64), "faq": (160, 40, 100), "documents": (128, 8, 16)}  # rows of train, valid, test


def load(data: str, datasets: Path, tokenizer: Any) -> Splits:
    """``tokenizer`` only says where pieces of documents end. Raises FileNotFoundError when the data is not there."""
    if data == "faq":
        return faq()
    folder = datasets / {"sgd": "sgd", "documents": "plain_text"}[data]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no {folder}; set OWNCHAT_DATASETS, or choose --data faq")
    return sgd(folder) if data == "sgd" else documents(folder, tokenizer)


def sgd(folder: Path) -> Splits:
    """The first conversations of train; the ones after them; and dev's, evenly spread over its services."""
    train, valid, test = SIZES["sgd"]
    rows = [row for _, row in zip(range(train + valid), _dialogues(folder / "train"), strict=False)]
    dev = list(_dialogues(folder / "dev"))
    return {"train": rows[:train], "valid": rows[train:], "test": dev[:: max(1, len(dev) // test)][:test]}


def _dialogues(folder: Path) -> Iterator[Row]:
    for path in sorted(folder.glob("dialogues_*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as handle:
            for dialogue in json.load(handle):
                turns = [{"role": ROLES[turn["speaker"]], "content": turn["utterance"]} for turn in dialogue["turns"]]
                yield {"messages": turns}


def faq() -> Splits:
    """The demo's first questions; the next ones; its last ones."""
    from ownchat.pipeline.demo import SYSTEM, demo_folder

    with open(demo_folder() / "faq.csv", encoding="utf-8", newline="") as handle:
        table = list(csv.DictReader(handle))
    rows = [
        {
            "prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["q"]}],
            "completion": [{"role": "assistant", "content": row["a"]}],
        }
        for row in table
    ]
    train, valid, test = SIZES["faq"]
    return {"train": rows[:train], "valid": rows[train : train + valid], "test": rows[-test:]}


def documents(folder: Path, tokenizer: Any) -> Splits:
    """Encyclopaedia and web text, each file or page cut where a word begins, so that pieces encode as they did."""
    texts = [(folder / "wiki_demo.txt").read_text(encoding="utf-8")]
    lines = (folder / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    texts.append("\n\n".join(json.loads(line)["text"] for line in lines))
    rows = [{"text": piece} for text in texts for piece in pieces(tokenizer, text, PIECE_TOKENS - 2)]
    train, valid, test = SIZES["documents"]
    spread = rows[::2] + rows[1::2]  # every split holds both kinds of text
    return {
        "train": spread[:train],
        "valid": spread[train : train + valid],
        "test": spread[train + valid : train + valid + test],
    }


def pieces(tokenizer: Any, text: str, limit: int) -> Iterator[str]:
    """A text in pieces of at most ``limit`` tokens that begin with a space, end to end; a short last one is left."""
    starts = [start for start, _ in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]
    first = 0
    while first + limit < len(starts):
        after = first + limit
        while text[starts[after]] != " ":
            after -= 1
        yield text[starts[first] : starts[after]]
        first = after


def messages(row: Row) -> list[dict[str, str]]:
    return row["messages"] if "messages" in row else row["prompt"] + row["completion"]


def encode(tokenizer: Any, row: Row) -> tuple[list[int], list[int]]:
    """(ids, weights): the product's own rendering; peers that take tokens get the same ones."""
    from ownchat.tokenizer.render import render, render_document

    rendered = render_document(tokenizer, row["text"]) if "text" in row else render(tokenizer, messages(row))
    return rendered.ids, rendered.weights


def write(directory: Path, splits: Splits, tokenizer: Any) -> dict[str, Any]:
    """``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, each row with its ``ids`` and ``labels``; what train holds.

    One file for all sides, also for one whose environment lacks this project.
    """
    directory.mkdir(parents=True, exist_ok=True)
    counted = {"rows": 0, "tokens": 0, "trained_tokens": 0}
    for split, rows in splits.items():
        with open(directory / f"{split}.jsonl", "w", encoding="utf-8") as handle:
            for row in rows:
                ids, weights = encode(tokenizer, row)
                labels = [id if weight else IGNORED for id, weight in zip(ids, weights, strict=True)]
                handle.write(json.dumps(row | {"ids": ids, "labels": labels}) + "\n")
                if split == "train":
                    counted["rows"] += 1
                    counted["tokens"] += len(ids)
                    counted["trained_tokens"] += sum(weights)
    return counted


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
