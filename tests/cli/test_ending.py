"""Signals to the program while it ends: one line, exit code 130, and no traceback; in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HANGS = (
    "import threading, time; threading.Thread(target=time.sleep, args=(120,)).start();"
    "from ownchat.cli import main; main()"
)


def waiting(tmp_path: Path, *python: str) -> subprocess.Popen[str]:
    """A command that waits for the other end of a pipe, which is there by now."""
    pipe = tmp_path / "prompt.yaml"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, *(python or ("-m", "ownchat")), "prompt", "new", "a", "--file", str(pipe)],
        stdout=-1, stderr=-1, text=True, env=os.environ | {"OWNCHAT_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    end = os.open(pipe, os.O_WRONLY)  # returns when the command reads
    os.set_inheritable(end, False)
    process.end = end  # type: ignore[attr-defined]
    return process


def ended(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=60)
    os.close(process.end)  # type: ignore[attr-defined]
    assert process.returncode == 130, (process.returncode, said)
    assert "Traceback" not in said and "Exception ignored" not in said and said.count("ownchat:") <= 1, said
    return said


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("more", [signal.SIGTERM, signal.SIGINT])
def test_signals_while_it_ends_are_quiet(first: signal.Signals, more: signal.Signals, tmp_path: Path) -> None:
    process = waiting(tmp_path)
    process.send_signal(first)
    time.sleep(0.005)
    while process.poll() is None:
        process.send_signal(more)
        time.sleep(0.0005)
    ended(process)


def test_one_signal_says_what_happened(tmp_path: Path) -> None:
    for number, word in ((signal.SIGTERM, "ended by a signal"), (signal.SIGINT, "interrupted")):
        folder = tmp_path / word.split()[0]
        folder.mkdir()
        process = waiting(folder)
        process.send_signal(number)
        assert f"ownchat: {word}" in ended(process)


def test_a_signal_much_later_ends_a_process_that_hangs(tmp_path: Path) -> None:
    process = waiting(tmp_path, "-c", HANGS)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while "ended by a signal" not in process.stderr.readline():
        assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for its thread
        process.wait(3)
    process.send_signal(signal.SIGINT)
    ended(process)
