"""Training speed beside TRL: real tokens per second, LoRA r=16 on all linear layers, the same rows, one run.

Run it alone on the machine, from a checkout: ``make bench``. Both sides start from the starter model and the demo's
rows, each with the same system message. Real tokens are those of the rendered conversations, without padding;
nobody is credited for pads. TRL runs with its defaults (``SFTConfig()``), which on a CPU means bfloat16 autocast,
batches of eight, and activations made again in the backward pass; ``use_cpu`` is the only setting it needs here.
A second TRL row takes the defaults that cost it most away, so that the ratio to a tuned peer is known too.

Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROWS, MEASURED, WARM = 160, 8, 2


def rows() -> list[dict[str, Any]]:
    """The demo's first questions and answers, with its system message."""
    import csv

    from ownchat.pipeline.demo import SYSTEM, demo_folder

    with open(demo_folder() / "faq.csv", encoding="utf-8", newline="") as handle:
        table = list(csv.DictReader(handle))[:ROWS]
    return [
        {
            "prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["q"]}],
            "completion": [{"role": "assistant", "content": row["a"]}],
        }
        for row in table
    ]


def measure_ownchat() -> dict[str, Any]:
    import numpy as np
    import torch

    from ownchat.config import load_config
    from ownchat.model.load import load_model, load_tokenizer, resolve_base
    from ownchat.model.lora import add_lora
    from ownchat.tokenizer.packing import pack
    from ownchat.tokenizer.render import render
    from ownchat.train import memory
    from ownchat.train.decisions import BFLOAT16_MIN_GAIN, matmul_tflops
    from ownchat.train.loop import train_step
    from ownchat.train.objectives import Likelihood
    from ownchat.train.optim import Optimizer

    memory.keep_freed_pages()
    memory.reset_peak()
    base = resolve_base("starter")
    tokenizer = load_tokenizer(base)
    documents = [
        (np.array(r.ids), np.array(r.weights))
        for r in (render(tokenizer, x["prompt"] + x["completion"]) for x in rows())
    ]
    fast = matmul_tflops(torch.bfloat16) > BFLOAT16_MIN_GAIN * matmul_tflops(torch.float32)
    dtype = "bfloat16" if fast else "float32"
    model = load_model(base, dtype=dtype, packed=True)
    add_lora(model, rank=16, alpha=32, seed=0)
    optimizer = Optimizer(model, weight_decay=0.0)
    settings = load_config()[0].train
    lengths = np.array([len(ids) for ids, _ in documents])
    seconds, tokens = [], []
    epoch = 0
    while len(seconds) < WARM + MEASURED:
        steps = pack(
            lengths, batch_tokens=settings.batch_tokens, block_tokens=settings.block_tokens, seed=0, epoch=epoch
        )
        for step in steps[: WARM + MEASURED - len(seconds)]:
            blocks = [[documents[number] for number in block] for block in step]
            start = time.perf_counter()
            train_step(model, Likelihood(), optimizer, blocks, 1e-3, 1.0)
            seconds.append(time.perf_counter() - start)
            tokens.append(sum(len(ids) for block in blocks for ids, _ in block))
        epoch += 1
    return result(seconds, tokens, dtype=dtype, peak=memory.peak_bytes())


def measure_trl(tuned: bool) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from ownchat.model.load import resolve_base
    from ownchat.train import memory

    memory.reset_peak()
    base = resolve_base("starter")
    tokenizer = AutoTokenizer.from_pretrained(base)
    data = rows()
    extra: dict[str, Any] = {"gradient_checkpointing": False, "bf16": False, "packing": False} if tuned else {}
    settings = SFTConfig(
        output_dir=os.environ["OWNCHAT_BENCH_SCRATCH"], max_steps=WARM + MEASURED, report_to=[], save_strategy="no",
        use_cpu=True, disable_tqdm=True, **extra,
    )  # fmt: skip
    per_step = settings.per_device_train_batch_size
    seconds: list[float] = []
    counted: list[int] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    class Counting(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
            counted.append(int(inputs["attention_mask"].sum()))
            return super().training_step(model, inputs, *arguments, **keywords)

    trainer = Counting(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
        callbacks=[Clock()],
    )
    trainer.train()
    assert len(counted) == len(seconds) and per_step == 8
    return result(seconds, counted, dtype="bfloat16 autocast" if settings.bf16 else "float32", peak=memory.peak_bytes())


def result(seconds: list[float], tokens: list[int], *, dtype: str, peak: int) -> dict[str, Any]:
    speeds = [n / s for n, s in zip(tokens[WARM:], seconds[WARM:], strict=True)]
    return {
        "tokens_per_second": round(sum(tokens[WARM:]) / sum(seconds[WARM:]), 1),
        "slowest_step": round(min(speeds), 1),
        "median_step": round(statistics.median(speeds), 1),
        "fastest_step": round(max(speeds), 1),
        "dtype": dtype,
        "peak_memory_gb": round(peak / 1e9, 2),
    }


SIDES = {
    "ownchat": measure_ownchat,
    "TRL, its defaults": lambda: measure_trl(tuned=False),
    "TRL, fp32, no recomputation": lambda: measure_trl(tuned=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process (used by the script itself)")
    side = parser.parse_args().side
    if side:
        print("RESULT " + json.dumps(SIDES[side]()))
        return
    import importlib.metadata
    import tempfile

    from ownchat.evaluate.report import conditions
    from ownchat.model.load import resolve_base
    from ownchat.pipeline.demo import demo_folder

    resolve_base("starter")
    demo_folder()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in SIDES:  # a process each: none inherits another's allocator, threads or caches
            environment = os.environ | {"OWNCHAT_BENCH_SCRATCH": scratch}
            command = [sys.executable, Path(__file__), "--side", name]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            if not lines:
                sys.exit(f"{name} failed:\n{done.stderr}")
            results[name] = json.loads(lines[-1].removeprefix("RESULT "))
    ours = results["ownchat"]["tokens_per_second"]
    print(f"{'':30}{'tokens/s':>10}{'median':>9}{'times':>8}{'GB':>7}  type")
    for name, found in results.items():
        ratio = ours / found["tokens_per_second"]
        print(
            f"{name:30}{found['tokens_per_second']:>10.0f}{found['median_step']:>9.0f}{ratio:>8.1f}"
            f"{found['peak_memory_gb']:>7.2f}  {found['dtype']}"
        )
    versions = {name: importlib.metadata.version(name) for name in ("trl", "transformers", "peft", "torch")}
    print(json.dumps({"results": results, "conditions": conditions() | versions, "rows": ROWS, "steps": MEASURED}))


if __name__ == "__main__":
    main()
