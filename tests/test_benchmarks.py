"""The training benchmark's rows, arithmetic and table: what a figure of it is made of. No peer runs here."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "train", raising=False)
    return importlib.import_module("train")


@pytest.fixture
def rows(benchmark: ModuleType) -> ModuleType:
    return importlib.import_module("train_peers.rows")


def dialogue(number: int) -> dict[str, object]:
    said = [("USER", f"Is table {number} free?"), ("SYSTEM", f"Table {number} is free.")]
    return {"turns": [{"speaker": speaker, "utterance": text} for speaker, text in said]}


def test_conversations_are_the_first_ones_and_dev_is_spread_evenly(rows: ModuleType, tmp_path: Path) -> None:
    for part, files in {"train": 7, "dev": 2}.items():
        (tmp_path / part).mkdir()
        for file in range(files):
            with gzip.open(tmp_path / part / f"dialogues_{file:03}.json.gz", "wt") as handle:
                json.dump([dialogue(100 * file + number) for number in range(100)], handle)
    (tmp_path / "train" / "schema.json").write_text("{}")
    splits = rows.sgd(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 512, "valid": 32, "test": 64}
    assert splits["train"][511]["messages"] == [
        {"role": "user", "content": "Is table 511 free?"},
        {"role": "assistant", "content": "Table 511 is free."},
    ]
    assert splits["valid"][0]["messages"][0]["content"] == "Is table 512 free?"
    assert splits["test"][63]["messages"][0]["content"] == f"Is table {63 * 3} free?"


def test_pieces_lie_end_to_end_and_encode_as_they_did(rows: ModuleType, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    text = " ".join(f"The parcel {number} has left our warehouse." for number in range(60))
    pieces = list(rows.pieces(tokenizer, text, 50))
    assert text.startswith("".join(pieces)) and len(pieces) > 5
    whole = tokenizer(text)["input_ids"]
    parts = [tokenizer(piece)["input_ids"] for piece in pieces]
    assert [id for part in parts for id in part] == whole[: sum(map(len, parts))]
    assert all(40 < len(part) <= 50 for part in parts)


def test_written_rows_carry_labels_of_the_replies_only(rows: ModuleType, tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    talk = {"prompt": [{"role": "user", "content": "Hi."}], "completion": [{"role": "assistant", "content": "Hello!"}]}
    counted = rows.write(tmp_path, {"train": [talk, {"text": "A pump."}]}, tokenizer)
    answer, document = rows.read(tmp_path / "train.jsonl")
    trained = [label for label in answer["labels"] if label != rows.IGNORED]
    assert tokenizer.decode(trained) == "Hello!<|im_end|>"
    assert document["labels"] == [rows.IGNORED, *document["ids"][1:]]
    assert counted["tokens"] == len(answer["ids"]) + len(document["ids"])
    assert counted["trained_tokens"] == len(trained) + len(document["ids"]) - 1


def test_flops_count_matrices_once_and_the_head_where_it_is_needed(benchmark: ModuleType, tiny_model: Path) -> None:
    counted = benchmark.matrices(tiny_model)
    attention = 64 * 64 + 2 * 64 * 32 + 64 * 64  # q, k and v of two heads, o
    vocabulary = json.loads((tiny_model / "config.json").read_text())["vocab_size"]
    assert counted == {"layers": 2 * (attention + 3 * 64 * 128), "head": vocabulary * 64}
    assert benchmark.flops_per_token("lora", {"layers": 100, "head": 40}, 0.5) == 4 * 120
    assert benchmark.flops_per_token("full", {"layers": 100, "head": 40}, 0.25) == 6 * 110


def test_table_and_ratios(benchmark: ModuleType) -> None:
    side = {"peak_memory_gb": 1.0, "first_step_seconds": 2.0, "share_of_peak": 0.2, "dtype": "bfloat16"}
    results = {
        "ownchat": side | {"tokens_per_second": 600.0},
        "TRL, its defaults": side | {"tokens_per_second": 50.0},
        "LitGPT": {"failed": "no such model"},
    }
    assert benchmark.ratio(results, "trl") == 12.0
    assert benchmark.ratio(results, "litgpt") is None and benchmark.ratio(results, "trl-best") is None
    lines = benchmark.table(results).splitlines()
    assert lines[2].split()[-7:] == ["50", "12.0", "20.0%", "1.00", "2.0", "s", "bfloat16"]
    assert lines[3].endswith("no such model")


def test_settings_are_laid_over_each_other(benchmark: ModuleType) -> None:
    first = {"config": {"bf16": False, "model_init_kwargs": {"dtype": "bfloat16"}}}
    second = {"config": {"model_init_kwargs": {"attn_implementation": "eager"}}, "tokens": True}
    assert benchmark.merged(first, second) == {
        "config": {"bf16": False, "model_init_kwargs": {"dtype": "bfloat16", "attn_implementation": "eager"}},
        "tokens": True,
    }
    assert first == {"config": {"bf16": False, "model_init_kwargs": {"dtype": "bfloat16"}}}
