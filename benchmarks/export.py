"""Exported files beside the model: size, difference in log-probability, speed.

Run it alone on the machine: ``python benchmarks/export.py`` (``--model DIR`` for another model than the starter,
``--types f16,q8_0,q4_1``, ``--prompts 50``). The prompts are questions that customers asked a bank (banking77,
from ``OWNCHAT_DATASETS``); each file answers them greedily in llama.cpp, and the model in memory (transformers,
float32) says how likely it finds the same tokens. Differences are in nats over all tokens of the answers, the end token
included. No tolerance is applied: what the tolerances are set by is measured here.

Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from ownchat.evaluate.report import conditions
from ownchat.generate.exports import gguf_file, parity
from ownchat.generate.exports.llamacpp import LlamaCpp
from ownchat.generate.exports.parity import Tolerance
from ownchat.generate.exports.vocabulary import read_vocabulary
from ownchat.generate.exports.weights import Weights
from ownchat.model.load import load_model, load_tokenizer, resolve_base
from ownchat.pipeline.export import TEXTS

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[2] / "shared" / "datasets"))
ANY = Tolerance(largest=1e9, mean=1e9)


def questions(count: int) -> list[str]:
    """Every n-th question of the file, so that all kinds are there: it is sorted by kind."""
    with open(DATASETS / "banking77" / "train.csv", newline="", encoding="utf-8") as handle:
        texts = [row["text"].strip() for row in csv.DictReader(handle)]
    return texts[:: max(1, len(texts) // count)][:count]


def measure(model: Path, kind: gguf_file.GgufType, asked: list[str], threads: int, folder: Path) -> dict[str, float]:
    """One row of the table."""
    started = time.perf_counter()
    file = gguf_file.write_gguf(model, folder / f"{kind}.gguf", kind)
    seconds = time.perf_counter() - started
    conversations = [[{"role": "user", "content": text}] for text in asked]
    pieces = read_vocabulary(model, Weights(model).rows).pieces()
    with LlamaCpp(file, pieces, context=1024, threads=threads) as engine:
        found = parity.compare(
            engine, load_model(model), load_tokenizer(model), conversations, ANY, texts=TEXTS, what=kind
        )
    return {"megabytes": file.stat().st_size / 1e6, "seconds_to_write": seconds, **asdict(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter", help="starter, a run, or a directory")
    parser.add_argument("--types", default="f16,q8_0,q4_1")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    model, asked = resolve_base(given.model), questions(given.prompts)
    rows: dict[str, dict[str, float]] = {}
    print(
        f"{'type':>7} {'MB':>7} {'write s':>8} {'tokens':>7} {'largest':>8} {'mean':>8} {'near-ties':>9} {'equal':>7}"
        f" {'tokens/s':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.types.split(","):
            row = rows[kind] = measure(model, kind, asked, given.threads, Path(folder))
            print(
                f"{kind:>7} {row['megabytes']:>7.1f} {row['seconds_to_write']:>8.1f} {row['tokens']:>7} "
                f"{row['largest']:>8.4f} {row['mean']:>8.5f} {row['near_ties']:>9} {row['equal_texts']:>3}/"
                f"{row['prompts']:<3} {row['tokens_per_second']:>8.1f}",
                flush=True,
            )  # fmt: skip
    print(json.dumps({"benchmark": "export", "model": given.model, "rows": rows, "conditions": conditions()}))


if __name__ == "__main__":
    main()
