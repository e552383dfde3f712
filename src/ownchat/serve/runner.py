"""Brings processes in line with what jobs are to be: one trains at a time, the others wait; and follows what it does.

Nothing here is remembered that is not in the database or in the run: a server that is killed and started again finds
the process that goes on, or begins it again with the same arguments, which go on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import OperationalError

from ownchat.artifacts import MANIFEST, REPORT, is_locked
from ownchat.errors import RunError, UserError
from ownchat.serve import job_process
from ownchat.serve.catalogue import TRASH, Catalogue, Entry
from ownchat.serve.file_store import FileStore
from ownchat.serve.job_events import Watch, newest_step, result_file, stopped_at, trained_tokens
from ownchat.serve.job_process import JobProcess
from ownchat.serve.job_store import (
    CANCELLED,
    FAILED,
    QUEUED,
    RUNNING,
    STOPPED,
    SUCCEEDED,
    VALIDATING,
    Event,
    JobStore,
    model_name,
)
from ownchat.serve.job_validation import TRAINING, Failed, prepare
from ownchat.serve.leading import Lead
from ownchat.serve.logs import log
from ownchat.serve.protocol.fine_tuning import Train
from ownchat.serve.settings import Settings

TICK_SECONDS, IDLE_SECONDS = 0.3, 5.0
PAUSE_SECONDS, CANCEL_SECONDS = 300.0, 20.0  # to save and end, before it is ended
ESTIMATE_SECONDS = 5.0
MOST_ATTEMPTS = 3  # of a training that ends without a reason, and without a new checkpoint
MOST_MOMENTARY, MOMENT_SECONDS, LONGEST_REST = 8, 15.0, 600.0  # of one that the machine has no room for: half an hour
MOST_FAULTS, FAULT_SECONDS = 4, 1.0  # of ours on one job; the pause between two doubles each time
FULL = (errno.ENOSPC, errno.EDQUOT)
SWEEP_SECONDS = 60.0
DATA, LOG = "data", "log.txt"


class Runner:
    """A thread that works through the jobs of a home. One server has one; of two on the same home one has none."""

    def __init__(self, store: JobStore, files: FileStore, catalogue: Catalogue, settings: Settings) -> None:
        self._store, self._files, self._catalogue, self._settings = store, files, catalogue, settings
        self._home = settings.home
        self._lead = Lead(store.database, settings.home)
        self._processes: dict[str, JobProcess] = {}
        self._watches: dict[str, Watch] = {}
        self._estimated: dict[str, float] = {}
        self._faults: dict[tuple[str, str], int] = {}  # by job and by what was done with it
        self._rests: dict[str, float] = {}  # jobs that are left alone until then (monotonic seconds)
        self._swept = 0.0
        self._woken, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def claim(self) -> None:
        """Make this the one server that works on the home. On a database that gateways share it may wait for its turn.

        Raises :class:`~ownchat.errors.RunError` when another server does.
        """
        if not self._lead.is_shared:
            self._lead.take()

    def start(self) -> None:
        """Begin to work. Raises as :meth:`claim` does."""
        self.claim()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something changed: look now."""
        self._woken.set()

    def close(self) -> None:
        """Stop looking. What trains goes on: the next server finds it."""
        self._ending.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(60)
        self._lead.release()

    @property
    def leads(self) -> bool:
        """Whether this is the server that works on the jobs."""
        return self._lead.held

    def _work(self) -> None:
        while not self._ending.is_set():
            busy = False
            try:
                with contextlib.suppress(RunError):
                    self._lead.take()
                if self.leads:
                    self._lead.check()
                    busy = self.tick()
            except Exception as error:  # a database that is away for a moment ends no server
                self._lead.release(lost=True)
                log("jobs_failed", level=logging.ERROR, error=error)
            self._woken.wait(TICK_SECONDS if busy else IDLE_SECONDS)
            self._woken.clear()

    # -------------------------------------------------------------------------------------------- one round

    def tick(self) -> bool:
        """Look at every job that is not over; whether there is one."""
        if time.monotonic() - self._swept > SWEEP_SECONDS or self._swept == 0.0:
            self._swept = time.monotonic()
            self._sweep()
        rows = self._store.active()
        ids = {row.id for row in rows}
        self._faults = {step: count for step, count in self._faults.items() if step[0] in ids}
        self._rests = {id: until for id, until in self._rests.items() if id in ids and until > time.monotonic()}
        for row in rows:
            if row.pid is not None:
                self._guarded(row, self._attend)
        for row in self._store.active():
            if row.status in (VALIDATING, QUEUED) and not row.validated:
                self._guarded(row, self._validate)
        rows = self._store.active()
        if all(row.pid is None for row in rows):  # one trains at a time: the machine has one set of cores
            ready = [row for row in rows if row.validated and row.id not in self._rests]
            due = [row for row in ready if row.status == RUNNING] or [row for row in ready if row.status == QUEUED]
            if due:
                self._guarded(due[0], self._launch)
        return bool(rows)

    def _guarded(self, row: Row[Any], work: Callable[[Row[Any]], None]) -> None:
        """One job that cannot be worked on must not hold up the others."""
        if row.id in self._rests:
            return
        step = (row.id, work.__name__)
        try:
            work(row)
            self._faults.pop(step, None)
        except Failed as failure:
            self._fail(row, failure)
        except Exception as error:
            log("job_fault", level=logging.ERROR, error=error, job=row.id)
            of_the_machine = isinstance(error, OperationalError) or getattr(error, "errno", 0) in FULL
            count = self._faults[step] = self._faults.get(step, 0) + (not of_the_machine)
            self._rest(row, FAULT_SECONDS * 2**count)
            process = self._processes.get(row.id)
            if count >= MOST_FAULTS and (process is None or not process.alive):  # else it trains all the same
                self._free(row)
                self._fail(row, Failed("server_error", "the server failed on this job; its log has more"))

    def _rest(self, row: Row[Any], seconds: float) -> None:
        """Leave it alone for a while; others may have their turn."""
        self._rests[row.id] = time.monotonic() + seconds

    def _attend(self, row: Row[Any]) -> None:
        """A job with a process: follow it, stop it, or see how it ended."""
        process = self._processes.get(row.id)
        if process is None or process.pid != row.pid:
            process = self._processes[row.id] = job_process.adopted(row.pid, row.pid_started or "")
        if not process.alive and not (process.is_elsewhere and is_locked(self._run(row))):
            self._ended(row, process)
        elif row.status == RUNNING:
            self._follow(row)
        elif row.stopping is None and row.status in (QUEUED, VALIDATING):  # resumed before anybody stopped it
            self._store.set(row.id, only=(QUEUED,), status=RUNNING)
        elif row.stopping is None:
            process.stop()
            self._store.set(row.id, stopping=time.time())
        elif time.time() - row.stopping > (CANCEL_SECONDS if row.status == CANCELLED else PAUSE_SECONDS):
            process.end()

    def _follow(self, row: Row[Any], *, over: bool = False) -> None:
        watch = self._watches.setdefault(row.id, Watch(self._run(row)))
        self._store.tell(row.id, watch.look(over=over))
        while over and watch.num_read:
            self._store.tell(row.id, watch.look(over=True))
        if not over and time.monotonic() - self._estimated.get(row.id, 0.0) > ESTIMATE_SECONDS:
            self._estimated[row.id] = time.monotonic()
            self._store.set(row.id, only=(RUNNING,), estimated=watch.estimate())

    # ------------------------------------------------------------------------------------------- beginning

    def _validate(self, row: Row[Any]) -> None:
        """Look at its files, and decide what it will be run with."""
        self._store.tell(row.id, [Event("validating", f"Validating training file: {row.training_file}")])
        folder, threads = self._folder(row) / DATA, self._settings.num_threads
        command, events = prepare(row, self._base(row), self._files, folder, threads=threads)
        events.append(Event("queued", "Files validated, moving job to queued state"))
        self._store.set(row.id, only=(VALIDATING, QUEUED), validated=True, status=QUEUED, command=command, tell=events)

    def _base(self, row: Row[Any]) -> Entry:
        try:
            return self._catalogue.find(row.model)
        except UserError as error:
            raise Failed("model_not_found", f"The model {row.model} is not there any more", "model") from error

    def _launch(self, row: Row[Any]) -> None:
        """Begin, or go on with, its training; or end the job whose training was done and not told."""
        run = self._run(row)
        # begun and not noted: here, or by a server that was killed before it could
        process = self._processes.get(row.id) or job_process.holder(run)
        if process is None and is_locked(run):
            return  # another machine works on it
        done = process is None and (run / REPORT / MANIFEST).is_file()
        if process is None and not done:
            self._base(row)
        if row.status == QUEUED:
            changed = self._store.set(
                row.id,
                only=(QUEUED,),
                status=RUNNING,
                stopping=None,
                hyperparameters=row.command["resolved"],
                started=row.started or int(time.time()),
                tell=[Event("started", "Fine-tuning job started")],
            )
            if changed is None:
                return  # paused or cancelled at this moment
        if done:
            self._follow(row, over=True)  # a server that was killed may not have told all of it
            self._succeed(row)
            self._watches.pop(row.id, None)
            return
        if process is None:
            folder = self._folder(row)
            # a job of an older version has a validation file too, and no arguments that hold it out
            held_out = any(part.startswith("data.map=") for part in row.command["arguments"])
            source = folder / DATA if held_out else folder / DATA / TRAINING
            process = job_process.start(self._home, source, row.run, row.command["arguments"], folder / LOG)
        self._processes[row.id] = process
        self._watches[row.id] = Watch(run)
        self._store.set(row.id, pid=process.pid, pid_started=process.started)
        log("job_process", job=row.id, pid=process.pid)

    # ----------------------------------------------------------------------------------------------- ending

    def _ended(self, row: Row[Any], process: JobProcess) -> None:
        run = self._run(row)
        self._follow(row, over=True)
        process.sweep()
        if row.status == CANCELLED:
            self._free(row)
            self._discard(row)
        elif row.status != RUNNING:
            self._free(row, Event(secrets.token_hex(8), "Its process has ended; the memory is free"))
        elif (run / REPORT / MANIFEST).is_file():
            self._free(row)  # by itself: what follows may have to be tried again, and others may train meanwhile
            self._succeed(row)
        elif (other := job_process.holder(run)) is not None:
            self._store.set(row.id, pid=other.pid, pid_started=other.started)
        elif not is_locked(run):
            self._stopped_early(row, process.exit_code)

    def _stopped_early(self, row: Row[Any], code: int | None) -> None:
        """It is begun again, unless it is a mistake, or it ended too often without getting further."""
        run = self._run(row)
        message = job_process.last_words(self._folder(row) / LOG).replace(str(self._home), "~") if code == 2 else ""
        momentary = job_process.is_momentary(message)
        if code == 2 and not momentary:
            self._free(row)
            raise Failed("training_failed", message or "the training refused to begin")
        reached, stop = newest_step(run), stopped_at(run)
        attempts = row.attempts if reached <= row.command.get("reached", 0) else 0
        # somebody ended it, as when the machine goes down; each of these is believed once
        asked = code in (130, -15) or stop not in (None, row.command.get("stop"))
        event = None
        if not asked:
            how = f" ({message})" if message else "" if code is None else f" (code {code})"
            log("job_died", level=logging.ERROR, job=row.id, code=code)
            attempts += 1
            most = MOST_MOMENTARY if momentary else MOST_ATTEMPTS
            if attempts >= most:
                self._free(row)
                why = "" if momentary else " without a reason"
                raise Failed("server_error", f"its process ended {most} times{why}{how}")
            event = Event(secrets.token_hex(8), f"Its process ended{how}; it goes on from the last checkpoint", "warn")
        command = row.command | {"reached": reached, "stop": stop}
        self._store.set(row.id, only=(RUNNING,), status=QUEUED, attempts=attempts, command=command)
        self._free(row, event)
        if momentary:
            self._rest(row, min(MOMENT_SECONDS * 2**attempts, LONGEST_REST))

    def _free(self, row: Row[Any], event: Event | None = None) -> None:
        """Note that no process works on it any more."""
        free = {"pid": None, "pid_started": None, "stopping": None, "estimated": None}
        self._store.set(row.id, tell=[] if event is None else [event], **free)
        self._watches.pop(row.id, None)
        self._processes.pop(row.id, None)

    def _succeed(self, row: Row[Any]) -> None:
        name = model_name(row.command["base"], row.owner, row.suffix, row.id)
        content = result_file(self._store.metrics(row.id), base64_encoded=Train(**row.train).base64_results)
        result = f"file-{hashlib.sha256(row.id.encode()).hexdigest()[:24]}"
        events = [
            Event("model", f"New fine-tuned model created: {name}"),
            Event("succeeded", "The job has successfully completed"),
        ]
        with self._store.database.begin() as connection:
            ended = self._store.finish_in(
                connection,
                row.id,
                tell=events,
                status=SUCCEEDED,
                finished=int(time.time()),
                fine_tuned_model=name,
                trained_tokens=trained_tokens(self._run(row)),
                result_files=[result],
            )
            if ended:  # else paused or cancelled at this moment: the next round sees it
                self._files.add_made(connection, row.owner, result, content, filename="step_metrics.csv")
        if ended:
            self._forget_data(row.id)

    def _fail(self, row: Row[Any], failure: Failed) -> None:
        event = Event("failed", failure.error["message"] or "", "error")
        changed = self._store.set(
            row.id,
            only=(VALIDATING, QUEUED, RUNNING),
            status=FAILED,
            error=failure.error,
            finished=int(time.time()),
            estimated=None,
            tell=[event],
        )
        if changed is not None:  # else paused or cancelled at this moment
            self._forget_data(row.id)

    def _discard(self, row: Row[Any]) -> None:
        """What a cancelled job made goes to ``trash/``, from where the server's owner can take it back."""
        run, trash = self._run(row), self._home / TRASH
        if run.is_dir():
            trash.mkdir(mode=0o700, exist_ok=True)
            os.replace(run, trash / f"{row.run}-{secrets.token_hex(4)}")
        self._forget_data(row.id)

    def _sweep(self) -> None:
        """What servers that were killed left: copies of files, processes that nobody noted, runs of cancelled jobs."""
        with contextlib.suppress(FileNotFoundError):
            left = {folder.name for folder in (self._home / "server" / "jobs").iterdir()}
            for id in left - self._store.unfinished():
                self._forget_data(id)
        for row in self._store.resting():
            run = self._run(row)
            if (process := job_process.holder(run)) is not None:  # with its number known it is stopped
                self._store.set(row.id, only=STOPPED, pid=process.pid, pid_started=process.started, stopping=None)
            elif row.status == CANCELLED and run.is_dir() and not is_locked(run):
                self._discard(row)
        self._files.sweep()

    def _forget_data(self, id: str) -> None:
        """The job's copy of its files: whoever deletes a file means all of it."""
        shutil.rmtree(self._home / "server" / "jobs" / id / DATA, ignore_errors=True)

    def _folder(self, row: Row[Any]) -> Path:
        return self._home / "server" / "jobs" / str(row.id)

    def _run(self, row: Row[Any]) -> Path:
        return self._home / "runs" / str(row.run)
