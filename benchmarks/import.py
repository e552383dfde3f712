"""Import speed by format, on one core, beside what reads the same file elsewhere; and memory on very large files.

Run it alone on the machine: ``python benchmarks/import.py`` (``--large`` adds a mailbox and a JSONL of 2 GB each).
The inputs are real text of the shared datasets (``OWNCHAT_DATASETS``), written in each format and repeated with new
names and ids until the file is large enough; what is timed is the whole import stage: recognise, read, threads and
roles, ledger, shards. Each format runs in a process of its own that may use one core.

Peers do less: Hugging Face ``datasets`` turns JSONL into Arrow as it is, without looking at a row; the standard
library's ``mailbox`` with ``email.policy.default`` takes each mail's text, without threads, quotes or signatures.

Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[2] / "shared" / "datasets"))
START = datetime(2023, 1, 2, 8, tzinfo=UTC)

Turns = list[tuple[str, str]]  # (role, text)


def dialogues() -> Iterator[tuple[int, Turns]]:
    """SGD's service conversations, numbered, over and over."""
    found: list[Turns] = []
    for path in sorted((DATASETS / "sgd" / "train").glob("*.json.gz")):
        for dialogue in json.loads(gzip.decompress(path.read_bytes())):
            turns = [("user" if t["speaker"] == "USER" else "assistant", t["utterance"]) for t in dialogue["turns"]]
            found.append(turns)
    for number in count():
        yield number, found[number % len(found)]


def clock(number: int, turn: int) -> datetime:
    return START + timedelta(hours=12 * number, seconds=40 * turn)


# ------------------------------------------------------------------------------- one function a format: name -> text


def as_jsonl(number: int, turns: Turns) -> str:
    return (
        json.dumps({"messages": [{"role": role, "content": text} for role, text in turns], "thread_id": number}) + "\n"
    )


def as_csv(number: int, turns: Turns) -> str:
    import csv

    text = io.StringIO()
    rows = [(number, turns[i][1], turns[i + 1][1]) for i in range(0, len(turns) - 1, 2)]
    csv.writer(text).writerows(rows)
    return text.getvalue()


def as_whatsapp(number: int, turns: Turns) -> str:
    lines = []
    for i, (role, text) in enumerate(turns):
        when = clock(number, i).strftime("%d.%m.%y, %H:%M")
        lines.append(f"{when} - {'Anna' if role == 'assistant' else 'Ben'}: {text}\n")
    return "".join(lines)


def as_irc(number: int, turns: Turns) -> str:
    day = clock(number, 0).strftime("--- Day changed %a %b %d %Y\n")
    return day + "".join(
        f"{clock(number, i):%H:%M} <{'helper' if role == 'assistant' else f'guest{number}'}> {text}\n"
        for i, (role, text) in enumerate(turns)
    )


def as_telegram(number: int, turns: Turns) -> str:
    rows = [
        {"id": 1000 * number + i, "type": "message", "date": clock(number, i).strftime("%Y-%m-%dT%H:%M:%S"),
         "date_unixtime": str(int(clock(number, i).timestamp())), "from": "Anna" if role == "assistant" else "Ben",
         "from_id": f"user{1 + (role == 'user')}", "text": text, "text_entities": [{"type": "plain", "text": text}]}
        for i, (role, text) in enumerate(turns)
    ]  # fmt: skip
    return "".join(("," if number or i else "") + json.dumps(row) + "\n" for i, row in enumerate(rows))


def as_chatgpt(number: int, turns: Turns) -> str:
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": ["0"]}}
    for i, (role, text) in enumerate(turns):
        mapping[str(i)] = {
            "id": str(i), "parent": str(i - 1) if i else "root", "children": [str(i + 1)] if i + 1 < len(turns) else [],
            "message": {"id": str(i), "author": {"role": role, "metadata": {}}, "create_time": START.timestamp(),
                        "content": {"content_type": "text", "parts": [text]}, "status": "finished_successfully",
                        "weight": 1.0, "metadata": {}, "recipient": "all"},
        }  # fmt: skip
    row = {"title": f"talk {number}", "create_time": START.timestamp(), "mapping": mapping,
           "current_node": str(len(turns) - 1), "conversation_id": f"c{number}"}  # fmt: skip
    return ("," if number else "") + json.dumps(row) + "\n"


def as_text(number: int, turns: Turns) -> str:
    return "".join(f"{text} " for _, text in turns) + "\n\n"


FORMATS: dict[str, tuple[str, str, Callable[[int, Turns], str], str]] = {  # file, before, each, after
    "jsonl": ("a.jsonl", "", as_jsonl, ""),
    "csv": ("a.csv", "ticket,question,answer\n", as_csv, ""),
    "whatsapp": ("WhatsApp Chat with Ben.txt", "", as_whatsapp, ""),
    "irc": ("channel.log", "", as_irc, ""),
    "telegram": ("result.json", '{"name": "Ben", "type": "personal_chat", "id": 2, "messages": [\n', as_telegram, "]}"),
    "chatgpt": ("conversations.json", "[", as_chatgpt, "]"),
    "text": ("a.txt", "", as_text, ""),
}


