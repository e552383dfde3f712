"""What becomes of jobs when processes, disks and servers fail; the processes are small ones of the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ownchat.artifacts import MANIFEST, REPORT, TRAIN, locked
from ownchat.serve import job_process
from ownchat.serve.job_process import JobProcess
from ownchat.serve.job_store import CANCELLED, FAILED, PAUSED, QUEUED, RUNNING, SUCCEEDED

EXAMPLES = b"".join(
    json.dumps({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "ok"}]}).encode()
    + b"\n"
    for n in range(12)
)
HOLD = """
import sys
from pathlib import Path
from ownchat.artifacts import locked
with locked(Path(sys.argv[1]) / sys.argv[2]):
    print(flush=True)
    sys.stdin.read()
"""


class Bench:
    """Jobs of a server whose rounds the test makes itself."""

    def __init__(self, gateway: Any) -> None:
        self.home: Path = gateway.services.settings.home
        self.jobs, self.files, self.runner = (getattr(gateway.app.state, name) for name in ("jobs", "files", "runner"))
        self._round = self.runner.tick
        idle = threading.Event()
        self.runner.tick = idle.set
        self.runner.wake()
        assert idle.wait(60), "the server's own first round is over, and makes nothing of the jobs that follow"

    def job(self) -> str:
        """A job that waits for its turn."""
        came = self.files.incoming()
        came.write_bytes(EXAMPLES)
        file = self.files.add("anna", came, filename="a.jsonl", purpose="fine-tune", sha256="").id
        values = {
            "model": "starter", "training_file": file, "validation_file": None, "method": "supervised", "seed": 1,
            "hyperparameters": dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto"),
            "suffix": None, "train": {}, "metadata": {},
        }  # fmt: skip
        row, _ = self.jobs.create("anna", values, body_hash=os.urandom(8).hex(), again=None, is_retry=False)
        self.runner._validate(row)
        return str(row.id)

    def row(self, id: str) -> Any:
        return self.jobs.get("anna", id)

    def run(self, id: str) -> Path:
        return self.home / "runs" / str(self.row(id).run)

    def told(self, id: str) -> list[str]:
        return [event.message for event in self.jobs.events(id, after=None, limit=100)[0]]

    def until(self, id: str, seen: Callable[[Any], bool]) -> Any:
        """Rounds until a job is as wanted."""
        end = time.monotonic() + 60
        while not seen(self.row(id)):
            assert time.monotonic() < end, (self.row(id), self.told(id))
            self._round()
            time.sleep(0.02)
        return self.row(id)


@pytest.fixture
def bench(serving: Callable[..., Any]) -> Bench:
    return Bench(serving())


@pytest.fixture
def trains(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """``trains(script)``: what is begun instead of a training; gives the runs for which it was."""

    def instead(script: str) -> list[str]:
        begun: list[str] = []

        def start(home: Path, source: Path, run: str, arguments: Any, log: Path) -> JobProcess:
            begun.append(run)
            with open(log, "ab") as handle:
                child = subprocess.Popen(["sh", "-c", script], stdout=handle, stderr=handle, start_new_session=True)
            return JobProcess(child.pid, job_process.started_at(child.pid), child)

        monkeypatch.setattr(job_process, "start", start)
        return begun

    return instead


def checkpoint(run: Path, step: int) -> None:
    state = run / TRAIN / "sft" / "checkpoints" / f"step-{step:06}" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")


def finish(run: Path) -> None:
    for stage, report in ((TRAIN, {"report": {"counts": {"tokens": 5}}}), (REPORT, {})):
        (run / stage).mkdir(parents=True, exist_ok=True)
        (run / stage / MANIFEST).write_text(json.dumps(report))


def test_a_full_disk_is_waited_for_and_a_mistake_is_not(bench: Bench, trains: Callable[[str], list[str]]) -> None:
    begun = trains("echo 'ownchat: /x: the disk is full'; exit 2")
    first = bench.job()
    row = bench.until(first, lambda row: row.attempts == 1)
    data = bench.home / "server" / "jobs" / first / "data"
    assert row.status == QUEUED and row.pid is None and data.is_dir()
    assert bench.told(first)[0].startswith("Its process ended (/x: the disk is full)")
    assert len(begun) == 1
    begun = trains("echo 'ownchat: a.jsonl: nothing to learn from'; exit 2")
    second = bench.job()  # its turn comes while the other one waits
    row = bench.until(second, lambda row: row.status == FAILED)
    assert row.error["code"] == "training_failed" and "nothing to learn from" in row.error["message"]
    assert len(begun) == 1 and bench.row(first).status == QUEUED and data.is_dir()


def test_a_training_that_gets_further_is_begun_again_as_often_as_it_takes(
    bench: Bench, trains: Callable[[str], list[str]]
) -> None:
    trains("exit 1")
    id = bench.job()
    for step in (8, 16, 24, 32):
        checkpoint(bench.run(id), step)
        row = bench.until(id, lambda row, step=step: row.command.get("reached") == step)
        assert row.attempts == 1
    row = bench.until(id, lambda row: row.status == FAILED)
    assert row.error["code"] == "server_error" and "ended 3 times" in row.error["message"]


def test_a_training_that_was_stopped_is_no_attempt(bench: Bench, trains: Callable[[str], list[str]]) -> None:
    trains("exit 1")
    id = bench.job()
    events = bench.run(id) / TRAIN / "sft" / "events.jsonl"
    events.parent.mkdir(parents=True)
    for time_ in (1.0, 2.0, 3.0, 4.0):
        events.write_text(json.dumps({"time": time_, "event": "stopped"}) + "\n")
        row = bench.until(id, lambda row, time_=time_: row.command.get("stop") == time_)
        assert row.attempts == 0
    bench.until(id, lambda row: row.status == FAILED)  # the last one is believed once


def test_a_process_whose_number_could_not_be_noted_is_not_begun_twice(
    bench: Bench, trains: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownchat.serve.runner.FAULT_SECONDS", 0.0)
    begun, save, failures = trains("sleep 60"), bench.jobs.set, [1, 1]

    def set_(id: str, **values: Any) -> Any:
        if values.get("pid") is not None and failures:
            failures.pop()
            raise RuntimeError("the database is away")
        return save(id, **values)

    monkeypatch.setattr(bench.jobs, "set", set_)
    id = bench.job()
    row = bench.until(id, lambda row: row.pid is not None)
    assert len(begun) == 1 and not failures
    save(id, status=CANCELLED)
    os.kill(row.pid, 9)
    bench.until(id, lambda row: row.pid is None)


def test_what_another_machine_trains_is_left_alone(bench: Bench, trains: Callable[[str], list[str]]) -> None:
    begun = trains("sleep 60")
    id = bench.job()
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        bench.jobs.set(id, status=RUNNING, pid=stranger.pid, pid_started="another-boot-77")
        with locked(bench.run(id)):
            for _ in range(3):
                bench._round()
            assert bench.row(id).pid == stranger.pid, "it is waited for"
            bench.jobs.set(id, status=RUNNING, pid=None, pid_started=None)
            for _ in range(3):
                bench._round()
            assert not begun
        bench.jobs.set(id, pid=stranger.pid, pid_started="another-boot-77")
        row = bench.until(id, lambda row: begun and row.pid not in (None, stranger.pid))
        assert stranger.poll() is None
        bench.jobs.set(id, status=CANCELLED)
        os.kill(row.pid, 9)
        bench.until(id, lambda row: row.pid is None)
    finally:
        stranger.kill()
        stranger.wait()


def test_a_training_that_ended_unseen_is_told_whole(bench: Bench, trains: Callable[[str], list[str]]) -> None:
    """Its server was killed before it noted the process, and the next one began when all was done."""
    begun = trains("exit 1")
    id = bench.job()
    run = bench.run(id)
    finish(run)
    (run / TRAIN / "sft").mkdir()
    lines = [json.dumps({"step": step, "loss": 2.0 / step}) + "\n" for step in (1, 2, 3)]
    (run / TRAIN / "sft" / "metrics.jsonl").write_text("".join(lines))
    row = bench.until(id, lambda row: row.status == SUCCEEDED)
    assert not begun
    told = bench.files.path(row.result_files[0]).read_text().splitlines()
    assert [line.split(",")[:2] for line in told[1:]] == [["1", "2.0"], ["2", "1.0"], ["3", str(2 / 3)]]


def test_a_finished_job_ends_on_a_disk_without_room_and_blocks_nobody(
    bench: Bench, trains: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = trains("true")
    id, other = bench.job(), bench.job()
    finish(bench.run(id))
    monkeypatch.setattr("ownchat.serve.file_store.SPARE_BYTES", 1 << 60)
    monkeypatch.setattr("ownchat.serve.runner.FAULT_SECONDS", 0.2)
    add, failures = bench.files.add_made, [1] * 5

    def add_made(*given: Any, **more: Any) -> None:
        if failures:
            failures.pop()
            raise OSError(28, "No space left on device")
        add(*given, **more)

    monkeypatch.setattr(bench.files, "add_made", add_made)
    row = bench.until(id, lambda row: row.status == SUCCEEDED)
    assert row.pid is None and row.trained_tokens == 5 and not failures
    assert begun and set(begun) == {bench.row(other).run}, "the other one had its turn meanwhile"
    assert bench.files.get("anna", row.result_files[0]).purpose == "fine-tune-results"


@pytest.mark.parametrize("of_now", [True, False])
def test_a_job_of_an_older_version_learns_nothing_of_its_validation_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, of_now: bool
) -> None:
    """Which arguments hold the file out is decided when a job is validated, and it may wait for long."""
    sources: list[Path] = []

    def start(home: Path, source: Path, run: str, arguments: Any, log: Path) -> JobProcess:
        sources.append(source)
        child = subprocess.Popen(["true"], start_new_session=True)
        return JobProcess(child.pid, job_process.started_at(child.pid), child)

    monkeypatch.setattr(job_process, "start", start)
    id = bench.job()
    command = bench.row(id).command
    more = ["--set", 'data.map={"valid": "validation.jsonl"}'] if of_now else []
    bench.jobs.set(id, validation_file="file-1", command={**command, "arguments": [*command["arguments"], *more]})
    bench.until(id, lambda row: sources)
    data = bench.home / "server" / "jobs" / id / "data"
    assert sources[0] == (data if of_now else data / "training.jsonl")
    bench.until(id, lambda row: row.status == FAILED)


@pytest.mark.parametrize("status", [PAUSED, CANCELLED])
def test_a_process_that_nobody_noted_is_found_and_stopped(bench: Bench, status: str) -> None:
    """Its server was killed after it began, and the job stopped before the next one looked."""
    id = bench.job()
    run = bench.run(id)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.parent), run.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline()
    bench.jobs.set(id, status=status)
    bench.runner._sweep()
    assert bench.row(id).pid == child.pid
    bench.until(id, lambda row: row.pid is None)
    assert child.wait(10) == -15 and run.is_dir() == (status == PAUSED)
