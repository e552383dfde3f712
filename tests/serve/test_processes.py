"""Servers as real processes: two on one home, killed ones, and what becomes of what they accepted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Program

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_second_server_on_a_home_is_refused(
    program: Callable[..., Program], serve_home: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(serve_home, tmp_path / "home")
    first = program(home)
    done = subprocess.run(
        [sys.executable, "-m", "ownchat", "serve", "--port", "0"], env=os.environ | {"OWNCHAT_HOME": str(home)},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"another server works on this folder (process {first.process.pid})" in done.stderr
    assert "OWNCHAT_HOME" in done.stderr and "Traceback" not in done.stderr
    assert "sk-own-" not in done.stdout, "no key for a server that never was"
    assert first.process.poll() is None, "the first one goes on"
    first.kill()
    again = program(home)  # what a killed one held is free
    assert (home / "server" / "lock").read_text() == str(again.process.pid)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_was_accepted_survives_kills(tmp_path: Path) -> None:
    """A few moments of benchmarks/kill_serve.py: files and jobs are there, once, and with the same bits."""
    process = subprocess.Popen(
        [sys.executable, str(BENCHMARKS / "kill_serve.py"), "--kills", "4", "--seed", "1"],
        env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said, errors = process.communicate(timeout=1500)
    finally:
        process.terminate()
        process.wait(30)
    assert said, errors[-3000:]
    found = json.loads(said.splitlines()[-1])
    assert (found["faults"], found["kills"], process.returncode) == ([], 4, 0), errors[-3000:]
    assert found["jobs"] > 2 and found["files"] >= found["jobs"] and found["starts"] > 1
