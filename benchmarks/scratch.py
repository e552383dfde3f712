"""A model from nothing beside LitGPT's pretrain and transformers' Trainer: who reaches the same bits per byte first?

    python benchmarks/scratch.py                                    TinyShakespeare, six minutes for each peer
    python benchmarks/scratch.py --corpus FOLDER --minutes 15       the text files of a folder
    python benchmarks/scratch.py --sides ownchat --minutes 30 --shares 1

Every peer gets ``--minutes`` from the start of its process, at three learning rates; ownchat gets shares of that time
(``--shares``), at three rates, too. Held out are the last tenth of the text's bytes. Same tokens for all (of the
tokenizer that ownchat learns from the text before), same number of weights, same context, same batch within one
sequence, same learning rates at and below the one that ownchat derives (decay, optimiser and schedule are each side's
own, and the schedule ends when its time ends). Of a large corpus the first megabyte held out is scored. Size and batch
are what ownchat's dial chooses for its share of it. LitGPT compiles, Trainer does not. One scorer for all: plain
transformers in float32. TinyShakespeare is read from ``$OWNCHAT_DATASETS`` (default: ``../shared/datasets``). Run it
alone on the machine. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from train import PEERS, datasets, note, peer_venv, run_json

HERE = Path(__file__).resolve().parent / "scratch_peers"
HELD_OUT, VALID = 0.1, 0.02  # of the text: scored at the end; and, of the rest, for ownchat's own validations
MOST_SCORED = 1_000_000  # bytes of what is held out
FACTORS = (0.25, 0.5, 1.0)  # of the rate that ownchat derives, which is near the highest that AdamW takes
NAMES = {
    "ownchat": "ownchat", "litgpt": "LitGPT, bf16-true", "litgpt-mixed": "LitGPT, bf16-mixed",
    "litgpt-float32": "LitGPT, 32-true", "trainer": "Trainer, float32", "autocast": "Trainer, bf16",
}  # fmt: skip
SCRIPTS = {"autocast": "with_trainer.py", "litgpt-mixed": "with_litgpt.py", "litgpt-float32": "with_litgpt.py"}
PRECISIONS = {"litgpt-mixed": "bf16-mixed", "litgpt-float32": "32-true"}


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="ownchat-scratch-") as directory:
        task = prepare(Path(directory), arguments)
        results = [one for side in arguments.sides for one in trained(side, task, arguments)]
    facts = {
        name: task[name] for name in ("corpus", "bytes", "tokens", "parameters", "context", "batch_tokens", "vocab")
    }
    print(table(results))
    from ownchat.evaluate.report import conditions

    print(json.dumps({"best": best(results), **facts, "results": results, "conditions": conditions()}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="a text file, or a folder of them; default: TinyShakespeare")
    parser.add_argument("--minutes", type=float, default=6.0, help="of each peer, from the start of its process")
    parser.add_argument("--shares", type=float, nargs="+", default=[1 / 3], help="of this time, for ownchat")
    parser.add_argument("--sides", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--rates", type=int, choices=(1, 3), default=3, help="learning rates of each side")
    parser.add_argument("--size", help="of the models; default: what ownchat's dial chooses for the first share")
    return parser.parse_args()


def prepare(directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Text, tokenizer, tokens and the untrained models; what every side is told."""
    from ownchat.config import load_config
    from ownchat.model.stage import run_model
    from ownchat.tokenizer.learn import learn
    from ownchat.tokenizer.stage import load_tokenizer
    from ownchat.train.speed import training_flops_here

    text = read_text(arguments.corpus)
    cut = after_line(text, 1 - HELD_OUT)
    rest = after_line(text[:cut], 1 - VALID)
    parts = {"train": text[:rest], "valid": text[rest:cut], "test": text[cut:][:MOST_SCORED]}
    note(f"{len(text):,} bytes; a tokenizer from the first {rest:,}")
    settings = {"model.base": "scratch", "model.size": arguments.size}
    settings["train.minutes"] = arguments.minutes * arguments.shares[0]
    config, _ = load_config(values=settings)
    learn(
        [parts["train"].decode()], kind="bpe", vocab=None, num_bytes=rest, output=directory / "tokenizer", context=512
    )
    tokenizer = load_tokenizer(directory / "tokenizer")
    context = tokenizer.model_max_length
    ids = {
        name: np.array(tokenizer(part.decode(errors="replace"), add_special_tokens=False)["input_ids"])
        for name, part in parts.items()
    }
    for name, tokens in ids.items():
        np.save(directory / f"{name}.npy", tokens)
    write_stores(directory / "tokens", ids, context, len(tokenizer), tokenizer.eos_token_id)
    inputs = {"tokens": directory / "tokens", "tokenizer": directory / "tokenizer"}
    made = run_model(config, inputs, directory / "base", flops_per_second=lambda: training_flops_here(config))
    size = made.details["size"]
    return {
        "directory": str(directory), "corpus": str(arguments.corpus or "tinyshakespeare"), "bytes": len(text),
        "tokens": len(ids["train"]), "vocab": len(tokenizer), "context": context, "size": size,
        "parameters": made.counts["parameters"], "batch_tokens": made.details["pretrain"]["batch_tokens"],
        "learning_rate": made.details["pretrain"]["learning_rate"],
        "scored_per_byte": (len(ids["test"]) - 1) / len(parts["test"]),
    }  # fmt: skip


