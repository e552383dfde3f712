"""An engine that ownchat does not have, in a process and an environment of its own, the model in the engine's format.

    python worker.py '{"side": "ctranslate2-int8", "model": DIR, "folder": DIR, "threads": 2, "ends": [2]}'

Makes the engine's model in ``folder`` (OpenVINO reads the GGUF file named by ``gguf``) and writes one line of JSON when
it is ready. Then one for each line ``{"prompts": [[1, 9690], ...], "tokens": 128}`` that it reads: the prompts, all of
one length, are answered at once, greedily, end tokens forbidden. ``ids`` are the tokens really written, a list for each
prompt; ``first`` is the seconds to the first token. Ends with its input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[list[list[int]], int], dict[str, Any]]


def onnxruntime_genai(task: dict[str, Any], kind: str) -> Work:
    """Its own builder's model. Many at once are one batch: continuous batching needs paged attention, which the builder
    makes for GPUs only."""
    import numpy
    import onnxruntime_genai as og

    og.disable_telemetry_events()
    built = Path(task["folder"]) / f"onnx-{kind}"
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", task["model"], "-o", built, "-p", kind]
    command += [
        "-e",
        "cpu",
        "-c",
        task["folder"],
        "--extra_options",
        "prune_lm_head=true",
    ]  # a prompt's last token only
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"the builder: {(done.stdout.strip().splitlines() or ['it said nothing'])[-1]}")
    config = og.Config(str(built))
    threads = {"intra_op_num_threads": task["threads"], "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"eos_token_id": task["ends"], "decoder": {"session_options": threads}}}))
    model = og.Model(config)

    def work(prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        started, first, length = time.perf_counter(), None, len(prompts[0]) + tokens
        params = og.GeneratorParams(model)
        params.set_search_options(do_sample=False, batch_size=len(prompts), max_length=length, min_length=length)
        generator = og.Generator(model, params)
        generator.append_tokens(numpy.array(prompts, dtype=numpy.int32))
        while not generator.is_done():
            generator.generate_next_token()
            first = time.perf_counter() - started if first is None else first
        written = [generator.get_sequence(row)[len(ids) :].tolist() for row, ids in enumerate(prompts)]
        return {"ids": written, "first": first}

    return work


def ctranslate2(task: dict[str, Any], kind: str) -> Work:
    """Its own converter's model. Many at once are one batch."""
    import ctranslate2 as ct2
    from ctranslate2.converters import TransformersConverter

    built = Path(task["folder"]) / f"ctranslate2-{kind}"
    TransformersConverter(task["model"]).convert(str(built), quantization=kind)
    words = json.loads((built / "vocabulary.json").read_text(encoding="utf-8"))
    generator = ct2.Generator(str(built), device="cpu", compute_type=kind, intra_threads=task["threads"])

    def work(prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        started, firsts = time.perf_counter(), list[float]()

        def seen(_: Any) -> bool:  # true would end the answer
            if not firsts:
                firsts.append(time.perf_counter() - started)
            return False

        rows = generator.generate_batch(
            [[words[id] for id in ids] for ids in prompts], max_length=tokens, min_length=tokens, callback=seen,
            end_token=task["ends"], include_prompt_in_result=False,
        )  # fmt: skip
        return {"ids": [row.sequences_ids[0] for row in rows], "first": firsts[0]}

    return work


def openvino_genai(task: dict[str, Any], kind: str) -> Work:
    """Continuous batching, from the GGUF file that ownchat made."""
    import numpy
    import openvino
    import openvino_genai as ov

    pipeline = ov.ContinuousBatchingPipeline(
        task["gguf"], scheduler_config=ov.SchedulerConfig(), device="CPU",
        properties={"INFERENCE_NUM_THREADS": task["threads"]},
    )  # fmt: skip

    def work(prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        started, first = time.perf_counter(), None
        config = ov.GenerationConfig()
        config.do_sample, config.max_new_tokens, config.min_new_tokens = False, tokens, tokens
        config.eos_token_id, config.stop_token_ids = task["ends"][0], set(task["ends"])
        asked = [openvino.Tensor(numpy.array([ids], dtype=numpy.int64)) for ids in prompts]
        handles = [pipeline.add_request(number, ids, config) for number, ids in enumerate(asked)]
        written: list[list[int]] = [[] for _ in handles]
        while pipeline.has_non_finished_requests():
            pipeline.step()
            for handle, row in zip(handles, written, strict=True):
                while handle.can_read():
                    for output in handle.read().values():
                        row += output.generated_ids
            if first is None and any(written):
                first = time.perf_counter() - started
        return {"ids": written, "first": first}

    return work


ENGINES = {"onnxruntime-genai": onnxruntime_genai, "ctranslate2": ctranslate2, "openvino-genai": openvino_genai}


def main() -> None:
    task = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    engine, _, kind = task["side"].rpartition("-")
    work = ENGINES[engine](task, kind)
    print(json.dumps({"ready": task["side"]}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(work(asked["prompts"], asked["tokens"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
