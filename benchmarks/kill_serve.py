"""kill -9 of ``ownchat serve`` and of its trainings at random moments: is what it accepted there, once, and the same?

    python benchmarks/kill_serve.py                          20 moments
    python benchmarks/kill_serve.py --kills 4 --seed 3

A real server with a tiny model made here, and the official SDK. Files are uploaded (whole, and in parts), jobs created
(supervised with an adapter, preferences with all weights) and followed to their end. The moment is drawn first, then
who is killed in it: the server, the training, or both. A server that was killed is started again and what was asked of
it is asked again, as a client does that got no answer. At the end

- every file that was answered with 200 is there, byte for byte, and no file holds anything that was not sent;
- the jobs are those that were answered, none twice, all succeeded, each told once, with one result file and one model;
- result file, weights and optimiser's state of each are those of a job that nobody disturbed.

Prints a table and, last, one line of JSON; the exit code is 1 when something is missing, doubled or different.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
from kill import began_training, contents, in_a_fork, make_inputs

from ownchat.monitor.events import read_lines
from ownchat.serve import job_process

# In the order of a life. How often each is drawn, and who may be killed in it.
MOMENTS = {
    "uploading": 2, "creating": 2, "validating": 2, "importing": 2, "starting": 2, "training": 4, "saving": 5,
    "finishing": 3, "telling": 3,
}  # fmt: skip
ORDER = list(MOMENTS)
SERVER_ONLY = ("uploading", "creating", "validating", "telling")  # no training there, or over
VICTIMS = ("server", "training", "both")
MOST_DEATHS = 2  # of a training without a new checkpoint between them: a third one fails a job, and should
PHASES = {"supervised": "sft", "dpo": "prefer"}
BASE = "tiny"
STARTS_WITHIN, ENDS_WITHIN = 120.0, 900.0  # seconds: else something hangs
POLL_SECONDS = 0.004
PART_BYTES = 2000
JOBS: tuple[dict[str, Any], ...] = (
    {"kind": "supervised", "x_train": {"method": "lora", "rank": 4, "validate_every": 4, "patience": 100},
     "hyperparameters": {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0}},
    {"kind": "dpo", "x_train": {"method": "full", "validate_every": 4, "patience": 100},
     "hyperparameters": {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 20.0, "beta": 0.2}},
)  # fmt: skip


class Served:
    """``ownchat serve`` as a process that is started as often as it takes."""

    def __init__(self, home: Path) -> None:
        self.home, self.token = home, f"sk-own-{secrets.token_urlsafe(32)}"
        self.num_starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.client = self.start()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> openai.OpenAI:
        """A client of it, once it answers."""
        environment = os.environ | {
            "OWNCHAT_HOME": str(self.home), "OWNCHAT_API_KEY": self.token, "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self.num_starts += 1
        said = self.home.parent / f"server-{self.num_starts}.txt"
        with open(said, "wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ownchat", "serve", "--port", "0", "--engine", "hf", "--threads", "1"],
                env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + STARTS_WITHIN
        while True:
            for line in said.read_text(errors="replace").splitlines():
                if line.startswith("ownchat serves "):
                    url = line.split()[2]
                    self.client = openai.OpenAI(base_url=url, api_key=self.token, max_retries=0, timeout=60)
                    return self.client
            if not self.alive or time.monotonic() > end:
                sys.exit(f"the server does not begin:\n{said.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ask(self, work: Callable[[openai.OpenAI], Any]) -> Any:
        """What it answers; asked again of the next server when it was killed meanwhile."""
        while True:
            try:
                return work(self.client)
            except openai.APIConnectionError:
                end = time.monotonic() + 5  # the connection ends before the process is seen to
                while self.alive and time.monotonic() < end:
                    time.sleep(0.05)
                if self.alive:
                    raise
            self.start()


@dataclass
class Seen:
    """What clients were answered, and what was killed."""

    sent: dict[str, bytes] = field(default_factory=dict)  # by hash: all that was ever sent
    files: dict[str, str] = field(default_factory=dict)  # id -> hash, of those that were answered
    jobs: dict[str, int] = field(default_factory=dict)  # id -> which of JOBS
    moments: Counter[str] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)  # of each moment, from lives that nobody disturbed


class Killer:
    """Draws moments, and strikes in them."""

    def __init__(self, served: Served, seen: Seen, arguments: argparse.Namespace) -> None:
        self._served, self._seen, self._drawn = served, seen, random.Random(arguments.seed)
        self._left, self._until = arguments.kills, time.monotonic() + 60 * arguments.minutes
        self.moment: str | None = None
        self._deaths: dict[str, tuple[int, int]] = {}  # of each run: the newest step, and deaths since then
        self.draw()

    def draw(self) -> None:
        more = self._left and time.monotonic() < self._until
        self.moment = self._drawn.choices(ORDER, list(MOMENTS.values()))[0] if more else None
        self.share, self.victim = self._drawn.random(), self._drawn.choice(VICTIMS)
        if self.moment in SERVER_ONLY:
            self.victim = "server"

    @contextmanager
    def during(self, moment: str) -> Iterator[None]:
        """Kill the server at some time of what is done inside, when that is the moment."""
        if self.moment != moment:
            yield
            return
        timer = threading.Timer(self.share * self._seen.seconds[moment], self._served.kill)
        timer.start()
        yield
        timer.join()
        self._done(moment)

    def look(self, run: Path | None, phase: str) -> None:
        """Strike a job whose moment it is; one whose moment is over lives on."""
        if self.moment is None or reached(run, phase) != self.moment:
            return
        if self.moment != "saving":  # which is short
            time.sleep(self.share * self._seen.seconds[self.moment])
        if run is None or self.victim == "server" or not self._end_training(run):
            self.victim = "server"
        if self.victim != "training":
            self._served.kill()
        self._done(reached(run, phase))

    def _end_training(self, run: Path) -> bool:
        """Whether there was one, and it may die once more."""
        process = job_process.holder(run)
        newest = max((int(path.name[5:]) for path in run.glob("5-train/*/checkpoints/step-*")), default=0)
        step, deaths = self._deaths.get(run.name, (0, 0))
        deaths = deaths if newest <= step else 0
        if process is None or deaths >= MOST_DEATHS:
            return False
        self._deaths[run.name] = newest, deaths + 1
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return True

    def _done(self, moment: str) -> None:
        self._seen.moments[moment] += 1
        self._seen.victims[self.victim] += 1
        print(f"  {self._seen.moments.total():>3} {moment}: {self.victim}", file=sys.stderr, flush=True)
        self._left -= 1
        self.draw()


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and with it what it started
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ownchat-kill-serve-") as scratch:
        home = Path(scratch) / "home"
        examples = prepared(home, arguments.rows)
        seen, served = Seen(), Served(home)
        try:
            wanted = [undisturbed(served, seen, number, examples) for number in range(len(JOBS))]
            print(f"undisturbed: {json.dumps(seen.seconds)}", file=sys.stderr, flush=True)
            killer = Killer(served, seen, arguments)
            lives = 0
            while killer.moment is not None or lives < len(JOBS):
                life(served, seen, killer, lives % len(JOBS), examples, in_parts=lives // len(JOBS) % 2 == 1)
                lives += 1
            faults = [*of_files(served, seen), *of_jobs(served, seen, wanted), *of_home(served)]
        finally:
            if served.alive:
                served.kill()
            for process in filter(None, map(job_process.holder, (home / "runs").glob("*"))):
                process.end()
    rows = [(moment, seen.moments[moment]) for moment in ORDER]
    print("\n".join(f"{name:<22}{count:>6}" for name, count in [("killed while", ""), *rows]))
    counts = {"files": len(seen.files), "jobs": len(seen.jobs), "starts of the server": served.num_starts}
    print("\n".join(f"{name:<22}{count:>6}" for name, count in {**counts, "faults": len(faults)}.items()))
    print(
        json.dumps({
            "benchmark": "kill_serve", "seed": arguments.seed, "kills": seen.moments.total(),
            "moments": {moment: seen.moments[moment] for moment in ORDER}, "victims": dict(seen.victims),
            "files": len(seen.files), "jobs": len(seen.jobs), "starts": served.num_starts, "faults": faults,
            "seconds": round(time.monotonic() - began, 1),
            "conditions": {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                           "python": platform.python_version(), "rows": arguments.rows},
        })
    )  # fmt: skip
    sys.exit(1 if faults else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--minutes", type=float, default=1e9, help="after these no more moments are drawn")
    parser.add_argument("--rows", type=int, default=60, help="questions and answers of the demo")
    return parser.parse_args()


def prepared(home: Path, rows: int) -> list[bytes]:
    """A home with a base of two layers; for each of JOBS the file it learns from."""
    inbox, base = home.parent / "inbox", home / "models" / BASE
    base.parent.mkdir(parents=True, mode=0o700)
    if os.waitpid(in_a_fork(lambda: make_inputs(inbox, base, rows)), 0)[1]:
        sys.exit("the inputs cannot be made")
    (base / "manifest.json").write_text("{}")
    with open(inbox / "faq.csv", encoding="utf-8", newline="") as handle:
        pairs = [(question, answer) for question, answer, *_ in list(csv.reader(handle))[1:]]

    def said(role: str, text: str) -> dict[str, str]:
        return {"role": role, "content": text}

    chats = [{"messages": [said("user", question), said("assistant", answer)]} for question, answer in pairs]
    rated = [
        {"input": {"messages": [said("user", question)]}, "preferred_output": [said("assistant", answer)],
         "non_preferred_output": [said("assistant", f"{question} {question}")]}
        for question, answer in pairs
    ]  # fmt: skip
    return [b"".join(json.dumps(row).encode() + b"\n" for row in made) for made in (chats, rated)]


# -------------------------------------------------------------------------------------------------------- one life


def undisturbed(served: Served, seen: Seen, number: int, examples: list[bytes]) -> dict[str, Any]:
    """What such a job has to end as; notes how long each moment lasts."""
    at = {"uploading": time.monotonic()}
    file = upload(served, seen, examples[number], in_parts=False)
    at["creating"] = time.monotonic()
    job = create(served, seen, number, file)
    at["validating"] = time.monotonic()
    phase, run = PHASES[JOBS[number]["kind"]], None
    while time.monotonic() - at["validating"] < ENDS_WITHIN:
        run = run or run_of(served, job)
        now = reached(run, phase)
        at.setdefault("training" if now == "saving" else now, time.monotonic())
        if now in ("validating", "telling"):
            time.sleep(0.1)
            found = served.ask(lambda client: client.fine_tuning.jobs.retrieve(job))
            if found.status in ("succeeded", "failed"):
                break
        time.sleep(POLL_SECONDS)
    else:
        sys.exit("a job that nobody disturbed does not end")
    times = [*sorted(at.items(), key=lambda item: item[1]), ("", time.monotonic())]
    for (name, begin), (_, end) in pairwise(times):
        seen.seconds[name] = round(max(end - begin, seen.seconds.get(name, 0.0)), 3)
    wanted = ended(served, job, number)
    return wanted if "table" in wanted else sys.exit(f"a job that nobody disturbed ended otherwise: {wanted}")


def life(
    served: Served, seen: Seen, killer: Killer, number: int, examples: list[bytes], *, in_parts: bool
) -> None:  # fmt: skip
    """A file, a job, and what the killer makes of it."""
    # a comment of its own makes the bytes of each file different, and trains nothing
    content = examples[number] + b"\n" * (1 + len(seen.jobs))
    with killer.during("uploading"):
        file = upload(served, seen, content, in_parts=in_parts)
    with killer.during("creating"):
        job = create(served, seen, number, file)
    phase, run, asked = PHASES[JOBS[number]["kind"]], None, 0.0
    end = time.monotonic() + ENDS_WITHIN
    while time.monotonic() < end:
        run = run or run_of(served, job)
        killer.look(run, phase)
        if not served.alive:
            served.start()
        if time.monotonic() - asked > 0.3:
            asked = time.monotonic()
            if served.ask(lambda client: client.fine_tuning.jobs.retrieve(job)).status in ("succeeded", "failed"):
                return
        time.sleep(0 if killer.moment == "saving" else POLL_SECONDS)
    sys.exit(f"job {job} does not end")


def upload(served: Served, seen: Seen, content: bytes, *, in_parts: bool) -> str:
    """The id of a file that was accepted."""
    digest = hashlib.sha256(content).hexdigest()
    seen.sent[digest] = content
    if in_parts:
        file = served.ask(lambda client: client.uploads.upload_file_chunked(
            file=content, filename="examples.jsonl", bytes=len(content), mime_type="text/jsonl", purpose="fine-tune",
            part_size=PART_BYTES,
        ).file.id)  # fmt: skip
    else:
        file = served.ask(
            lambda client: client.files.create(file=("examples.jsonl", content), purpose="fine-tune").id
        )  # fmt: skip
    seen.files[file] = digest
    return str(file)


def create(served: Served, seen: Seen, number: int, file: str) -> str:
    """The id of a job that was accepted; a request whose answer was lost is sent again with the same mark."""
    wanted = JOBS[number]
    method = {"type": wanted["kind"], wanted["kind"]: {"hyperparameters": wanted["hyperparameters"]}}
    mark = secrets.token_hex(16)
    job = served.ask(
        lambda client: client.fine_tuning.jobs.create(
            model=BASE, training_file=file, seed=1, method=method, extra_body={"x_train": wanted["x_train"]},
            extra_headers={"Idempotency-Key": mark},
        )
    ).id  # fmt: skip
    seen.jobs[job] = number
    return str(job)


def run_of(served: Served, job: str) -> Path | None:
    found = served.home / "runs" / f"ft-{job.removeprefix('ftjob-')[:8]}"
    return found if found.is_dir() else None


def reached(run: Path | None, phase: str) -> str:
    """How far a job that was created has come, by the files of its run."""
    if run is None:
        return "validating"
    training = run / "5-train" / phase
    if (run / "6-report" / "manifest.json").is_file():
        return "telling"
    if not (training / "events.jsonl").is_file():
        return "importing" if began_training(run) is None else "starting"
    events = read_lines(training / "events.jsonl")
    if events and events[-1]["event"] == "finished":
        return "finishing"
    with suppress(OSError):
        if any(entry.name.startswith(".step-") for entry in os.scandir(training / "checkpoints")):
            return "saving"
    return "training" if events else "starting"


# --------------------------------------------------------------------------------------------------------- at the end


def ended(served: Served, job: str, number: int) -> dict[str, Any]:
    """What two jobs have in common that learned the same: result file, weights, optimiser's state and figures."""
    found = served.ask(lambda client: client.fine_tuning.jobs.retrieve(job))
    run = run_of(served, job)
    if found.status != "succeeded" or len(found.result_files) != 1 or run is None:
        return {"status": found.status, "error": found.error and found.error.message, "files": found.result_files}
    table = served.ask(lambda client: client.files.content(found.result_files[0]).read())
    losses = [float(row["train_loss"]) for row in csv.DictReader(io.StringIO(table.decode()))]
    if not losses[-1] < losses[0]:
        sys.exit(f"nothing was learned, so nothing can be compared: {losses[0]} to {losses[-1]}")
    return {
        "table": hashlib.sha256(table).hexdigest(), "trained_tokens": found.trained_tokens,
        **contents(run, PHASES[JOBS[number]["kind"]]),
    }  # fmt: skip


