"""Engines beside transformers' own ``generate``: tokens per second of one answer, and of eight at once.

Run it alone on the machine: ``python benchmarks/engines.py`` (``--threads 2``, ``--tokens 128``, ``--rounds 3``,
``--model DIR`` for another model than the starter, ``--only llamacpp-q4_1,generate-float32``). All of them get the same
prompt and threads and write the same number of tokens (end tokens are forbidden), greedily; the median of the rounds
counts, the first round is not counted. ``first``: milliseconds to the first token.

Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ownchat.evaluate.report import conditions
from ownchat.generate.backend import Parts, end_ids_of
from ownchat.generate.engine import Engine, Request, Sampling
from ownchat.generate.exports import gguf_file
from ownchat.generate.exports.vocabulary import read_vocabulary
from ownchat.generate.exports.weights import Weights
from ownchat.generate.hf import chat_engine
from ownchat.generate.llamacpp import LlamaCppEngine
from ownchat.model.load import load_model, load_tokenizer, resolve_base
from ownchat.tokenizer.render import prompt_ids

STREAMS = 8
MESSAGES = [{"role": "user", "content": "Tell me a long story about a ship that sails around the world."}]
NAMES = ("generate-float32", "generate-bfloat16", "hf", "llamacpp-f16", "llamacpp-q8_0", "llamacpp-q4_1")


def timed(work: Callable[[], int], rounds: int) -> float:
    """Tokens per second: the median of ``rounds`` after one that warms up. ``work`` returns the tokens it wrote."""
    speeds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        tokens = work()
        speeds.append(tokens / (time.perf_counter() - started))
    return statistics.median(speeds[1:])


@contextmanager
def opened(name: str, model: Path, threads: int, folder: Path) -> Iterator[Engine]:
    """One of ownchat's engines."""
    kind = name.partition("-")[2]
    if name == "hf":
        engine: Any = chat_engine(model, threads=threads)
    else:
        file = gguf_file.write_gguf(model, folder / f"{kind}.gguf", kind)  # type: ignore[arg-type]
        tokenizer, rows = load_tokenizer(model), Weights(model).rows
        engine = LlamaCppEngine(
            file, tokenizer, end_ids=end_ids_of(Parts(model), tokenizer), vocabulary=rows, context=1024,
            pieces=lambda: read_vocabulary(model, rows).pieces(), threads=threads, slots=STREAMS,
        )  # fmt: skip
    try:
        yield engine
    finally:
        engine.close()


def of_engine(engine: Any, prompt: list[int], tokens: int, rounds: int) -> dict[str, float]:
    """One row of the table."""
    forbidden = Sampling(logit_bias=dict.fromkeys(engine.end_ids, -100.0))
    request = Request(ids=prompt, max_tokens=tokens, sampling=forbidden, logprobs=False)
    firsts = []

    def one(_: int = 0) -> int:
        started, count = time.perf_counter(), 0
        for delta in engine.stream(request):
            if not count:
                firsts.append(time.perf_counter() - started)
            count += len(delta.ids)
        return count

    single = timed(one, rounds)
    first = statistics.median(firsts[1:]) * 1000
    with ThreadPoolExecutor(STREAMS) as pool:
        together = timed(lambda: sum(pool.map(one, range(STREAMS))), max(1, rounds - 1))
    return {"single": single, "together": together, "first": first}


def of_generate(model: Path, dtype: str, prompt: list[int], tokens: int, rounds: int, threads: int) -> dict[str, float]:
    """transformers as its users call it."""
    torch.set_num_threads(threads)
    loaded: Any = load_model(model, dtype=dtype, device="cpu")

    def work(rows: int) -> int:
        ids = torch.tensor([prompt] * rows)
        with torch.inference_mode():
            written = loaded.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens
            )
        return int(written[:, len(prompt) :].numel())

    single = timed(lambda: work(1), rounds)
    return {"single": single, "together": timed(lambda: work(STREAMS), max(1, rounds - 1)), "first": float("nan")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter", help="starter, a run, or a directory")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(NAMES))
    given = parser.parse_args()
    model = resolve_base(given.model)
    prompt = prompt_ids(load_tokenizer(model), MESSAGES)
    rows: dict[str, dict[str, float]] = {}
    print(f"{'engine':>18} {'one, tokens/s':>14} {f'{STREAMS} at once':>11} {'first, ms':>10}")
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            if name.startswith("generate-"):
                dtype = name.partition("-")[2]
                rows[name] = of_generate(model, dtype, prompt, given.tokens, given.rounds, given.threads)
            else:
                with opened(name, model, given.threads, Path(folder)) as engine:
                    rows[name] = of_engine(engine, prompt, given.tokens, given.rounds)
        row = rows[name]
        print(f"{name:>18} {row['single']:>14.1f} {row['together']:>11.1f} {row['first']:>10.0f}", flush=True)
        gc.collect()
    found = {"benchmark": "engines", "model": given.model, "threads": given.threads, "tokens": given.tokens}
    print(json.dumps({**found, "rows": rows, "conditions": conditions()}))


if __name__ == "__main__":
    main()
