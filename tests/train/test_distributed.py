"""Processes that train together: who does what, how they end, shares of a step, files of many."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ownchat import artifacts
from ownchat.errors import RunError
from ownchat.model import starter
from ownchat.monitor.events import read_lines
from ownchat.train import checkpoint, distributed
from ownchat.train.distributed import ALONE, World, deal

LAUNCH = [sys.executable, "-m", "torch.distributed.run"]


# ------------------------------------------------------------------------------------------------ one process


def test_alone_nothing_happens() -> None:
    assert ALONE.alone and ALONE.first
    assert ALONE.from_first(lambda: {"a": 1}) == {"a": 1} and ALONE.to_first("x") == ["x"]
    assert ALONE.any(True) is True and ALONE.any(False) is False
    values = torch.tensor([1.5, 2.5])
    assert ALONE.sum(values) is values and values.tolist() == [1.5, 2.5]
    blocks = [[object()], [object()]]
    assert ALONE.passes(blocks, 10) is blocks  # type: ignore[arg-type]
    assert ALONE.shard(blocks, dtype="float32") is blocks
    with distributed.together() as world:
        assert world.alone


@pytest.mark.parametrize("processes", [1, 2, 3, 7, 64])
def test_shares_are_balanced(processes: int) -> None:
    lengths = np.random.default_rng(0).integers(5, 400, 200).tolist()
    shares = deal(lengths, processes)
    assert sorted(number for share in shares for number in share) == list(range(200))
    tokens = [sum(lengths[number] for number in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(lengths)
    assert shares == deal(lengths, processes), "a pure function: nobody has to be told"


def test_more_processes_than_items() -> None:
    assert deal([7, 9], 4) == [[1], [0], [], []]


# --------------------------------------------------------------------------------- several, as threads of one


def as_threads(count: int, work: Callable[[World], Any]) -> list[Any]:
    """What ``work`` returns, or raises, in each of ``count`` worlds that share a store."""
    import torch.distributed as dist

    store, results = dist.HashStore(), [None] * count

    def one(rank: int) -> None:
        try:
            results[rank] = work(World(rank, count, store=store))
        except BaseException as error:
            results[rank] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


def test_what_the_first_says_reaches_all_however_long_it_takes() -> None:
    def work(world: World) -> Any:
        slow = world.from_first(lambda: time.sleep(0.3) or [world.rank, None, 1.5])
        everybody = world.to_first(10 * world.rank)
        return slow, everybody, world.from_first(lambda: "again")

    first, *others = as_threads(3, work)
    assert first == ([0, None, 1.5], [0, 10, 20], "again")
    assert all(other == ([0, None, 1.5], [], "again") for other in others)


def test_those_who_wait_end_when_the_first_has_ended() -> None:
    def work(world: World) -> Any:
        if world.first:
            world.end(2)
            return None
        return world.from_first(dict)

    _, *others = as_threads(3, work)
    assert [getattr(other, "code", None) for other in others] == [2, 2]
    follow = as_threads(2, lambda world: world.end(130) if world.first else world.follow())
    assert follow[1] == distributed.SIGNALLED, "an interrupt is told once"
    assert World(1, 2, store=__import__("torch.distributed").distributed.HashStore()).follow(seconds=0.1) is None


def test_a_directory_that_another_machine_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "DIRECTORY_SECONDS", 0.1)
    with pytest.raises(RunError, match="shared file system"):
        World(1, 2).must_see(tmp_path / "decisions.json")


def test_a_lost_process_is_told_from_other_errors() -> None:
    import torch.distributed as dist

    assert distributed.is_lost(RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:1"))
    assert distributed.is_lost(dist.DistNetworkError("recvValue failed"))
    assert not distributed.is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not distributed.is_lost(RunError("x"))


def test_rows_come_from_whoever_wrote_them(tmp_path: Path) -> None:
    """Three files with 3, 3 and 1 of seven rows, read as a whole and in other cuts; bit for bit."""
    whole = torch.randn(7, 3)
    for rank, (start, stop) in enumerate([(0, 3), (3, 6), (6, 7)]):
        rows = {"rows": json.dumps({"master.w": (start, stop)})}
        tensors = {"master.w": whole[start:stop].contiguous(), "step.w": torch.tensor(4.0)}
        save_file(tensors, tmp_path / f"state-{rank + 1:05d}-of-00003.safetensors", metadata=rows)
    saved = checkpoint.Saved(tmp_path)
    assert sorted(saved) == ["master.w", "step.w"]
    assert torch.equal(saved.read("master.w"), whole) and saved.read("step.w") == 4.0
    for rows in ((0, 4), (4, 7), (2, 5), (0, 7), (7, 7)):
        assert torch.equal(saved.read("master.w", rows), whole[slice(*rows)]), rows


# ------------------------------------------------------------------------------------------- with torchrun


@pytest.fixture(scope="module")
def workplace(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``inbox`` of questions and answers; the home's starter is the tiny model."""
    root = tmp_path_factory.mktemp("company")
    home = root / "home" / "models" / starter.NAME
    shutil.copytree(tiny_model, home)
    (home / artifacts.MANIFEST).write_text('{"package": "a tiny stand-in"}')
    (root / "inbox").mkdir()
    things = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
    rows = "".join(f"What about {thing} {n}?,The {thing} {n} is fine.\n" for n in range(5) for thing in things)
    (root / "inbox" / "faq.csv").write_text("question,answer\n" + rows)
    return root


