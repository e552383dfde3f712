"""The process of a job: ``ownchat train`` in a group of its own, behind the answers of the server.

It outlives the server. Who finds it again tells it by its number and by when it began, for numbers are used again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ownchat.artifacts import is_locked

NICE = 10  # answers go first; while nobody asks, it has the machine
OOM_SCORE = 500  # when memory runs out, the kernel ends the job and not the server
LOG_BYTES = 20_000  # of a log's end that are looked at
# What ownchat train says, with the exit code of a mistake, of a machine that may be another one in a minute.
MOMENTARY = (
    "the disk is full", "memory ran out", "another process works on this run",
    *(os.strerror(number) for number in (
        errno.EIO, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT,
    )),
)  # fmt: skip

# What the job may know of the server's environment: no keys, no databases, no proxies with passwords.
PASSED = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME", "USER", "LOGNAME",
)  # fmt: skip


class JobProcess:
    """One process; made by :func:`start`, or found again with :func:`adopted`."""

    def __init__(self, pid: int, started: str, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid, self.started, self._child = pid, started, child

    @property
    def alive(self) -> bool:
        """Whether it still works."""
        if self._child is not None:
            return self._child.poll() is None
        return started_at(self.pid) == self.started != ""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it began on another machine, in another container or before the last boot: its number says nothing
        here."""
        return self._child is None and self.started.rpartition("-")[0] != _here()

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it works, and for one whose parent is no more."""
        return None if self._child is None else self._child.poll()

    def stop(self) -> None:
        """Ask it to save and end."""
        self._signal(signal.SIGTERM)

    def end(self) -> None:
        """End it, and what it started, at once."""
        if self.alive:
            self._signal(signal.SIGKILL)
        self.sweep()

    def sweep(self) -> None:
        """End what it started and left behind. Its number may be somebody else's by now: then nothing is done."""
        if self.is_elsewhere or started_at(self.pid) not in ("", self.started):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._child is not None:
                self._child.send_signal(number)
            elif self.alive:
                os.kill(self.pid, number)


def start(home: Path, source: Path, run: str, arguments: Sequence[str], log: Path) -> JobProcess:
    """Begin, or go on with, the training of a run. What it says goes to the end of ``log``."""
    command = [sys.executable, "-m", "ownchat", "train", str(source), "--name", run, *arguments]
    environment = {name: os.environ[name] for name in PASSED if name in os.environ}
    environment |= {"OWNCHAT_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as handle:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, env=environment, cwd=home,
            start_new_session=True, umask=0o077,
        )  # fmt: skip
    _limit(child.pid)
    return JobProcess(child.pid, started_at(child.pid), child)


def adopted(pid: int, started: str) -> JobProcess:
    """A process that another server began."""
    return JobProcess(pid, started)


def holder(run: Path) -> JobProcess | None:
    """The training that works on a run on this machine, whoever began it.

    None also for a run that is held (:func:`~ownchat.artifacts.is_locked`) by another machine, or by another command.
    """
    if not is_locked(run):
        return None
    try:
        pid = int((run / ".lock").read_text())
        # the number may be of another machine, and here somebody else's
        if _here() and run.name.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return None
    except (OSError, ValueError):
        return None
    return JobProcess(pid, started) if (started := started_at(pid)) else None


def started_at(pid: int) -> str:
    """When a process began, in words that no other one of this number has; empty where there is none (any more)."""
    here = _here()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if here:
            return ""
        try:  # a system without /proc: its number alone has to do
            os.kill(pid, 0)
        except OSError:
            return ""
        return "unknown"
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else f"{here}-{fields[19]}"


@functools.cache
def _here() -> str:
    """Where numbers of processes mean the same: a boot of a machine and, of containers, one of them. Empty without
    ``/proc``."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot[:8]}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def last_words(log: Path) -> str:
    """What a training said was wrong: the message of a mistake, or the last line; never a traceback."""
    try:
        with open(log, "rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - LOG_BYTES))
            lines = handle.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    except OSError:
        return ""
    begins = [number for number, line in enumerate(lines) if line.startswith("ownchat: ")]
    if not begins:
        return ""
    return " ".join(line.strip() for line in lines[begins[-1] : begins[-1] + 4]).removeprefix("ownchat: ")[:1000]


def is_momentary(message: str) -> bool:
    """Whether a message (of :func:`last_words`) is of the machine as it was then, and not of a person's mistake."""
    return any(text in message for text in MOMENTARY)


def _limit(pid: int) -> None:
    """Behind the server in everything; whatever a system does not allow is left out."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PGRP, pid, NICE)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE))
    with contextlib.suppress(OSError, AttributeError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))  # people's text must not end up in a core file
