"""A copy of what was cleaned, for other programs: in a folder, or in S3 and storage that speaks like it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ownchat.artifacts import MANIFEST, read_json, require_free_space
from ownchat.data.remote import Remote, Source, look
from ownchat.data.storage import RemoteError, client, no_bucket, told
from ownchat.errors import RunError, UserError
from ownchat.monitor.progress import progress

CHUNK = 8 << 20  # bytes


def look_at(target: Source) -> dict[str, int]:
    """What stands where a copy shall go: names and bytes.

    Raises :class:`~ownchat.errors.RunError` for a place that is a file, and
    :class:`~ownchat.data.storage.RemoteError` for storage that refuses.
    """
    if isinstance(target, Remote):
        if not (found := look(target)):
            with told(str(target), target.bucket):
                if client(target.bucket).get_file_info(target.bucket).type.name == "NotFound":
                    raise no_bucket(str(target), target.bucket)
        start = f"{target.prefix}/" if target.prefix else ""
        if any(file.key == target.prefix for file in found):
            raise RunError("this is an object, not a prefix", where=str(target), fix="choose another place")
        return {file.key.removeprefix(start): file.size for file in found}
    if target.exists() and not target.is_dir():
        raise RunError("this is a file, not a folder", where=str(target), fix="choose another place")
    files = (file for file in target.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(target).as_posix(): file.stat().st_size for file in files}


def refuse_inside(source: Source, target: Source) -> None:
    """Raise :class:`~ownchat.errors.RunError` for a copy that the next import of ``source`` would read."""
    places = [f"{place.resolve() if isinstance(place, Path) else place}/" for place in (source, target)]
    if places[1].startswith(places[0]):
        raise RunError("the copy would stand in the source", where=str(target), fix="choose another place")


def deliver(stage: Path, target: Source, say: Callable[[str], None] = print) -> bool:
    """Copy a complete stage: shards, ledger, report; the manifest last, so that where it stands all is there.

    What is there is never removed: a complete copy of the same is left as it is (returns False), an unfinished one
    is written over. Raises :class:`~ownchat.errors.RunError` where anything else stands, and
    :class:`~ownchat.data.storage.RemoteError` for storage that refuses.
    """
    files = {file.relative_to(stage).as_posix(): file for file in sorted(stage.rglob("*")) if file.is_file()}
    files = {name: file for name, file in files.items() if not any(part.startswith(".") for part in name.split("/"))}
    there = look_at(target)
    if MANIFEST in there and read_manifest(target)["key"] == read_json(files[MANIFEST])["key"]:
        say(f"     copy  {target} has it already")
        return False
    if MANIFEST in there:
        raise RunError("another cleaned stage is there", where=str(target), fix="choose another place, or remove it")
    if others := sorted(there.keys() - files.keys()):
        what = f'something else is there: "{others[0]}"' + (f" and {len(others) - 1:,} more" if others[1:] else "")
        raise RunError(what, where=str(target), fix="choose an empty place, or remove it")
    manifest = files.pop(MANIFEST)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    with progress("copy", sum(sizes.values()), "bytes") as advance:
        if isinstance(target, Path):
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_free_space(target, sum(sizes.values()))
        for name, file in files.items():
            _put(file, target, name, advance)
    arrived = look_at(target)
    if wrong := [name for name, size in sizes.items() if arrived.get(name) != size]:
        raise UserError(f'"{wrong[0]}" did not arrive whole', where=str(target), fix="run the same command again")
    _put(manifest, target, MANIFEST, lambda _: None)
    say(f"     copy  {len(files) + 1:,} files, {sum(sizes.values()) / 1e6:,.1f} MB, to {target}")
    return True


def read_manifest(target: Source) -> Any:
    """The manifest of a copy."""
    if isinstance(target, Path):
        return read_json(target / MANIFEST)
    import json

    place = f"{target.bucket}/{target.prefix}/{MANIFEST}".replace("//", "/")
    with (
        told(f"{target}/{MANIFEST}", target.bucket),
        client(target.bucket).open_input_stream(place, compression=None) as stream,
    ):
        try:
            manifest = json.loads(stream.read())
            _ = manifest["key"]
            return manifest
        except (ValueError, TypeError, LookupError) as error:
            fix = "choose another place, or remove it"
            raise RemoteError("this is not a manifest of ours", where=f"{target}/{MANIFEST}", fix=fix) from error


def _put(file: Path, target: Source, name: str, on_bytes: Callable[[int], None]) -> None:
    if isinstance(target, Path):
        (target / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = (target / name).with_name(f".{file.name}.tmp")
        shutil.copyfile(file, aside)
        os.replace(aside, target / name)
        on_bytes(file.stat().st_size)
        return
    key = f"{target.prefix}/{name}".lstrip("/")
    with (
        told(f"s3://{target.bucket}/{key}", target.bucket),
        open(file, "rb") as source,
        client(target.bucket).open_output_stream(f"{target.bucket}/{key}", compression=None) as stream,
    ):
        while data := source.read(CHUNK):
            stream.write(data)
            on_bytes(len(data))
