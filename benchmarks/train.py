"""Training speed beside TRL, transformers' Trainer and LitGPT (on a GPU also Unsloth, and TRL with Liger), in one run.

    make bench                                      SGD conversations, LoRA, every side
    python benchmarks/train.py --data all --method all
    python benchmarks/train.py --equal-time --minutes 5     the held-out loss after equal wall time, start included
    python benchmarks/train.py --search             try settings of TRL one after another and print the best

Same model (the starter), same rows, same adapter (rank 16, alpha 32, all linear layers); one process a side, one after
the other. Run it alone on the machine. Tokens are real ones: nobody is credited for padding. The SGD rows and the
documents are read from ``$OWNCHAT_DATASETS`` (default: ``../shared/datasets``). docs/benchmarks.md says what the
columns mean. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from train_peers.trl_settings import BEST, LEARNS, LIGER, MIN_GAIN, TRIALS

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "train_peers"
RANK, ALPHA = 16, 32

# name on the command line -> (name in the table, script, settings, needs a GPU)
SIDES: dict[str, tuple[str, str, dict[str, Any], bool]] = {
    "ownchat": ("ownchat", "with_ownchat.py", {}, False),
    "trl": ("TRL, its defaults", "with_trl.py", {}, False),
    "trl-best": ("TRL, best settings found", "with_trl.py", BEST, False),
    "trainer": ("transformers Trainer", "with_trainer.py", {}, False),
    "litgpt": ("LitGPT", "with_litgpt.py", {}, False),
    "trl-liger": ("TRL with Liger", "with_trl.py", LIGER, True),
    "unsloth": ("Unsloth", "with_unsloth.py", {}, True),
}


def main() -> None:
    arguments = parse()
    peak = run_json([sys.executable, PEERS / "peak.py"], "the machine's peak", timeout=600)
    if "failed" in peak:
        sys.exit(f"matrix products could not be measured: {peak['failed']}")
    if arguments.search:
        search(arguments, peak)
        return
    experiments = {}
    for data in ("sgd", "faq", "documents") if arguments.data == "all" else (arguments.data,):
        for method in ("lora", "full") if arguments.method == "all" else (arguments.method,):
            experiments[f"{data} {method}"] = experiment(data, method, arguments, peak)
    for name, found in experiments.items():
        print(f"\n{name}: {found['rows']['rows']} rows, {found['rows']['tokens']:,} tokens")
        print(table(found["results"]))
    print(summary(experiments, peak, arguments))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("sgd", "faq", "documents", "all"), help="default: sgd; faq where it is not")
    parser.add_argument("--method", choices=("lora", "full", "all"), default="lora")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), help="default: all")
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps that are measured")
    parser.add_argument("--warm", type=int, default=2, help="first steps that are left out, at least one")
    parser.add_argument(
        "--seconds", type=float, default=120, help="a side that is slower than this stops earlier, after two steps"
    )
    parser.add_argument("--equal-time", action="store_true", help="train for --minutes, then score held-out rows")
    parser.add_argument("--minutes", type=float, default=5.0, help="from the start of each process, for --equal-time")
    parser.add_argument("--search", action="store_true", help="find TRL's best settings for --data and --method")
    arguments = parser.parse_args()
    if arguments.warm < 1 or arguments.steps < 2:
        parser.error("--warm must be at least 1 and --steps at least 2")
    if arguments.data is None:
        arguments.data = "sgd" if (datasets() / "sgd").is_dir() else "faq"
    return arguments


def datasets() -> Path:
    return Path(os.environ.get("OWNCHAT_DATASETS", ROOT.parent / "shared" / "datasets"))


def experiment(data: str, method: str, arguments: argparse.Namespace, peak: dict[str, Any]) -> dict[str, Any]:
    """Every side on the same rows; with equal time also what each has learned."""
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="ownchat-bench-") as scratch:
        base, counted = prepare(data, Path(scratch) / "rows")
        flops = flops_per_token(method, matrices(base), counted["trained_tokens"] / counted["tokens"])
        common = {
            "method": method, "base": str(base), "rows": str(Path(scratch) / "rows"), "rank": RANK, "alpha": ALPHA,
            "steps": arguments.steps, "warm": arguments.warm, "seconds": arguments.seconds,
            "minutes": arguments.minutes if arguments.equal_time else None,
        }  # fmt: skip
        if arguments.equal_time:
            results["the base, not trained"] = score(common, None, Path(scratch) / "base")
        for side in arguments.sides or SIDES:
            name, script, settings, needs_gpu = SIDES[side]
            if needs_gpu and not peak["cuda"]:
                results[name] = {"failed": "needs a GPU"}
                continue
            if arguments.equal_time and side == "trl-best":
                settings = merged(settings, LEARNS[method])
            output = Path(scratch) / side
            found = measure(side, script, common | {"settings": settings}, output)
            if found.get("tokens_per_second"):
                found["share_of_peak"] = round(found["tokens_per_second"] * flops / peak["bfloat16_tflops"] / 1e12, 4)
            if arguments.equal_time and "failed" not in found:
                found |= score(common, found["model"], output / "score")
            found.pop("model", None)
            results[name] = found
    return {"results": results, "rows": counted, "flops_per_token": flops}


def prepare(data: str, directory: Path) -> tuple[Path, dict[str, Any]]:
    """The base model's directory; the rows written for all sides, and what they hold."""
    from train_peers import rows

    from ownchat.model.load import load_tokenizer, resolve_base

    base = resolve_base("starter")
    tokenizer = load_tokenizer(base)
    try:
        splits = rows.load(data, datasets(), tokenizer)
    except FileNotFoundError as error:
        sys.exit(str(error))
    return base, rows.write(directory, splits, tokenizer)


