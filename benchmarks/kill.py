"""kill -9 at random moments, the same command again, until it is done: are the weights those of a quiet run?

    python benchmarks/kill.py                                50 moments each, LoRA and full
    python benchmarks/kill.py --method lora --kills 6 --seed 3
    python benchmarks/kill.py --fork                         each start in seconds less

The whole ``ownchat train`` on a tiny model made here and on the demo's real questions and answers, on one thread. Every
start is a program of its own; with ``--fork`` a copy of a process that has loaded the libraries and done nothing. The
moments are random within a phase that is drawn first; saving, the shortest, is drawn most often. After the kill the
run's directory tells which phase it was. A run that ends before all moments are used up is compared and the next one
begins. Compared with a run that nobody disturbed: model, adapter, the optimiser's state and every row of
``metrics.jsonl`` but its times. Prints a table and, last, one line of JSON; the exit code is 1 when a bit differs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ownchat.monitor.events import read_lines

PHASES = ("preparing", "starting", "training", "validating", "saving", "exporting", "evaluating")
DRAWN = {"starting": 4, "training": 6, "validating": 5, "saving": 10, "exporting": 3}  # how often, of 28
VALIDATE_EVERY = 4
MOST_AHEAD = 3  # validations or saves that a process may make before the one in which it is killed
TIMES = ("seconds", "tokens_per_second")  # what is measured, not computed
ENDS_WITHIN = 600  # seconds for one start: else something hangs
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass
class Trial:
    """One method: how it is started, how long its phases last, and what was seen."""

    command: Callable[[str], list[str]]  # of a run's name
    home: Path
    moments: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)  # of each phase, from the quiet run
    fork: bool = False

    def run(self, name: str) -> Path:
        return self.home / "runs" / name

    def start(self, name: str) -> Started:
        return Started(self.command(name), self.home, self.fork)


class Started:
    """A run of the program with standard error in ``home/stderr``, in a process group of its own."""

    def __init__(self, command: list[str], home: Path, fork: bool) -> None:
        environment = os.environ | {"OWNCHAT_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.returncode: int | None = None
        with open(home / "stderr", "wb") as errors:
            if fork:
                self.pid = in_a_fork(lambda: self._become(command, environment, errors.fileno()))
            else:
                self._process = subprocess.Popen(
                    command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
                )
                self.pid = self._process.pid

    def _become(self, command: list[str], environment: dict[str, str], errors: int) -> None:
        from ownchat.cli import main

        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(errors, 2)
        os.environ.update(environment)
        sys.argv = command[2:]  # after "python -m"
        main()

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        end = time.monotonic() + ENDS_WITHIN
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                sys.exit(f"process {self.pid} has not ended for {ENDS_WITHIN} s")
            time.sleep(0.005)
        return code


def in_a_fork(work: Callable[[], None]) -> int:
    """Its process id."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    arguments = parse()
    methods = ("lora", "full") if arguments.method == "both" else (arguments.method,)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="ownchat-kill-") as scratch:
        inbox, base = Path(scratch) / "inbox", Path(scratch) / "base"
        if os.waitpid(in_a_fork(lambda: make_inputs(inbox, base, arguments.rows)), 0)[1]:
            sys.exit("the inputs cannot be made")
        if arguments.fork:  # loaded, and not used: nothing of it runs in threads that a fork would lose
            from ownchat.evaluate import held_out  # noqa: F401
            from ownchat.train import stage  # noqa: F401
        for method in methods:
            home = Path(scratch) / method
            home.mkdir()
            results[method] = killed(
                Trial(commands(method, inbox, base, arguments.epochs), home, fork=arguments.fork), arguments
            )
            print(f"{method}: {json.dumps(results[method])}", file=sys.stderr, flush=True)
    print(table(results))
    conditions = {
        "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "python": platform.python_version(), "rows": arguments.rows, "fork": arguments.fork,
    }  # fmt: skip
    print(json.dumps({"benchmark": "kill", "seed": arguments.seed, "methods": results, "conditions": conditions}))
    sys.exit(0 if all(not found["different"] for found in results.values()) else 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="moments for each method")
    parser.add_argument("--method", choices=("lora", "full", "both"), default="both")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--rows", type=int, default=200, help="questions and answers of the demo")
    parser.add_argument("--fork", action="store_true", help="start copies of a process that has loaded the libraries")
    parser.add_argument("--epochs", type=int, default=3)
    return parser.parse_args()