def of_files(served: Served, seen: Seen) -> list[str]:
    listed = [file.id for file in served.ask(lambda client: list(client.files.list(purpose="fine-tune")))]
    faults = [f"{file} is not listed" for file in seen.files if file not in listed]
    for file in listed:
        digest = hashlib.sha256(served.ask(lambda client, id=file: client.files.content(id).read())).hexdigest()
        if digest != seen.files.get(file, digest) or digest not in seen.sent:
            faults.append(f"{file} holds other bytes than were sent")
    return faults


def of_jobs(served: Served, seen: Seen, wanted: list[dict[str, Any]]) -> list[str]:
    listed = [job.id for job in served.ask(lambda client: list(client.fine_tuning.jobs.list(limit=100)))]
    faults = [] if sorted(listed) == sorted(seen.jobs) else [f"jobs {sorted(listed)}, not {sorted(seen.jobs)}"]
    models = [model.id for model in served.ask(lambda client: list(client.models.list()))]
    for job, number in seen.jobs.items():
        found = ended(served, job, number)
        faults += [
            f"{job}: {key} differs: {found.get(key)}" if key in ("status", "error") else f"{job}: {key} differs"
            for key in sorted(found | wanted[number]) if found.get(key) != wanted[number].get(key)
        ]  # fmt: skip
        events = served.ask(lambda client, id=job: list(client.fine_tuning.jobs.list_events(id, limit=100)))
        told = Counter(event.message for event in events)
        once = ["Fine-tuning job started", "The job has successfully completed", f"Created fine-tuning job: {job}"]
        faults += [f"{job}: told {told[text]} times: {text}" for text in once if told[text] != 1]
        steps = Counter(event.data["step"] for event in events if event.type == "metrics")
        faults += [f"{job}: step {step} is told twice" for step, count in steps.items() if count > 1]
        name = served.ask(lambda client, id=job: client.fine_tuning.jobs.retrieve(id)).fine_tuned_model
        if models.count(name) != 1:
            faults.append(f"{job}: its model {name} is listed {models.count(name)} times")
    return faults


def of_home(served: Served) -> list[str]:
    """What is left of jobs that are over."""
    jobs = served.home / "server" / "jobs"
    faults = [f"a copy of a file is left in {path.relative_to(jobs)}" for path in jobs.glob("*/data")]
    runs = [path for path in (served.home / "runs").iterdir() if job_process.holder(path) is not None]
    return faults + [f"a process works on {run.name}" for run in runs]


if __name__ == "__main__":
    main()
