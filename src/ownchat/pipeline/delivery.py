"""A copy of what was cleaned, for other programs: in a folder, or in S3 and storage that speaks like it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ownchat.artifacts import MANIFEST, read_json, require_free_space, write_json
from ownchat.data.remote import Remote, Source, look
from ownchat.data.storage import RemoteError, client, no_bucket, told
from ownchat.errors import RunError, UserError
from ownchat.monitor.progress import progress

CHUNK = 8 << 20  # bytes
MARKER = "unfinished.json"  # stands in a copy as long as not all of it is there; holds the key of its stage
_ELSEWHERE = "choose an empty place, or remove it"


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
    files = (file for file in target.rglob("*") if file.is_file() or file.is_symlink())
    return {file.relative_to(target).as_posix(): file.lstat().st_size for file in files}


def refuse_inside(source: Source, target: Source) -> None:
    """Raise :class:`~ownchat.errors.RunError` for a copy that the next import of ``source`` would read."""
    places = [f"{place.resolve() if isinstance(place, Path) else place}/" for place in (source, target)]
    if places[1].startswith(places[0]):
        raise RunError("the copy would stand in the source", where=str(target), fix="choose another place")


def refuse_occupied(target: Source, key: str | None = None) -> bool:
    """Whether the complete copy is there; raise :class:`~ownchat.errors.RunError` for a place that is not ours.

    Ours is an empty place, and one that holds a copy of the stage with this ``key``: complete, or unfinished with its
    marker. No key: of any stage, as long as it is not known which one it will be.
    """
    there = look_at(target)
    for name, what in (
        (MANIFEST, "another cleaned stage is there"),
        (MARKER, "an unfinished copy of another stage is there"),
    ):
        if name in there:
            found = _read(target, name)["key"]
            if key is not None and found != key:
                raise RunError(what, where=str(target), fix="choose another place, or remove it")
            return name == MANIFEST
    others = sorted(there)
    if others:
        what = f'something else is there: "{others[0]}"' + (f" and {len(others) - 1:,} more" if others[1:] else "")
        raise RunError(what, where=str(target), fix=_ELSEWHERE)
    return False


def deliver(stage: Path, target: Source, say: Callable[[str], None] = print) -> bool:
    """Copy a complete stage: the splits and the ledger; the manifest last, so that where it stands all is there.

    Left out is what is raw: dropped records, the examples of them in the manifest, and the entries of the user's lists
    of private words. What is there is never removed: a complete copy of the same is left as it is (returns False), an
    unfinished one, which its marker tells, is written over. Raises :class:`~ownchat.errors.RunError` where anything
    else stands, and :class:`~ownchat.data.storage.RemoteError` for storage that refuses.
    """
    files = {name: stage / name for name in _to_copy(stage)}
    manifest = read_json(stage / MANIFEST)
    if refuse_occupied(target, manifest["key"]):
        say(f"     copy  {target} has it already")
        _unmark(target, say)
        return False
    if others := sorted(name for name in look_at(target).keys() - files.keys() - {MARKER} if not _is_aside(name)):
        raise RunError(f'something else is in the unfinished copy: "{others[0]}"', where=str(target), fix=_ELSEWHERE)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    with progress("copy", sum(sizes.values()), "bytes") as advance, TemporaryDirectory(prefix="ownchat-") as room:
        if isinstance(target, Path):
            require_free_space(target, sum(sizes.values()))
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(Path(room) / MARKER, {"key": manifest["key"], "until": f"{MANIFEST} is here"})
        _put(Path(room) / MARKER, target, MARKER, lambda _: None)
        for name, file in files.items():
            _put(file, target, name, advance)
        arrived = look_at(target)
        if wrong := [name for name, size in sizes.items() if arrived.get(name) != size]:
            raise UserError(f'"{wrong[0]}" did not arrive whole', where=str(target), fix="run the same command again")
        write_json(Path(room) / MANIFEST, _without_raw_text(manifest))
        _put(Path(room) / MANIFEST, target, MANIFEST, lambda _: None)
    _unmark(target, say)
    size = f"{sum(sizes.values()) / 1e6:,.1f} MB"
    say(f"     copy  {len(files) + 1:,} files, {size}, to {target}; without dropped/, which holds raw text")
    return True


def _to_copy(stage: Path) -> list[str]:
    """Names of what a copy holds beside its manifest: no hidden files, nothing of what was dropped."""
    names = (file.relative_to(stage) for file in sorted(stage.rglob("*")) if file.is_file())
    return [
        name.as_posix()
        for name in names
        if not any(part.startswith(".") for part in name.parts) and name.parts[0] not in ("dropped", MANIFEST)
    ]


def _without_raw_text(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest for others: neither examples of dropped records nor the user's lists of private words."""
    report, clean = manifest["report"], dict(manifest["config"]["clean"])
    for name in ("private_allow", "private_deny"):
        clean[name] = [f"{len(clean[name])} entries, not copied"] if clean.get(name) else []
    details = {**report["details"], "dropped": []}
    return {**manifest, "config": {**manifest["config"], "clean": clean}, "report": {**report, "details": details}}


def _is_aside(name: str) -> bool:
    """What :func:`_put` left that was killed."""
    file = name.rpartition("/")[2]
    return file.startswith(".") and file.endswith(".tmp")


def _unmark(target: Source, say: Callable[[str], None]) -> None:
    """Take the marker away; a copy with its manifest is complete without, so where storage refuses that, it is told."""
    if isinstance(target, Path):
        (target / MARKER).unlink(missing_ok=True)
        return
    if MARKER in look_at(target):
        key = f"{target.prefix}/{MARKER}".lstrip("/")
        try:
            with told(f"s3://{target.bucket}/{key}", target.bucket):
                client(target.bucket).delete_file(f"{target.bucket}/{key}")
        except RemoteError as error:
            say(f"           {MARKER} stays there, the copy is complete: {error}")


def read_manifest(target: Source) -> Any:
    """The manifest of a copy."""
    return _read(target, MANIFEST)


def _read(target: Source, name: str) -> Any:
    """A manifest or a marker; somebody else's file of that name is none."""
    try:
        if isinstance(target, Path):
            found = json.loads((target / name).read_bytes())
        else:
            place = f"{target.bucket}/{target.prefix}/{name}".replace("//", "/")
            with (
                told(f"{target}/{name}", target.bucket),
                client(target.bucket).open_input_stream(place, compression=None) as stream,
            ):
                found = json.loads(stream.read())
        _ = found["key"]
        return found
    except (ValueError, TypeError, LookupError) as error:
        fix = "choose another place, or remove it"
        raise RunError(f"{name} there is not ours", where=str(target), fix=fix) from error


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