SETS = (
    "train.batch_tokens=200", "train.epochs=4", "train.validate_every=3", "train.patience=99", "train.threads=1",
    "model.dtype=float32", "train.compile=off", "evaluate.answers=2", "evaluate.answer_tokens=8",
    "evaluate.care={checks: []}",
)  # fmt: skip


def command(
    workplace: Path, name: str, *, processes: int = 2, options: tuple[str, ...] = ("--standalone",)
) -> list[str]:
    sets = [part for one in SETS for part in ("--set", one)]
    launch = [*LAUNCH, *options, f"--nproc-per-node={processes}", "-m", "ownchat"]
    return [*launch, "train", "inbox", "--name", name, *sets]


def environment(workplace: Path) -> dict[str, str]:
    return os.environ | {"OWNCHAT_HOME": str(workplace / "home"), "OMP_NUM_THREADS": "1"}


def curve(workplace: Path, name: str) -> dict[int, float]:
    rows = read_lines(workplace / "home" / "runs" / name / "5-train" / "sft" / "metrics.jsonl")
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_a_mistake_is_told_once_and_ends_all(workplace: Path) -> None:
    """The first process finds it; the other one waits for data that will never come."""
    program = [*LAUNCH, "--standalone", "--nproc-per-node=2", "-m", "ownchat", "train", "nowhere"]
    done = subprocess.run(
        program, cwd=workplace, env=environment(workplace), capture_output=True, text=True, timeout=100
    )
    assert done.returncode != 0
    assert done.stderr.count("there is no such file or folder") == 1
    before_torchrun_says_it = done.stderr.split("ChildFailedError")[0].split("elastic")[0]
    assert "Traceback" not in before_torchrun_says_it


@pytest.fixture(scope="module")
def alone(workplace: Path) -> dict[int, float]:
    sets = [part for one in SETS for part in ("--set", one)]
    program = [sys.executable, "-m", "ownchat", "train", "inbox", "--name", "alone", *sets]
    subprocess.run(program, cwd=workplace, env=environment(workplace), check=True, capture_output=True)
    return curve(workplace, "alone")


