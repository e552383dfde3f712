"""Shards that several tests clean, a cleaning that is killed, and what a stage left."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from ownchat.clean import stage
from ownchat.data.records import ShardWriter, batched, message, record

FOOTER = "\nThis message and what hangs on it is for you alone, so be kind.\n"


def write_shards(folder: Path, count: int, *, footer: int | None = None) -> Path:
    """Conversations of made-up words, copies among them; every ``footer``-th answer ends in the same line."""
    chance = random.Random(0)
    words = ["".join(chance.choices("aeioulmnrst", k=2 + i % 7)) for i in range(3000)]
    rows = []
    for line in range(count):
        turns = [message(role, " ".join(chance.choices(words, k=30))) for role in ("user", "assistant")]
        turns[1]["content"] += FOOTER * (footer is not None and line % footer == 0)
        turns = rows[line // 2]["messages"] if line % 9 == 8 else turns
        rows.append(record("conversation", file="f", format="x", line=line, messages=turns, group=f"g{line % 700}"))
    with ShardWriter(folder, shard_bytes=100_000) as writer:
        for batch in batched(rows, 200):
            writer.write(batch)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a stage but its manifest, which holds times."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kill_when_a_shard_is_done(source: Path, out: Path, sets: list[str], *, before: str = "") -> Path:
    """Clean in a process of its own, killed as soon as its first shard is there; returns that shard's folder."""
    code = (
        "from pathlib import Path; from ownchat.config import load_config; from ownchat.clean import shards, stage\n"
        f"{before}\n"
        f"config = load_config(sets={sets!r})[0]\n"
        f"stage.run(config, {{'data': Path({str(source)!r})}}, Path({str(out)!r}))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    first, until = out / stage.WORK / "00000", time.monotonic() + 120
    while not first.exists() and time.monotonic() < until and child.poll() is None:
        time.sleep(0.001)
    child.kill()
    child.wait()
    assert first.exists() and not (out / "manifest.json").exists()
    return first
