"""Archives become files: zip and tar, also inside each other, unpacked into a folder of the stage.

No name in an archive is ever a path on disk. What an archive may grow to is limited, so that one made to fill the
disk is refused; the count is of bytes that were written, not of what the archive says of itself.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ownchat.data.files import Found, compression_of, is_media, office_format
from ownchat.data.remote import ROOM_LEFT, Location, RemoteFile, fetched, size_of
from ownchat.data.streams import open_compressed

MOST_GROWTH = 200  # times the archive's size (text shrinks to a tenth, a repetitive log to a fiftieth) ...
ALWAYS_ALLOWED = 512_000_000  # ... but so many bytes in any case
MOST_MEMBERS = 500_000
DEEPEST = 3  # archives in archives

_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, RuntimeError,
    NotImplementedError, ValueError,
)  # fmt: skip


class _TooLarge(Exception):
    """The archive grew past its limit."""


@dataclass
class _Budget:
    """What one archive, with those inside it, may still write, and the number that its files' names begin with."""

    left: int
    number: int
    files: int = 0


def expand(found: Iterable[Found], room: Path) -> Iterator[Found]:
    """Files as they are, and in place of archives the archive's own mark followed by its members.

    An archive that is damaged, too large or locked is marked as skipped; its good members are kept. ``room`` is a
    folder for the unpacked files, made when the first archive is met.
    """
    for number, one in enumerate(found):
        if one.skipped or not (kind := archive_kind(one.path)):
            yield one
            continue
        budget = _Budget(max(ALWAYS_ALLOWED, MOST_GROWTH * size_of(one.path)), number)
        if isinstance(one.path, RemoteFile):
            with fetched(one.path, room) as path:
                yield from _unpack(path, one.name, kind, room, budget, depth=1)
        else:
            yield from _unpack(one.path, one.name, kind, room, budget, depth=1)


def archive_kind(path: Location) -> str:
    """``"zip"``, ``"tar"``, ``"one"`` (a compressed document), or empty: a text, an Office document, an e-book."""
    try:
        with open_compressed(path) as file:
            head = file.read(512)
        if head.startswith(b"PK\x03\x04"):
            return "" if office_format(path) else "zip"
        if compression := compression_of(head):
            with open_compressed(path, compression) as stream:
                head = stream.read(512)
            if head.startswith((b"%PDF", b"PK\x03\x04", b"PAR1", b"ARROW1")):
                return "one"  # its reader has to go to and fro in it
        return "tar" if head[257:262] == b"ustar" else ""
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return ""


def _unpack(path: Path, name: str, kind: str, room: Path, budget: _Budget, *, depth: int) -> Iterator[Found]:
    members: list[Found] = []
    problem = ""
    try:
        for member in {"zip": _zip, "tar": _tar, "one": _compressed}[kind](path, name, room, budget):
            members.append(member)
            if len(members) >= MOST_MEMBERS:
                problem = f"it has more than {MOST_MEMBERS:,} members"
                break
    except _TooLarge:
        problem = f"it grows to more than {MOST_GROWTH} times its size: the rest of it was not unpacked"
    except _DAMAGE as error:
        problem = f"the archive is damaged: {error or type(error).__name__}"
    if problem:
        members.append(Found(path, f"{name}/…", problem, "archive"))
    yield Found(path, name, members=len(members))
    for member in members:
        if member.skipped:
            yield member
            continue
        assert isinstance(member.path, Path)  # we wrote it
        inner = archive_kind(member.path)
        if inner and depth >= DEEPEST:
            yield Found(member.path, member.name, f"archives in archives, more than {DEEPEST} deep", "archive")
        elif inner:
            yield from _unpack(member.path, member.name, inner, room, budget, depth=depth + 1)
        else:
            yield member


def _zip(path: Path, whole: str, room: Path, budget: _Budget) -> Iterator[Found]:
    with zipfile.ZipFile(path) as archive:
        names: set[str] = set()
        for info in archive.infolist():
            if info.is_dir():
                continue
            name = _unique(info.filename, names)
            label = f"{whole}/{name}"
            if reason := _not_wanted(name):
                yield Found(path, label, *reason)
            elif info.flag_bits & 1:
                yield Found(path, label, "it needs a password: unpack it yourself", "archive")
            else:
                try:
                    with archive.open(info) as stream:
                        yield Found(_copy(stream, room, budget), label)
                except _DAMAGE as error:
                    yield Found(path, label, f"damaged in the archive: {error or type(error).__name__}", "archive")


def _tar(path: Path, whole: str, room: Path, budget: _Budget) -> Iterator[Found]:
    with tarfile.open(path, "r:*") as archive:
        names: set[str] = set()
        for info in archive:
            if info.isdir():
                continue
            name = _unique(info.name, names)
            label = f"{whole}/{name}"
            if not info.isfile():
                yield Found(path, label, "not a regular file")
            elif reason := _not_wanted(name):
                yield Found(path, label, *reason)
            elif (stream := archive.extractfile(info)) is not None:
                with stream:
                    yield Found(_copy(stream, room, budget), label)


def _compressed(path: Path, whole: str, room: Path, budget: _Budget) -> Iterator[Found]:
    with open(path, "rb") as file:
        compression = compression_of(file.read(16))
    with open_compressed(path, compression) as stream:
        yield Found(_copy(stream, room, budget), f"{whole}/{Path(whole).stem}")


def _not_wanted(name: str) -> tuple[str, str] | None:
    parts = name.split("/")
    if parts[0] == "__MACOSX" or any(part.startswith(".") and part not in (".", "..") for part in parts):
        return "hidden", "hidden"
    return ("media", "media") if is_media(name) else None


def _unique(name: str, names: set[str]) -> str:
    """A name for people and the books: without what would climb out of the archive, different from all others."""
    clean = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))
    clean = clean.encode("utf-8", "backslashreplace").decode() or "(no name)"
    unique, count = clean, 1
    while unique in names:
        count += 1
        unique = f"{clean} ({count})"
    names.add(unique)
    return unique


def _copy(stream: IO[bytes], room: Path, budget: _Budget) -> Path:
    room.mkdir(parents=True, exist_ok=True)
    budget.files += 1
    path = room / f"{budget.number:03d}-{budget.files:06d}"
    try:
        with open(path, "wb") as file:
            while chunk := stream.read(1 << 20):
                budget.left -= len(chunk)
                if budget.left < 0 or shutil.disk_usage(room).free < ROOM_LEFT:
                    raise _TooLarge
                file.write(chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