def read_text(corpus: Path | None) -> bytes:
    """All of it, in the order of the files' names."""
    if corpus is None:
        corpus = datasets() / "plain_text" / "tinyshakespeare.txt"
    files = sorted(path for path in corpus.rglob("*") if path.is_file()) if corpus.is_dir() else [corpus]
    try:
        return b"\n\n".join(path.read_text(encoding="utf-8", errors="replace").encode() for path in files)
    except FileNotFoundError as error:
        sys.exit(f"{error}; set OWNCHAT_DATASETS, or give --corpus")


def after_line(text: bytes, share: float) -> int:
    """Where the line that holds this share of the text ends."""
    return text.index(b"\n", int(len(text) * share)) + 1


def write_stores(directory: Path, ids: dict[str, np.ndarray], context: int, vocab: int, end: int) -> None:
    """Windows that open with the last token of the one before, as the product's own stage makes of a long document."""
    from ownchat.tokenizer.store import TokenWriter

    for split, tokens in ids.items():
        with TokenWriter(directory / "pretrain" / split, vocab) as writer:
            for number, start in enumerate(range(0, len(tokens) - 1, context - 1)):
                window = tokens[start : start + context]
                weights = [0 if start else 1] + [1] * (len(window) - 1)
                place = {"id": str(number), "record": str(number), "source": "corpus", "kind": "document"}
                writer.add(window, weights, piece=number, group=None, **place)
        with TokenWriter(directory / split, vocab):
            pass  # no conversations


def trained(side: str, task: dict[str, Any], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One side at each of its times and learning rates, with the held-out loss of what it made."""
    shares = arguments.shares if side == "ownchat" else [1.0]
    rates = [task["learning_rate"] * factor for factor in (FACTORS if arguments.rates == 3 else FACTORS[-1:])]
    python = peer_venv("litgpt") if side.startswith("litgpt") else sys.executable
    script = SCRIPTS.get(side, f"with_{side}.py")
    results = []
    for share in shares:
        for rate in rates:
            with tempfile.TemporaryDirectory(prefix="ownchat-side-") as output:
                minutes = share * arguments.minutes
                common = task | {
                    "output": output, "minutes": minutes, "learning_rate": rate, "bfloat16": side == "autocast",
                    "precision": PRECISIONS.get(side, "bf16-true"),
                    "method": "full", "steps": 0, "warm": 1, "seconds": 0,
                }  # fmt: skip
                environment = {"PYTHONPATH": str(PEERS)}
                found = run_json(
                    [python, HERE / script], f"{NAMES[side]}, {minutes:.1f} min, rate {rate:.1e}",
                    timeout=minutes * 60 + 900, task=common, environment=environment,
                )  # fmt: skip
                if "failed" not in found:
                    found |= run_json(
                        [sys.executable, HERE / "score.py"], "its held-out loss", timeout=3600,
                        task=common | {"trained": found.pop("model")}, environment=environment,
                    )  # fmt: skip
                if "held_out_loss" in found:
                    found["bits_per_byte"] = round(found["held_out_loss"] / math.log(2) * task["scored_per_byte"], 4)
                results.append({"side": NAMES[side], "minutes": round(minutes, 2), "learning_rate": rate} | found)
                note(table(results[-1:]).partition("\n")[2])  # should it be interrupted
    return results


def best(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The lowest bits per byte of each side and time, and whether ownchat was below every peer with less time."""
    lowest: dict[str, float] = {}
    for found in results:
        if "bits_per_byte" in found:
            key = f"{found['side']}, {found['minutes']:g} min"
            lowest[key] = min(lowest.get(key, math.inf), found["bits_per_byte"])
    peers = [value for key, value in lowest.items() if not key.startswith("ownchat")]
    ours = sorted((float(key.split()[1]), value) for key, value in lowest.items() if key.startswith("ownchat"))
    minutes = max((found["minutes"] for found in results if found["side"] != "ownchat"), default=None)
    enough = next((time for time, value in ours if peers and value <= min(peers)), None)
    return {
        "bits_per_byte": lowest,
        "times_faster_at_least": round(minutes / enough, 2) if minutes and enough else None,
    }


def table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'':20}{'minutes':>8}{'rate':>9}{'tokens/s':>10}{'tokens':>13}{'GB':>6}{'bits per byte':>15}"]
    for found in results:
        if "failed" in found:
            lines.append(f"{found['side']:20}{found['minutes']:>8.1f}{found['learning_rate']:>9.1e}  {found['failed']}")
            continue
        rate = f"{found['tokens_per_second']:,.0f}" if found["tokens_per_second"] else "?"  # too few steps to tell
        lines.append(
            f"{found['side']:20}{found['minutes']:>8.1f}{found['learning_rate']:>9.1e}{rate:>10}"
            f"{found['trained_tokens']:>13,}{found['peak_memory_gb']:>6.2f}{found['bits_per_byte']:>15.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
