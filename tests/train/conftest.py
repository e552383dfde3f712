"""A small training on real stages: forty questions and answers, the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownchat.clean import stage as clean
from ownchat.config import load_config
from ownchat.data import stage as data
from ownchat.tokenizer import stage as tokenizer
from ownchat.tokenizer.tokens import run_tokens

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]


@pytest.fixture(scope="session")
def inputs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``tokens``, ``tokenizer`` and ``base`` for ownchat.train.stage.run."""
    root = tmp_path_factory.mktemp("training")
    rows = [
        [{"role": "user", "content": f"What about {thing} number {n}?"},
         {"role": "assistant", "content": f"The {thing} {n} is fine, thank you for asking about the {thing}."}]
        for thing in THINGS for n in range(4)
    ]  # fmt: skip
    (root / "faq.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    config, _ = load_config()
    data.run(config, {"source": root / "faq.jsonl"}, root / "1-data")
    clean.run(config, {"data": root / "1-data"}, root / "2-clean")
    tokenizer.run_tokenizer(config, {"base": tiny_model}, root / "3-tokenizer")
    run_tokens(config, {"clean": root / "2-clean", "tokenizer": root / "3-tokenizer"}, root / "4-tokens")
    return {"tokens": root / "4-tokens", "tokenizer": root / "3-tokenizer", "base": tiny_model}