def make_inputs(inbox: Path, base: Path, rows: int) -> None:
    """The first rows of the demo as a folder, and a random Llama of two layers with a tokenizer of the same text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    from ownchat.pipeline.demo import demo_folder

    inbox.mkdir()
    with open(demo_folder() / "faq.csv", encoding="utf-8", newline="") as handle:
        some = [row for _, row in zip(range(rows + 1), csv.reader(handle), strict=False)]
    with open(inbox / "faq.csv", "w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows(some)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((cell for row in some for cell in row), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(base)
    tokenizer.save_pretrained(base)


def commands(method: str, inbox: Path, base: Path, epochs: int) -> Callable[[str], list[str]]:
    settings = [
        "model.dtype=float32", "data.workers=1", "train.threads=1", "train.batch_tokens=1024",
        f"train.validate_every={VALIDATE_EVERY}", "train.patience=1000", "evaluate.answers=0", "evaluate.draws=100",
        *(["train.learning_rate=1e-3"] if method == "full" else []),
    ]  # fmt: skip

    def command(name: str) -> list[str]:
        named = ["--name", name, "--base", str(base), "--method", method, "--epochs", str(epochs)]
        sets = [part for setting in settings for part in ("--set", setting)]
        return [sys.executable, "-m", "ownchat", "train", str(inbox), *named, *sets]

    return command


def killed(trial: Trial, arguments: argparse.Namespace) -> dict[str, Any]:
    """All kills of one method; what came of them."""
    began, drawn = time.monotonic(), random.Random(arguments.seed)
    to_the_end(trial, "whole")
    wanted, different = contents(trial.run("whole")), list[str]()
    rounds, name = 0, "killed-1"
    while True:
        done = sum(trial.moments.values())
        moment = None
        if done < arguments.kills:
            (moment,) = drawn.choices(list(DRAWN), list(DRAWN.values()))
        if moment is not None and (phase := strike(trial, name, moment, drawn)) is not None:
            trial.moments[phase] += 1
            print(f"  {done + 1:>3} {phase}", file=sys.stderr, flush=True)
            continue
        if moment is None:
            to_the_end(trial, name)
        found = contents(trial.run(name))
        different += [f"{name}: {key}" for key in sorted(wanted | found) if wanted.get(key) != found.get(key)]
        rounds, name = rounds + 1, f"killed-{rounds + 2}"
        if done == arguments.kills:
            break
    return {
        "kills": arguments.kills, "moments": {phase: trial.moments[phase] for phase in PHASES}, "runs": rounds,
        "steps": len(wanted["metrics"]), "different": different, "left_behind": left_behind(trial.home),
        "quiet_seconds": {key: round(value, 3) for key, value in trial.seconds.items()},
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def strike(trial: Trial, name: str, moment: str, drawn: random.Random) -> str | None:
    """Start the run, kill it in (about) this moment; the phase in which it died, or None when it ended before."""
    run, ahead = trial.run(name), drawn.randrange(MOST_AHEAD)
    training, share = run / "5-train" / "sft", drawn.random()
    events, metrics = training / "events.jsonl", training / "metrics.jsonl"
    before = len(read_lines(events))
    process = trial.start(name)

    def happened(event: str) -> int:
        return sum(row["event"] == event for row in read_lines(events)[before:])

    def validating() -> bool:
        rows = read_lines(metrics)
        return bool(rows) and "loss" in rows[-1] and rows[-1]["step"] % VALIDATE_EVERY == 0

    def saving() -> bool:
        return any(entry.name.startswith(".step-") for entry in os.scandir(training / "checkpoints"))

    if moment == "starting":
        fresh = began_training(run) is None
        wait(process, lambda: False, share * (trial.seconds["starting"] + fresh * trial.seconds["preparing"]))
    elif wait(process, lambda: happened("started") + happened("resumed") > 0):
        match moment:
            case "validating":
                wait(process, lambda: happened("validated") >= ahead) and wait(process, validating, pause=1e-4)
            case "saving":
                wait(process, lambda: happened("saved") >= ahead and (training / "checkpoints").is_dir())
                wait(process, saving, pause=0)
            case "exporting":
                wait(process, lambda: happened("finished") > 0)
        wait(process, lambda: False, share * trial.seconds[moment])
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    if process.wait() == 0:
        return None
    if process.returncode != -signal.SIGKILL:
        sys.exit(f"it ended by itself with {process.returncode}:\n{(trial.home / 'stderr').read_text()[-3000:]}")
    return phase_of(run, before)


def wait(process: Started, seen: Callable[[], bool], seconds: float = ENDS_WITHIN, *, pause: float = 2e-3) -> bool:
    """Until it is seen, the time is over, or the process has ended; whether it was seen."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if seen():
            return True
        time.sleep(min(pause, max(0.0, end - time.monotonic())))
    return False