@pytest.mark.long
def test_the_whole_way_in_company(workplace: Path, alone: dict[int, float]) -> None:
    done = subprocess.run(
        command(workplace, "two"), cwd=workplace, env=environment(workplace), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    run = workplace / "home" / "runs" / "two"
    assert (run / "6-report" / "report.html").is_file() and (run / "5-train" / "adapter").is_dir()
    assert len(re.findall(r"^ *train  ", done.stdout, flags=re.M)) == 1, "one process talks"
    assert curve(workplace, "two") == pytest.approx(alone, rel=1e-5)
    assert artifacts.read_json(run / "5-train" / "sft" / "result.json")["processes"] == 2
    again = subprocess.run(
        command(workplace, "two"), cwd=workplace, env=environment(workplace), capture_output=True, text=True
    )
    assert again.returncode == 0 and curve(workplace, "two") == pytest.approx(alone, rel=1e-5), "nothing is left to do"


def started(workplace: Path, name: str, step: int, program: list[str]) -> subprocess.Popen[str]:
    """A training that has done this step."""
    process = subprocess.Popen(
        program, cwd=workplace, env=environment(workplace), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not any(done >= step for done in curve(workplace, name)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1][-4000:]
        time.sleep(0.02)
    return process


def workers(parent: int) -> list[int]:
    """Process numbers of the workers that torchrun ``parent`` started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(pid) for pid in listed.split() if b"ownchat" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_worker_comes_back(workplace: Path, alone: dict[int, float], victim: int) -> None:
    """``kill -9``, no chance to say anything: torchrun starts all again, from the last checkpoint."""
    name = f"killed-{victim}"
    program = command(workplace, name, options=("--standalone", "--max-restarts=2"))
    process = started(workplace, name, 5, program)
    os.kill(workers(process.pid)[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-4000:]
    assert curve(workplace, name) == pytest.approx(alone, rel=1e-5)
    events = read_lines(workplace / "home" / "runs" / name / "5-train" / "sft" / "events.jsonl")
    assert [row["event"] for row in events].count("resumed") == 1


@pytest.mark.long
def test_sigterm_to_torchrun_saves_and_the_same_command_goes_on(workplace: Path, alone: dict[int, float]) -> None:
    process = started(workplace, "stopped", 4, command(workplace, "stopped"))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and errors.count("saved at step") == 1, errors[-4000:]
    done = subprocess.run(command(workplace, "stopped"), cwd=workplace, env=environment(workplace), capture_output=True)
    assert done.returncode == 0
    assert curve(workplace, "stopped") == pytest.approx(alone, rel=1e-5)


NAMESPACES = """
set -e
ip netns add $A; ip netns add $B
trap 'ip netns del $A; ip netns del $B' EXIT
ip link add $A-v type veth peer name $B-v
ip link set $A-v netns $A; ip link set $B-v netns $B
ip -n $A addr add 10.77.0.1/24 dev $A-v; ip -n $A link set $A-v up; ip -n $A link set lo up
ip -n $B addr add 10.77.0.2/24 dev $B-v; ip -n $B link set $B-v up; ip -n $B link set lo up
first=("${@//@HOST@/1}"); second=("${@//@HOST@/0}")
GLOO_SOCKET_IFNAME=$A-v ip netns exec $A "${first[@]//@ADDRESS@/10.77.0.1}" > $A.log 2>&1 &
one=$!
GLOO_SOCKET_IFNAME=$B-v ip netns exec $B "${second[@]//@ADDRESS@/10.77.0.2}" > $B.log 2>&1 &
two=$!
wait $one && wait $two
"""


@pytest.mark.slow
def test_two_machines(workplace: Path, alone: dict[int, float]) -> None:
    """Two network namespaces with a cable between them, a process in each; they meet over it."""
    allowed = shutil.which("ip") and subprocess.run(["ip", "netns", "add", "oc-try"], capture_output=True)
    if not allowed or allowed.returncode:
        pytest.skip("network namespaces need root and iproute2")
    subprocess.run(["ip", "netns", "del", "oc-try"], check=True)
    # both have this machine's name, so who is host and what address one has is said
    options = ("--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29400", "--rdzv-id=cable")
    options += ("--rdzv-conf=is_host=@HOST@", "--local-addr=@ADDRESS@")
    program = command(workplace, "cable", processes=1, options=options)
    pair = {"A": f"oc{os.getpid()}a", "B": f"oc{os.getpid()}b"}
    done = subprocess.run(
        ["bash", "-c", NAMESPACES, "two-machines", *program],
        cwd=workplace, env=environment(workplace) | pair, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    logs = "".join(
        (workplace / f"{name}.log").read_text() for name in pair.values() if (workplace / f"{name}.log").exists()
    )
    assert done.returncode == 0, done.stderr + logs[-4000:]
    assert curve(workplace, "cable") == pytest.approx(alone, rel=1e-5)
