"""Duplicates, leaks, memory and speed of the cleaning stage.

Run it alone on the machine: ``python benchmarks/clean.py`` (``--large`` adds one JSONL file of 1 GB). The text is real,
from the shared datasets (``OWNCHAT_DATASETS``); copies are planted in it. A near copy has words replaced, dropped,
added, doubled, swapped or misspelt at random places until the next change would bring it below a Jaccard similarity of
.8, by one of four measures in turn: sets of words, runs of 3 words, runs of 5 words, runs of 5 characters. A false
removal is an original record without a planted copy that is dropped as a duplicate of another original; "by measure"
counts those among them that do not resemble the one kept by .8 in that measure, "of no likeness" those that do in none
of the four.

Private-data rows are in ``benchmarks/private.py``. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ownchat.artifacts import SPLITS
from ownchat.clean import stage
from ownchat.clean.leaks import leaks
from ownchat.config import load_config
from ownchat.data import stage as importing
from ownchat.data.ledger import read_ledger
from ownchat.data.records import Record, ShardWriter, batched, read_batches, read_records, record

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[2] / "shared" / "datasets"))
SETS = {
    "SGD dialogues": ("sgd/train", []),
    "Taskmaster-4 orders": ("taskmaster4/data", []),
    "GSM8K problems": ("instruct_small/gsm_8k_train.json.gz", []),
    "banking77 one-liners": ("banking77/train.csv", ["data.map={question: text, answer: category}"]),
}
ONLY_DUPLICATES = [
    "clean.private_types=[]", "clean.system_lines=false", "clean.bot_noise=false", "clean.boilerplate=false",
    "clean.cut_turns=false", "clean.greetings=false", "clean.quality_rules=[]", 'clean.toxicity="off"',
]  # fmt: skip
SPEED = ["clean.private_types=[]"]


def words_of(row: Record) -> list[str]:
    texts = [row["text"] or ""]
    texts += [m["content"] for name in ("messages", "chosen", "rejected") for m in row[name] or ()]
    return re.sub(r"\W+", " ", " ".join(texts).lower()).split()


def word_runs(size: int) -> Callable[[list[str]], set[Any]]:
    return lambda words: {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def characters(words: list[str]) -> set[Any]:
    text = " ".join(words)
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


MEASURES = {"words": word_runs(1), "3 words": word_runs(3), "5 words": word_runs(5), "5 characters": characters}


def jaccard(one: set[Any], other: set[Any]) -> float:
    return len(one & other) / max(1, len(one | other))


def changed_once(text: str, chance: random.Random, vocabulary: list[str]) -> str:
    words = text.split(" ")
    place = chance.randrange(len(words))
    kind = chance.choice(("replace", "drop", "add", "double", "swap", "misspell"))
    if kind == "replace":
        words[place] = chance.choice(vocabulary)
    elif kind == "drop" and len(words) > 1:
        del words[place]
    elif kind == "add":
        words.insert(place, chance.choice(vocabulary))
    elif kind == "swap":
        words[place - 1], words[place] = words[place], words[place - 1]
    elif kind == "double":
        words.insert(place, words[place])
    elif len(words[place]) > 1:
        letter = chance.randrange(len(words[place]) - 1)
        word = words[place]
        words[place] = word[:letter] + word[letter + 1] + word[letter] + word[letter + 2 :]
    return " ".join(words)


def near_copy(row: Record, measure: str, chance: random.Random, vocabulary: list[str]) -> Record | None:
    """A copy changed as much as the measure allows; none where a single change is too much."""
    runs = MEASURES[measure]
    before, best = runs(words_of(row)), None
    turns = [dict(turn) for turn in row["messages"]]
    misses = 0
    while misses < 8:
        place = chance.randrange(len(turns))
        if turns[place]["role"] == "system" or turns[place]["content"].count(" ") < 3:  # labels stay what they are
            misses += 1
            continue
        trial = [dict(turn) for turn in turns]
        trial[place]["content"] = changed_once(turns[place]["content"], chance, vocabulary)
        if jaccard(before, runs(words_of({**row, "messages": trial}))) >= 0.8:
            turns, best = trial, trial
        else:
            misses += 1
    return None if best is None else {**row, "messages": best}


def exact_copy(row: Record, chance: random.Random) -> Record:
    """The same text with other case or other white space."""
    change = chance.choice((str.upper, str.lower, lambda text: text.replace(" ", "  ") + "\n"))
    return {**row, "messages": [{**turn, "content": change(turn["content"])} for turn in row["messages"]]}


def imported(name: str, room: Path) -> Path:
    path, sets = SETS[name]
    importing.run(load_config(sets=sets)[0], {"source": DATASETS / path}, room / "1-data")
    return room / "1-data"


def plant(rows: list[Record], seed: int = 0) -> tuple[list[Record], dict[str, set[int]], set[int]]:
    """Rows with copies among them, the lines of the copies by kind, and the lines of records that were copied."""
    chance = random.Random(seed)
    vocabulary = [word for row in rows[:500] for word in words_of(row)]
    kinds = ["exact", *MEASURES]
    found: dict[str, set[int]] = {kind: set() for kind in kinds}
    hosts = chance.sample(range(len(rows)), min(1000, len(rows) // 3))
    copies: list[tuple[str, Record]] = []
    copied: set[int] = set()
    for number, host in enumerate(hosts):
        kind = kinds[number % len(kinds)]
        copy = exact_copy(rows[host], chance) if kind == "exact" else near_copy(rows[host], kind, chance, vocabulary)
        if copy is not None:
            copies.append((kind, copy))
            copied.add(host + 1)
    planted = []
    for line, (kind, row) in enumerate([*(("", row) for row in rows), *copies], start=1):
        if kind:
            found[kind].add(line)
        fields = {name: row[name] for name in ("messages", "text", "tools")}
        planted.append(record(row["kind"], file="planted", format="jsonl", line=line, **fields))
    return planted, found, copied


def duplicates(name: str, room: Path) -> dict[str, Any]:
    rows = [row for row in read_records(imported(name, room / "whole")) if row["kind"] == "conversation"]
    planted, found, copied = plant(rows)
    random.Random(1).shuffle(planted)
    with ShardWriter(room / "1-data") as writer:
        for batch in batched(planted):
            writer.write(batch)
    start = time.perf_counter()
    report = stage.run(load_config(sets=ONLY_DUPLICATES)[0], {"data": room / "1-data"}, room / "2-clean")
    seconds = time.perf_counter() - start
    line = {row["id"]: row["source"]["line"] for row in planted}
    host = {row["source"]["line"]: row for row in planted}
    dropped: dict[int, int] = {}  # line -> line of the record that stands for it
    for entry in read_ledger(room / "2-clean").to_pylist():
        if entry["unit"] == "row" and entry["rule"] in ("exact duplicate", "near duplicate"):
            dropped[line[entry["id"]]] = line[entry["parent_ids"][0]]
    # A copy is removed when it goes, or when it stays in the place of the record it was made from.
    gone = set(dropped) | set(dropped.values())
    removed = {kind: len(lines & gone) / len(lines) for kind, lines in found.items() if lines}
    copies = set().union(*found.values())
    others = [number for number in range(1, len(rows) + 1) if number not in copied]
    false = [number for number in others if number in dropped and dropped[number] not in copies]
    unlike = {
        measure: sum(jaccard(*(runs(words_of(host[one])) for one in (n, dropped[n]))) < 0.8 for n in false)
        / len(others)
        for measure, runs in MEASURES.items()
    }
    alone = [n for n in false if not alike(words_of(host[n]), words_of(host[dropped[n]]))]
    kept = {split: list(read_records(room / "2-clean" / split)) for split in SPLITS}
    shared = leaks(*(read_batches(room / "2-clean" / split) for split in SPLITS))
    return {
        "records": len(rows), "planted": {kind: len(lines) for kind, lines in found.items()}, "removed": removed,
        "false removals": len(false) / len(others), "by measure": unlike, "of no likeness": len(alone) / len(others),
        "dropped in all": len(dropped), "leaks": shared, "pairs by any measure": crossing(kept),
        "largest group": report.details["largest_group"], "splits": {k: len(v) for k, v in kept.items()},
        "seconds": round(seconds, 1),
    }  # fmt: skip


def alike(one: list[str], other: list[str]) -> bool:
    return any(jaccard(runs(one), runs(other)) >= 0.8 for runs in MEASURES.values())


def crossing(kept: dict[str, list[Record]]) -> dict[str, int]:
    """Pairs of a held-out record and one of train by each measure, compared one by one (with 300 of each split)."""
    held = [words_of(row) for split in ("valid", "test") for row in kept[split][:150]]
    train = [words_of(row) for row in kept["train"]]
    counts = {}
    for name, runs in MEASURES.items():
        sets = [runs(words) for words in train]
        total = 0
        for words in held:
            mine = runs(words)
            near = (one for one in sets if 0.8 * len(mine) <= len(one) <= len(mine) / 0.8)
            total += sum(jaccard(mine, one) >= 0.8 for one in near)
        counts[name] = total
    return counts


def grown(path: Path, size: int, source: Path) -> None:
    """A JSONL file of ``size`` bytes: SGD's dialogues, in which every fifth word is another one of the set's."""
    rows = [row["messages"] for row in read_records(source)]
    vocabulary = sorted({word for turns in rows for turn in turns for word in turn["content"].split()})
    chance = random.Random(0)
    with path.open("w") as file:
        while file.tell() < size:
            turns = chance.choice(rows)
            messages = []
            for turn in turns:
                words = turn["content"].split(" ")
                for place in range(len(words)):
                    if chance.random() < 0.2:
                        words[place] = chance.choice(vocabulary)
                messages.append({"role": turn["role"], "content": " ".join(words)})
            file.write(json.dumps({"messages": messages}) + "\n")


def measure_file(path: Path, sets: list[str]) -> dict[str, float]:
    """Import and clean one file in a process of its own; memory is of it and of each of its workers."""
    with tempfile.TemporaryDirectory() as room:
        command = [sys.executable, __file__, "--one", str(path), room, *sets]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def one(path: str, room: str, sets: list[str]) -> None:
    config = load_config(sets=sets)[0]
    importing.run(config, {"source": Path(path)}, Path(room) / "1-data")
    start = time.perf_counter()
    report = stage.run(config, {"data": Path(room) / "1-data"}, Path(room) / "2-clean")
    seconds = time.perf_counter() - start
    own, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    size = Path(path).stat().st_size / 1e6
    print(json.dumps({
        "MB": round(size), "MB/s": round(size / seconds, 2), "seconds": round(seconds, 1), "resident MB": round(own),
        "largest worker MB": round(worker), "records": report.counts["records"], "dropped": report.counts["dropped"],
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="one JSONL file of 1 GB as well")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1], options.one[2:])
        return
    results: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "duplicates": {}}
    with tempfile.TemporaryDirectory() as room:
        for name in SETS:
            found = results["duplicates"][name] = duplicates(name, Path(room) / name)
            removed = ", ".join(f"{kind} {share:.1%}" for kind, share in found["removed"].items())
            print(f"{name} ({found['records']:,} records): removed {removed}")
            unlike = ", ".join(f"{measure} {share:.2%}" for measure, share in found["by measure"].items())
            print(
                f"  false removals {found['false removals']:.2%} (by measure {unlike}), "
                f"of no likeness {found['of no likeness']:.2%}"
            )
            print(
                f"  across splits {found['leaks']}, pairs {found['pairs by any measure']}; {found['splits']}",
                flush=True,
            )
        path = Path(room) / "grown.jsonl"
        for size in (50_000_000, *((1_000_000_000,) if options.large else ())):
            grown(path, size, Path(room) / "SGD dialogues" / "whole" / "1-data")
            workers = 1 if size < 10**9 else 2
            found = measure_file(path, [*SPEED, f"data.workers={workers}"])
            results[f"{size // 10**6} MB, {workers} worker"] = found
            print(
                f"{size // 10**6} MB of JSONL, {workers} worker(s), all default steps but private data: {found}",
                flush=True,
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
