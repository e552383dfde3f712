"""A side without ownchat's gateway, in a process of its own: the bare engine, ``generate``, or llama.cpp's server.

    python worker.py '{"kind": "engine", "model": DIR, "threads": 2, "slots": 8}'

Writes one line of JSON when it is ready, then one for each line ``{"texts": [...], "tokens": 128}`` that it reads: the
texts are answered at once. Ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

Work = Callable[[list[str], int], dict[str, Any]]


def engine(task: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """ownchat's engine, called as the gateway calls it."""
    from ownchat.config import GenerateConfig
    from ownchat.generate.backend import end_ids_of, open_engine, parts_of
    from ownchat.generate.engine import Request, Sampling
    from ownchat.generate.locate import Located
    from ownchat.tokenizer.render import prompt_ids

    parts = parts_of(Located(Path(task["model"])))
    opened = open_engine(parts, threads=task["threads"], slots=task["slots"])
    forbidden = dict.fromkeys(end_ids_of(parts, opened.tokenizer), -100.0)
    sampling = replace(Sampling.of(GenerateConfig()), temperature=0.0, logit_bias=forbidden)
    pool = ThreadPoolExecutor(task["slots"])

    def one(text: str, tokens: int, started: float) -> tuple[int, float]:
        ids = prompt_ids(opened.tokenizer, [{"role": "user", "content": text}])
        count, first = 0, 0.0
        request = Request(ids=ids, max_tokens=tokens, sampling=sampling, logprobs=False)
        for delta in opened.stream(request):
            if delta.text and not first:
                first = time.perf_counter() - started
            count += len(delta.ids)
            if delta.usage is not None:
                count = delta.usage.completion_tokens
        return count, first

    def work(texts: list[str], tokens: int) -> dict[str, Any]:
        started = time.perf_counter()
        found = list(pool.map(lambda text: one(text, tokens, started), texts))
        seconds = time.perf_counter() - started
        firsts = sorted(first for _, first in found)
        return {"tokens": sum(count for count, _ in found), "seconds": seconds, "first": firsts[len(firsts) // 2]}

    return work, {"backend": opened.backend}


def generate(task: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """transformers as its users call it; several texts are one batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(task["threads"])
    tokenizer: Any = AutoTokenizer.from_pretrained(task["model"], padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(task["model"], dtype=getattr(torch, task["dtype"]))

    def work(texts: list[str], tokens: int) -> dict[str, Any]:
        started = time.perf_counter()
        talks = [[{"role": "user", "content": text}] for text in texts]
        rows = tokenizer.apply_chat_template(
            talks, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
        )
        with torch.inference_mode():
            written = model.generate(**rows, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
        count = int(written[:, rows["input_ids"].shape[1] :].numel())
        return {"tokens": count, "seconds": time.perf_counter() - started, "first": None}

    return work, {}


def llama_server(task: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """llama.cpp's own HTTP server on the file that ownchat made of the model, its settings as they are."""
    import secrets

    import xllamacpp

    from ownchat.generate.gguf_cache import model_file

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file(Path(task["model"])))
    params.n_parallel, params.n_ctx = task["slots"], task["slots"] * task["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = task["threads"]
    params.verbosity, params.port = -1, 0
    key = secrets.token_urlsafe(32)
    params.api_keys = [key]
    server: Any = xllamacpp.Server(params)

    def work(texts: list[str], tokens: int) -> dict[str, Any]:
        raise ValueError("it is asked through its port")

    work.server = server  # type: ignore[attr-defined]  # lives as long as this
    return work, {"port": int(server.listening_address.rpartition(":")[2]), "key": key}


KINDS = {"engine": engine, "generate": generate, "llama-server": llama_server}


def main() -> None:
    task = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    work, told = KINDS[task["kind"]](task)
    print(json.dumps(told), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(work(asked["texts"], asked["tokens"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