def measure(side: str, script: str, task: dict[str, Any], output: Path) -> dict[str, Any]:
    """One side in a process of its own; what it wrote, or ``{"failed": why}``."""
    output.mkdir(parents=True)
    try:
        python, extra, settings = surroundings(side, Path(task["base"]), output)
    except subprocess.CalledProcessError as error:
        return {"failed": "its environment could not be made: " + last_line(error.stderr or "")}
    environment = settings.get("environment", {}) | task["settings"].get("environment", {}) | extra
    task = task | {"settings": task["settings"] | settings, "output": str(output)}
    limit = 1800 if task["minutes"] is None else task["minutes"] * 60 + 1800
    return run_json([python, PEERS / script], SIDES[side][0], timeout=limit, task=task, environment=environment)


def surroundings(side: str, base: Path, output: Path) -> tuple[str, dict[str, str], dict[str, Any]]:
    """(its Python, environment variables, more settings). Peers whose pins clash with ours have a venv of their own."""
    if side == "litgpt":
        python = peer_venv("litgpt")
        checkpoint = output / base.name
        convert = [python, PEERS / "with_litgpt.py", "--convert", base, checkpoint]
        subprocess.run(convert, check=True, capture_output=True, text=True)
        return python, {}, {"checkpoint": str(checkpoint)}
    if side == "unsloth":
        return peer_venv("unsloth"), {}, {}
    if side == "trl-liger":
        return sys.executable, {"PYTHONPATH": str(liger_folder())}, {}
    return sys.executable, {}, {}


def venvs() -> Path:
    return Path(os.environ.get("OWNCHAT_BENCH_VENVS", Path.home() / ".cache" / "ownchat-bench"))