def write_format(format: str, folder: Path, size: int) -> Path:
    name, before, each, after = FORMATS[format]
    path = folder / name
    with open(path, "w", encoding="utf-8") as file:
        written = file.write(before)
        for number, turns in dialogues():
            written += file.write(each(number, turns))
            if written >= size:
                break
        file.write(after)
    return path


def write_mbox(folder: Path, size: int) -> Path:
    """SpamAssassin's good mail as a mailbox; the ids and references of each copy are its own."""
    mails = []
    with tarfile.open(DATASETS / "spamassassin" / "easy-ham-1.tar.xz") as archive:
        for member in archive:
            if member.isfile() and (stream := archive.extractfile(member)):
                content = stream.read()
                mails.append(content[content.find(b"\n") + 1 :] if content.startswith(b"From ") else content)
    path = folder / "inbox.mbox"
    with open(path, "wb") as file:
        for copy in count():
            for mail in mails:
                head, _, body = mail.partition(b"\n\n")
                head = head.replace(b"<", b"<%d." % copy) if copy else head
                body = body.replace(b"\nFrom ", b"\n>From ")
                file.write(b"From somebody Thu Aug 22 12:36:23 2002\n" + head + b"\n\n" + body.rstrip() + b"\n\n")
                if file.tell() >= size:
                    return path
    return path


def write_parquet(folder: Path, size: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, written = [], 0
    for number, turns in dialogues():
        rows.append(json.loads(as_jsonl(number, turns)))
        written += sum(len(text) for _, text in turns)
        if written >= size:
            break
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder / "a.parquet"


# --------------------------------------------------------------------------------------------------------- measuring


def import_one(path: str) -> dict[str, Any]:
    from ownchat.config import load_config
    from ownchat.data.stage import run

    config, _ = load_config(values={"data.workers": 1})
    with tempfile.TemporaryDirectory() as folder:  # what is imported at first use is not what is measured
        (Path(folder) / "warm.csv").write_text("question,answer\nWhy?,Because.\n")
        run(config, {"source": Path(folder) / "warm.csv"}, Path(folder) / "1-data")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = run(config, {"source": Path(path)}, Path(folder) / "1-data")
        seconds = time.perf_counter() - start
    read = report.details["files"][0]
    return {"seconds": seconds, "records": report.counts["records"], "format": read["format"]}


def peer_datasets(path: str) -> dict[str, Any]:
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = datasets.load_dataset("json", data_files=path, split="train", cache_dir=folder)
        return {"seconds": time.perf_counter() - start, "records": len(rows)}


def peer_mailbox(path: str) -> dict[str, Any]:
    import email.policy
    import mailbox

    start, read = time.perf_counter(), 0
    box = mailbox.mbox(path, factory=lambda file: email.message_from_binary_file(file, policy=email.policy.default))
    for mail in box:
        body = mail.get_body(("plain", "html"))
        try:
            read += bool(body and body.get_content())
        except (LookupError, KeyError):
            continue
    return {"seconds": time.perf_counter() - start, "records": read}


SIDES = {"ownchat": import_one, "datasets": peer_datasets, "mailbox": peer_mailbox}


def measure(side: str, path: Path) -> dict[str, Any]:
    """One side in a process that may use one core; its peak memory."""
    command = [sys.executable, __file__, "--side", side, "--path", str(path)]
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )  # fmt: skip
    result = json.loads(done.stdout.splitlines()[-1])
    megabytes = path.stat().st_size / 1e6
    return {**result, "MB": megabytes, "MB/s": megabytes / result["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=60, help="megabytes of each file")
    parser.add_argument("--large", action="store_true", help="also 2 GB of mail and of JSONL, for the memory")
    parser.add_argument("--only", nargs="*", help="formats to measure")
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--path")
    arguments = parser.parse_args()
    if arguments.side:
        result = SIDES[arguments.side](arguments.path)
        result["peak_MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(result))
        return
    writers: dict[str, Callable[[Path, int], Path]] = {
        **{format: lambda folder, size, format=format: write_format(format, folder, size) for format in FORMATS},
        "parquet": write_parquet,
        "mbox": write_mbox,
    }
    peers = {"jsonl": "datasets", "mbox": "mailbox"}
    rows: list[dict[str, Any]] = []
    print(f"{'format':<14}{'side':<10}{'MB':>7}{'MB/s':>8}{'records':>10}{'peak MB':>9}", flush=True)
    jobs = [(format, arguments.size) for format in writers if not arguments.only or format in arguments.only]
    jobs += [("mbox", 2000), ("jsonl", 2000)] if arguments.large else []
    for format, size in jobs:
        with tempfile.TemporaryDirectory() as folder:
            path = writers[format](Path(folder), size * 1_000_000)
            sides = ["ownchat"] + ([peers[format]] if format in peers and size < 1000 else [])
            for side in sides:
                row = {"file": format, "side": side, **measure(side, path)}
                rows.append(row)
                print(
                    f"{format:<14}{side:<10}{row['MB']:>7.0f}{row['MB/s']:>8.1f}{row['records']:>10,}"
                    f"{row['peak_MB']:>9.0f}", flush=True,
                )  # fmt: skip
    print(json.dumps({"cores": 1, "python": sys.version.split()[0], "rows": rows}))


if __name__ == "__main__":
    main()
