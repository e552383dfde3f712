"""A small training: conversations of the tiny model's own sentences, as tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownchat.config import load_config
from ownchat.data.records import ShardWriter, batched, message, record
from ownchat.tokenizer import stage as tokenizer
from ownchat.tokenizer.tokens import run_tokens

THINGS = ("valve", "pump", "parcel", "invoice", "address", "order", "refund", "window")


@pytest.fixture(scope="session")
def inputs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``tokens``, ``tokenizer`` and ``base`` for ownchat.train.stage.run; 32 conversations to train on."""
    root = tmp_path_factory.mktemp("parity")
    rows = [
        record(
            "conversation", file="faq.jsonl", format="jsonl", line=line,
            messages=[
                message("user", f"What about {THINGS[line % 8]} number {line}?"),
                message("assistant", f"The {THINGS[line % 8]} {line} is fine, thank you for asking."),
            ],
        )
        for line in range(1, 41)
    ]  # fmt: skip
    for split, some in (("train", rows[:32]), ("valid", rows[32:36]), ("test", rows[36:])):
        with ShardWriter(root / "2-clean" / split) as writer:
            for batch in batched(some):
                writer.write(batch)
    config, _ = load_config()
    tokenizer.run_tokenizer(config, {"base": tiny_model}, root / "3-tokenizer")
    run_tokens(config, {"clean": root / "2-clean", "tokenizer": root / "3-tokenizer"}, root / "4-tokens")
    return {"tokens": root / "4-tokens", "tokenizer": root / "3-tokenizer", "base": tiny_model}