def peer_venv(name: str) -> str:
    """The Python of a peer's own venv, made once from its lock file, with the torch release that runs here."""
    lock, directory = PEERS / f"{name}.lock", venvs() / name
    torch = "torch==" + importlib.metadata.version("torch").partition("+")[0]
    wanted = f"{torch}\n{lock.read_text(encoding='utf-8')}"
    python, ready = directory / "bin" / "python", directory / ".ready"
    if not ready.is_file() or ready.read_text(encoding="utf-8") != wanted:
        note(f"setting up {directory} (once)")
        for command in (
            [sys.executable, "-m", "venv", "--clear", directory],
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", torch, "--requirement", lock],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        ready.write_text(wanted, encoding="utf-8")
    return str(python)


def liger_folder() -> Path:
    """Liger's kernels beside this environment's packages, not among them: they need Triton, which a GPU's torch has."""
    folder = venvs() / "liger"
    if not (folder / "liger_kernel").is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        lock = PEERS / "liger.lock"
        subprocess.run([*install, "--requirement", lock], check=True, capture_output=True, text=True)
    return folder


def score(common: dict[str, Any], model: str | None, directory: Path) -> dict[str, Any]:
    """``held_out_loss`` of a trained model (None: of the base)."""
    directory.mkdir(parents=True)
    task = common | {"trained": model}
    return run_json([sys.executable, PEERS / "score.py"], "its held-out loss", timeout=1800, task=task)


def run_json(
    command: list[Any],
    name: str,
    *,
    timeout: float,
    task: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Run a script that writes one JSON object where its last argument (or its task's ``result``) says.

    Compiled kernels are made anew in every process: that time belongs to the first step.
    """
    note(name)
    with tempfile.TemporaryDirectory() as scratch:
        result, given = Path(scratch) / "result.json", Path(scratch) / "task.json"
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": scratch, "TORCHINDUCTOR_CACHE_DIR": scratch}
        variables = os.environ | offline | (environment or {})
        if task is not None:
            given.write_text(json.dumps(task | {"result": str(result), "started": time.time()}), encoding="utf-8")
        arguments = [*command, result if task is None else given]
        try:
            done = subprocess.run(
                arguments, capture_output=True, text=True, env=variables, cwd=scratch, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"no result after {timeout:.0f} s"}
        if not result.is_file():
            note(done.stderr[-4000:])
            killed = f"killed by signal {-done.returncode}" if done.returncode < 0 else ""
            return {"failed": killed or last_line(done.stderr)}
        return dict(json.loads(result.read_text(encoding="utf-8")))


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:300]


def matrices(base: Path) -> dict[str, int]:
    """Parameters of the layers' matrices and of the head, read from the headers of the safetensors files."""
    counted = {"layers": 0, "head": 0}
    for path in base.glob("*.safetensors"):
        with open(path, "rb") as handle:
            header = json.loads(handle.read(struct.unpack("<Q", handle.read(8))[0]))
        for name, tensor in header.items():
            shape = tensor.get("shape", [])
            if len(shape) == 2 and ".layers." in name:
                counted["layers"] += shape[0] * shape[1]
            elif len(shape) == 2 and ("embed_tokens" in name or "lm_head" in name):  # tied or alike: one head
                counted["head"] = shape[0] * shape[1]
    return counted


def flops_per_token(method: str, matrices: dict[str, int], trained_share: float) -> float:
    """The products that training needs for a real token, the same for all sides.

    Two FLOPs a parameter forward, two for the gradient of the input, and two for that of the weight where weights are
    trained. The head is needed where a token is trained. Attention's products and the adapter's are not counted, nor
    what a side does beyond need: padding, the head on other positions, activations made twice.
    """
    return (4 if method == "lora" else 6) * (matrices["layers"] + trained_share * matrices["head"])


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as text; ``times``: how much faster ownchat was."""
    ours = results.get("ownchat", {}).get("tokens_per_second")
    equal = any("held_out_loss" in found for found in results.values())
    lines = [
        f"{'':26}{'tokens/s':>9}{'times':>7}{'peak':>8}{'GB':>7}{'1st step':>10}{'loss' if equal else '':>8}  type"
    ]
    for name, found in results.items():
        if "failed" in found:
            lines.append(f"{name:26}  {found['failed']}")
            continue
        speed = found.get("tokens_per_second")
        cells = [
            f"{name:26}",
            f"{speed:>9.0f}" if speed else " " * 9,
            f"{ours / speed:>7.1f}" if speed and ours else " " * 7,
            f"{found['share_of_peak']:>8.1%}" if "share_of_peak" in found else " " * 8,
            f"{found['peak_memory_gb']:>7.2f}" if "peak_memory_gb" in found else " " * 7,
            f"{found['first_step_seconds']:>8.1f} s" if "first_step_seconds" in found else " " * 10,
            f"{found['held_out_loss']:>8.3f}" if "held_out_loss" in found else " " * 8,
            f"  {found.get('dtype', '')}",
        ]
        lines.append("".join(cells).rstrip())
    return "\n".join(lines)


def ratio(results: dict[str, dict[str, Any]], side: str) -> float | None:
    """How many times the real tokens per second of another side; None where one of the two has none."""
    speeds = [results.get(SIDES[name][0], {}).get("tokens_per_second") for name in ("ownchat", side)]
    return round(speeds[0] / speeds[1], 2) if all(speeds) else None


def summary(experiments: dict[str, dict[str, Any]], peak: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The last line: the first experiment (by default LoRA on SGD) in full, the others beside it."""
    from ownchat.evaluate.report import conditions

    (first, main_one), *others = experiments.items()
    line = {
        "experiment": first,
        "ratio_to_trl_defaults": ratio(main_one["results"], "trl"),
        "ratio_to_trl_best": ratio(main_one["results"], "trl-best"),
        **main_one,
        "steps": arguments.steps,
        "warm": arguments.warm,
        "minutes": arguments.minutes if arguments.equal_time else None,
        "peak": peak,
        "share_of_peak_counts": (
            "4 (LoRA) or 6 (full) FLOPs x (matrices of the layers + head x share of trained tokens), a real token"
        ),
        "conditions": conditions() | {"cpu_flags": cpu_flags(), "threads": peak["threads"]},
        "trl_best_settings": BEST,
    }
    for _, found in others:
        found |= {"ratio_to_trl_defaults": ratio(found["results"], "trl")}
        found |= {"ratio_to_trl_best": ratio(found["results"], "trl-best")}
    return json.dumps(line | {"others": dict(others)})


def cpu_flags() -> list[str]:
    """What this processor has for bfloat16 products."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    return sorted(set(re.findall(r"\b(?:amx_\w+|avx512_bf16|avx512f)\b", text)))


def search(arguments: argparse.Namespace, peak: dict[str, Any]) -> None:
    """TRL's settings, one on top of another: what gains more than noise is kept."""
    best: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ownchat-bench-") as scratch:
        base, _ = prepare(arguments.data, Path(scratch) / "rows")
        common = {
            "method": arguments.method, "base": str(base), "rows": str(Path(scratch) / "rows"), "rank": RANK,
            "alpha": ALPHA, "steps": arguments.steps, "warm": arguments.warm, "seconds": arguments.seconds,
            "minutes": None,
        }  # fmt: skip
        fastest, tried = 0.0, {}
        for number, (name, change) in enumerate([("the defaults", {}), *TRIALS.items()]):
            settings = merged(best, change)
            found = measure("trl", "with_trl.py", common | {"settings": settings}, Path(scratch) / str(number))
            speed = found.get("tokens_per_second") or 0.0
            kept = speed > MIN_GAIN * fastest
            tried[name] = {"tokens_per_second": speed, "kept": kept} | {k: found[k] for k in ("failed",) if k in found}
            print(f"{name:40}{speed:>8.0f}{'  kept' if kept else ''}  {found.get('failed', '')}", flush=True)
            if kept:
                best, fastest = settings, speed
    print(json.dumps({"best": best, "tokens_per_second": fastest, "tried": tried, "peak": peak}))


def merged(settings: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``change`` over ``settings``, dictionaries within them likewise."""
    both = dict(settings)
    for key, value in change.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def note(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