def phase_of(run: Path, events_before: int) -> str:
    """What a process that died did last, by the files it left."""
    training = run / "5-train" / "sft"
    if (run / "5-train" / "manifest.json").is_file():
        return "evaluating"
    if began_training(run) is None:
        return "preparing"
    events, rows = read_lines(training / "events.jsonl")[events_before:], read_lines(training / "metrics.jsonl")
    if not events:
        return "starting"
    if events[-1]["event"] == "finished":
        return "exporting"
    if any((training / "checkpoints").glob(".step-*")):
        return "saving"
    if not rows:
        return "validating"  # the base
    last, begin = rows[-1], events[0]
    if "loss" in last:
        due = last["step"] % VALIDATE_EVERY == 0 or last["step"] == begin["total_steps"]
        return "validating" if due else "training"
    saved = {row["step"] for row in events if row["event"] == "saved"} | {begin["step"]}
    return "training" if last["step"] in saved else "saving"


def began_training(run: Path) -> float | None:
    """When the training stage began, if it did (Unix seconds): it writes its settings first."""
    return next((path.stat().st_mtime for path in (run / "5-train").rglob("settings.json")), None)


def to_the_end(trial: Trial, name: str) -> None:
    """Run it undisturbed, and note how long each phase lasts."""
    spawned, process = time.time(), trial.start(name)
    if process.wait():
        sys.exit(f"it failed with {process.returncode}:\n{(trial.home / 'stderr').read_text()[-3000:]}")
    if trial.seconds:
        return
    training = trial.run(name) / "5-train" / "sft"
    events, rows = read_lines(training / "events.jsonl"), read_lines(training / "metrics.jsonl")
    at = {row["event"]: row["time"] for row in events}
    prepared = began_training(trial.run(name))
    assert prepared is not None
    validations = [row["seconds"] - before["seconds"] for before, row in pairwise(rows)]
    trial.seconds = {
        "preparing": prepared - spawned,
        # a start anew loads the libraries, too
        "starting": (at["started"] - prepared) * (1 if trial.fork else 4),
        "training": 0.6 * (at["finished"] - at["started"]),
        "validating": max(gap for gap, row in zip(validations, rows[1:], strict=True) if "validation_loss" in row),
        "saving": 1.2 * max(
            row["time"] - before["time"] for before, row in pairwise(events)
            if row["event"] == "saved"
        ),
        "exporting": (trial.run(name) / "5-train" / "manifest.json").stat().st_mtime - at["finished"],
    }  # fmt: skip


def contents(run: Path, phase: str = "sft") -> dict[str, Any]:
    """What has to be the same: hashes of weights and of the last optimiser's state, and the metrics without times."""
    training = run / "5-train"
    last = max((training / phase / "checkpoints").glob("step-*"))
    files = [
        *training.glob("model/*.safetensors"),
        *training.glob("adapter/*.safetensors"),
        *last.rglob("*.safetensors"),
    ]
    found: dict[str, Any] = {
        str(file.relative_to(training)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    rows = read_lines(training / phase / "metrics.jsonl")
    return found | {"metrics": [{key: row[key] for key in row if key not in TIMES} for row in rows]}


def left_behind(home: Path) -> int:
    """Half-written files that no later start took away."""
    return sum(1 for path in home.rglob(".*tmp*"))


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'killed while':<14}" + "".join(f"{method:>10}" for method in results)]
    lines += [
        f"{phase:<14}" + "".join(f"{found['moments'][phase]:>10}" for found in results.values()) for phase in PHASES
    ]
    lines += [f"{'in all':<14}" + "".join(f"{found['kills']:>10}" for found in results.values())]
    lines += [f"{'runs compared':<14}" + "".join(f"{found['runs']:>10}" for found in results.values())]
    equal = ["differ" if found["different"] else "identical" for found in results.values()]
    return "\n".join([*lines, f"{'final bits':<14}" + "".join(f"{text:>10}" for text in equal)])


if __name__ == "__main__":
    main()
