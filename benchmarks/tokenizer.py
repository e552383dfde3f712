"""Learning a tokenizer beside the tokenizers library alone, and what it gives beside GPT-2's merges.

    OWNCHAT_DATASETS=... python benchmarks/tokenizer.py [--megabytes 100] [--repeats 3] [--only speed|compression]

Speed: ``run_tokenizer`` (read the records, learn, save) and the library's own trainer on the same texts from memory and
from a text file, with the same split pattern and vocabulary, each in a process of its own, in turn; the best of the
repeats counts. The text is the real text of ``$OWNCHAT_DATASETS`` over and over, in each repetition with one word in
eight replaced by another word of it, until there are so many megabytes.

Compression: bytes per token on every tenth text, which was held out, of a tokenizer learned from the others and of
GPT-2's with its first N merges only. Both have N merges, 256 bytes and their control tokens.

Prints tables and, last, one line of JSON. The speed part wants the machine alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS") or Path(__file__).parents[2] / "shared" / "datasets")
MERGES = (8_000, 16_000)
REPLACED = 1 / 8  # of the words, in each repetition


def real_texts() -> dict[str, list[str]]:
    """Texts by what they are: plays, encyclopaedia, web, instructions, service conversations, film reviews."""
    plain = DATASETS / "plain_text"
    found = {
        "plays": paragraphs((plain / "tinyshakespeare.txt").read_text(encoding="utf-8")),
        "encyclopaedia": paragraphs((plain / "wiki_demo.txt").read_text(encoding="utf-8")),
        "web": [
            json.loads(line)["text"] for line in (plain / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
        ],
        "instructions": ["\n\n".join(turns) for turns in instructions()],
        "service": ["\n".join(turns) for turns in service()],
    }
    with zipfile.ZipFile(DATASETS / "nltk_reviews" / "movie_reviews.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".txt"))
        found["film reviews"] = [archive.read(name).decode("utf-8", "replace") for name in names]
    return found


def paragraphs(text: str) -> list[str]:
    return [part + "\n\n" for part in text.split("\n\n") if part.strip()]


def instructions() -> Iterator[list[str]]:
    for row in json.loads((DATASETS / "instruct_small" / "lima.json").read_text(encoding="utf-8")):
        yield [row["instruction"], row["output"]]


def service() -> Iterator[list[str]]:
    for path in sorted((DATASETS / "sgd" / "train").glob("dialogues_*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as handle:
            for dialogue in json.load(handle):
                yield [turn["utterance"] for turn in dialogue["turns"]]


def repeated(texts: list[str], num_bytes: int) -> Iterator[str]:
    """The texts over and over, one word in eight replaced, until there are so many bytes."""
    chance = np.random.Generator(np.random.PCG64(0))
    words = np.array(sorted({word for text in texts for word in text.split(" ")}), object)
    made = 0
    while True:
        for text in texts:
            parts = np.array(text.split(" "), object)
            change = chance.random(len(parts)) < REPLACED
            parts[change] = chance.choice(words, int(change.sum()))
            yield (varied := " ".join(parts))
            made += len(varied.encode())
            if made >= num_bytes:
                return


# ------------------------------------------------------------------------------------------------------------ speed

WORK = """
import json, sys, time
from pathlib import Path
what, room, vocab = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from ownchat.tokenizer import stage
from ownchat.tokenizer.learn import SPLIT
from ownchat.config import load_config
texts = json.loads((room / "texts.json").read_text()) if what == "memory" else []
start = time.perf_counter()
if what == "ownchat":
    config, _ = load_config(sets=["model.base=scratch", f"tokenizer.vocab={vocab}"])
    stage.run_tokenizer(config, {"clean": room / "2-clean"}, room / "3-tokenizer")
else:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    trainer = trainers.BpeTrainer(vocab_size=vocab, min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    if what == "memory":
        backend.train_from_iterator(texts, trainer)
    else:
        backend.train([str(room / "texts.txt")], trainer)
    backend.save(str(room / "alone.json"))
seconds = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss has the parent's in it
print(json.dumps({"seconds": seconds, "peak_bytes": 1024 * int(peak.split()[1])}))
"""
SIDES = {"ownchat": "ownchat", "tokenizers, from memory": "memory", "tokenizers, from a file": "file"}


def speed(texts: list[str], num_bytes: int, repeats: int) -> dict[str, Any]:
    from ownchat.data.records import ShardWriter, batched, record
    from ownchat.tokenizer.learn import derived_vocab

    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        made = list(repeated(texts, num_bytes))
        rows = (record("document", file="a", format="text", line=n + 1, text=text) for n, text in enumerate(made))
        (room / "2-clean").mkdir()
        with ShardWriter(room / "2-clean" / "train") as writer:
            for batch in batched(rows):
                writer.write(batch)
        (room / "texts.json").write_text(json.dumps(made))
        (room / "texts.txt").write_text("".join(made), encoding="utf-8")
        vocab = derived_vocab(num_bytes)
        results: dict[str, dict[str, float]] = {}
        for _ in range(repeats):
            for side, what in SIDES.items():
                for left in ("3-tokenizer", "alone.json"):
                    subprocess.run(["rm", "-rf", str(room / left)], check=True)
                command = [sys.executable, "-c", WORK, what, str(room), str(vocab)]
                environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                found = json.loads(done.stdout.splitlines()[-1])
                if side not in results or found["seconds"] < results[side]["seconds"]:
                    results[side] = found
    best = min(found["seconds"] for side, found in results.items() if side != "ownchat")
    print(f"\n{num_bytes / 1e6:.0f} MB, {vocab:,} tokens      seconds   MB/s     GB   times the faster one's")
    for side, found in results.items():
        seconds = found["seconds"]
        rate, memory = num_bytes / 1e6 / seconds, found["peak_bytes"] / 1e9
        print(f"{side:<26} {seconds:>9.1f} {rate:>6.2f} {memory:>6.2f}   {seconds / best:.2f}")
    return {"bytes": num_bytes, "vocab": vocab, "results": results, "ratio": results["ownchat"]["seconds"] / best}


# ------------------------------------------------------------------------------------------------------ compression


def compression(by_kind: dict[str, list[str]]) -> list[dict[str, Any]]:
    from tokenizers import Tokenizer

    from ownchat.tokenizer.gpt2 import gpt2_directory
    from ownchat.tokenizer.learn import RESERVED, learn

    train = [text for texts in by_kind.values() for n, text in enumerate(texts) if n % 10]
    held_out = {kind: [text for n, text in enumerate(texts) if n % 10 == 0] for kind, texts in by_kind.items()}
    num_bytes = sum(len(text.encode()) for text in train)
    gpt2 = Tokenizer.from_file(str(gpt2_directory() / "tokenizer.json"))
    rows = []
    for merges in MERGES:
        with tempfile.TemporaryDirectory() as folder:
            learn(train, vocab=RESERVED + merges, num_bytes=num_bytes, output=Path(folder), context=512)
            own = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        sides = {"own": own, "GPT-2, cut": first_merges(gpt2, merges)}
        for kind, texts in [*held_out.items(), ("all", [text for some in held_out.values() for text in some])]:
            row: dict[str, Any] = {"merges": merges, "text": kind}
            row |= {name: bytes_per_token(side, texts) for name, side in sides.items()}
            rows.append(row | {"better": row["own"] / row["GPT-2, cut"] - 1})
    print(f"\nbytes per token, held out; learned from {num_bytes / 1e6:.1f} MB")
    for row in rows:
        print(
            f"{row['merges']:>6,} merges  {row['text']:<14} own {row['own']:.3f}   GPT-2 cut {row['GPT-2, cut']:.3f}   "
            f"{row['better']:+.1%}"
        )
    return rows


def first_merges(backend: Any, merges: int) -> Any:
    """GPT-2's tokenizer with its first ``merges`` merges, all 256 bytes and its own split pattern."""
    from tokenizers import Tokenizer, models

    model = json.loads(backend.to_str())["model"]
    kept = [(left, right) for left, right in model["merges"][:merges]]
    tokens = {token for token in model["vocab"] if len(token) == 1} | {left + right for left, right in kept}
    cut = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(sorted(tokens))}, merges=kept))
    cut.pre_tokenizer, cut.decoder = backend.pre_tokenizer, backend.decoder
    return cut


def bytes_per_token(backend: Any, texts: list[str]) -> float:
    encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
    return sum(len(text.encode()) for text in texts) / sum(len(one.ids) for one in encoded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["speed", "compression"])
    arguments = parser.parse_args()
    if not DATASETS.is_dir():
        sys.exit(f"no {DATASETS}: set OWNCHAT_DATASETS")
    from ownchat.evaluate.report import conditions

    start, by_kind = time.perf_counter(), real_texts()
    found: dict[str, Any] = {"conditions": conditions()}
    if arguments.only != "speed":
        found["compression"] = compression(by_kind)
    if arguments.only != "compression":
        texts = [text for some in by_kind.values() for text in some]
        found["speed"] = speed(texts, int(arguments.megabytes * 1e6), arguments.repeats)
    print(json.dumps(found | {"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
