"""Engines beside transformers' own ``generate``: tokens per second of one answer, and of eight at once.

Run it alone on the machine: ``python benchmarks/engines.py`` (``--threads 2``, ``--tokens 128``, ``--rounds 3``,
``--model DIR`` for another model than the starter, ``--only llamacpp-q4_1,generate-float32``). All of them get the same
prompt and threads and write the same number of tokens (end tokens are forbidden), greedily; the median of the rounds
counts, the first round is not counted. No engine keeps the prompt from one round to the next. ``first``: milliseconds
to the first token.

Engines that ownchat does not have (onnxruntime-genai, ctranslate2, openvino-genai) are measured, too, with
``--others-python PATH``: the Python of an environment that has them. A side that cannot run has its reason in place of
figures.

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
from serve_peers.sides import Failed, Process

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
OTHERS = (
    "onnxruntime-genai-int8", "onnxruntime-genai-int4", "ctranslate2-int8", "openvino-genai-q8_0", "openvino-genai-q4_1"
)  # fmt: skip
WORKER = Path(__file__).resolve().parent / "engines_peers" / "worker.py"
Row = dict[str, Any]  # single and together: tokens/s; first: ms; None for what an engine cannot tell. Or failed: why


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


def of_engine(engine: Any, prompt: list[int], tokens: int, rounds: int) -> Row:
    """One row of the table."""
    # with a seed llama.cpp reads the prompt anew each time, as the others do
    forbidden = Sampling(seed=0, logit_bias=dict.fromkeys(engine.end_ids, -100.0))
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


def of_generate(model: Path, dtype: str, prompt: list[int], tokens: int, rounds: int, threads: int) -> Row:
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
    return {"single": single, "together": timed(lambda: work(STREAMS), max(1, rounds - 1)), "first": None}


def of_other(
    name: str, python: Path | None, model: Path, prompt: list[int], tokens: int, rounds: int, threads: int, folder: Path
) -> Row:
    """An engine of another environment. Raises :class:`Failed` or :class:`OSError` when it cannot run."""
    if python is None:
        raise Failed("not asked for: name an environment that has it with --others-python")
    tokenizer, kind = load_tokenizer(model), name.rpartition("-")[2]
    task: dict[str, Any] = {"side": name, "model": str(model), "folder": str(folder), "threads": threads}
    task["ends"] = end_ids_of(Parts(model), tokenizer)
    if name.startswith("openvino"):
        task["gguf"] = str(gguf_file.write_gguf(model, folder / f"{kind}.gguf", kind))  # type: ignore[arg-type]
    process = Process(
        [python, WORKER, json.dumps(task)], folder, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", DO_NOT_TRACK="1"
    )
    answers: list[dict[str, Any]] = []

    def ask(streams: int) -> int:
        assert process.child.stdin is not None
        process.child.stdin.write(json.dumps({"prompts": [prompt] * streams, "tokens": tokens}) + "\n")
        process.child.stdin.flush()
        answers.append(json.loads(process.line()))
        return sum(map(len, answers[-1]["ids"]))

    try:
        process.line()  # it is ready
        single = timed(lambda: ask(1), rounds)
        first = statistics.median(answer["first"] for answer in answers[1:]) * 1000
        text = tokenizer.decode(answers[-1]["ids"][0])
        together = timed(lambda: ask(STREAMS), max(1, rounds - 1))
    finally:
        process.end()
    return {"single": single, "together": together, "first": first, "text": text}


def shown(name: str, row: Row) -> str:
    """A line of the table."""
    if "failed" in row:
        return f"{name:>22} {row['failed']}"
    cells = (("single", 14, 1), ("together", 11, 1), ("first", 10, 0))
    return f"{name:>22}" + "".join(
        f" {'-' if row[key] is None else format(row[key], f'.{digits}f'):>{width}}" for key, width, digits in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter", help="starter, a run, or a directory")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(NAMES + OTHERS))
    parser.add_argument("--others-python", type=Path, help="Python of an environment with the engines ownchat has not")
    given = parser.parse_args()
    if unknown := set(given.only.split(",")) - set(NAMES + OTHERS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES + OTHERS)}")
    model = resolve_base(given.model)
    prompt = prompt_ids(load_tokenizer(model), MESSAGES)
    rows: dict[str, Row] = {}
    print(f"{'engine':>22} {'one, tokens/s':>14} {f'{STREAMS} at once':>11} {'first, ms':>10}")
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            if name.startswith("generate-"):
                dtype = name.partition("-")[2]
                rows[name] = of_generate(model, dtype, prompt, given.tokens, given.rounds, given.threads)
            elif name in OTHERS:
                sizes = (given.tokens, given.rounds, given.threads)
                try:
                    rows[name] = of_other(name, given.others_python, model, prompt, *sizes, Path(folder))
                except (Failed, OSError) as error:
                    rows[name] = {"failed": str(error)}
            else:
                with opened(name, model, given.threads, Path(folder)) as engine:
                    rows[name] = of_engine(engine, prompt, given.tokens, given.rounds)
        print(shown(name, rows[name]), flush=True)
        gc.collect()
    found = {"benchmark": "engines", "model": given.model, "threads": given.threads, "tokens": given.tokens}
    print(json.dumps({**found, "rows": rows, "conditions": conditions()}))


if __name__ == "__main__":
    main()
