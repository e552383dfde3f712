"""What an offline run of Weights & Biases holds: its process writes late, so what was handed to it may not be there.

A ``.wandb`` file is a log in LevelDB's format (blocks of 32 kB; checksum, length and kind before each part) of
protobuf records, after a header of seven bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
WHOLE, LAST = 1, 4  # kinds of a part that end a record


def records(content: bytes) -> Iterator[bytes]:
    """The records of a file's content; a torn one at its end is left out."""
    at, record = HEADER, b""
    while at + HEADER <= len(content):
        room = BLOCK - at % BLOCK
        if room < HEADER:  # too small for a part: filled with zeros
            at += room
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        part = content[at + HEADER : at + HEADER + length]
        if len(part) < length or not kind:
            return
        at, record = at + HEADER + length, record + part
        if kind in (WHOLE, LAST):
            yield record
            record = b""


def history(directory: Path, id: str) -> Iterator[dict[str, Any]]:
    """The rows that ``log`` was given in all offline starts of a run, in the order of these starts."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(directory.glob(f"offline-run-*/run-{id}.wandb")):
        for content in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
