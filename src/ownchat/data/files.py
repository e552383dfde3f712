"""Files as people hold them: found in folders and decoded, before anybody asks what format they have.

Every byte of a text file is checked once before its first row is handed on.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from ownchat.data.encodings import CHUNK, Decoding, find_decoding, register_mixed
from ownchat.data.remote import Location, Remote, RemoteFile, Source, fetch, is_readable, size_of
from ownchat.data.streams import Beginning, WithoutNuls, open_compressed
from ownchat.errors import DataError

SAMPLE_CHARS = 256_000
LONGEST_LINE = 64_000_000  # characters: a longer line is handed out cut

_TEXT = Decoding("utf-8")
_MAGIC = {
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"BZh": "a bzip2 archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"SQLite format 3": "an SQLite database",
    b"\x7fELF": "a program",
    b"{\\rtf": "an RTF document",
    b"!BDN": "an Outlook data file (PST)",
}  # fmt: skip
_MEDIA_MAGIC = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"OggS", b"ID3", b"fLaC", b"\x1aE\xdf\xa3", b"RIFF", b"\0\0\1\0",
)  # fmt: skip
_BINARY_FORMATS = {b"%PDF": "pdf", b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}
_IN_RANGES = ("parquet", "arrow")  # large ones, of which their reader takes one stretch after the other
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz")
_PICTURES = "jpg jpeg png gif webp heic heif bmp tif tiff svg ico"
_FILMS = "mp4 mov avi mkv webm 3gp m4v"
_SOUNDS = "mp3 m4a ogg oga opus wav flac aac amr"
_OTHERS = "tgs vcf ttf woff woff2 otf eot css js map exe dll so pyc"
MEDIA_SUFFIXES = frozenset(f".{name}" for name in f"{_PICTURES} {_FILMS} {_SOUNDS} {_OTHERS}".split())


class UnreadableFile(DataError):
    """A whole file that cannot be used: in a folder a row of the ledger and a warning, alone an error."""


@dataclass(frozen=True)
class Found:
    """A file or an object in the source and its name there; ``skipped`` says why it is not read (hidden, a link, ...).

    ``rule`` is the ledger's word for that. ``members``: an archive that was unpacked to so many files of their own.
    """

    path: Location
    name: str  # relative to the source: the same on every machine
    skipped: str = ""
    rule: str = "special"
    members: int = 0


@dataclass(frozen=True)
class InputFile:
    """A file that is known to decode (:meth:`open_text`), or one of the binary formats that have a ``magic``."""

    path: Location
    name: str
    decoding: Decoding = _TEXT
    compression: str = ""  # gzip | bzip2 | xz
    magic: str = ""  # pdf | docx | pptx | xlsx | epub | odt | ods | odp | parquet | arrow; empty: text
    beginning: str | None = ""  # the sample; None: read again when asked for
    whole: bool = True  # the sample is all of it
    on_bytes: Callable[[int], None] | None = field(default=None, compare=False)
    room: Path | None = None  # where an object becomes a file for a while; none: the system's folder for such
    most_bytes: int | None = None  # a preview reads no further; formats with a magic are always read whole

    @property
    def encoding(self) -> str:
        return self.decoding.encoding

    @property
    def size(self) -> int:
        """Bytes on disk, compressed ones where it is compressed."""
        return size_of(self.path)

    @property
    def suffix(self) -> str:
        """The extension without ``.gz``, lower case: ``".csv"``."""
        suffixes = [suffix.lower() for suffix in Path(self.name).suffixes]
        if suffixes and suffixes[-1] in _COMPRESSED_SUFFIXES:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @property
    def sample(self) -> str:
        """Its first 256,000 characters, line ends as they stand; empty for a binary format."""
        if self.beginning is not None:
            return self.beginning
        with self.open_text(newline="") as text:
            return text.read(SAMPLE_CHARS)

    @property
    def outline(self) -> Any:
        """The JSON value of the sample, closed where it is cut; None: this is not JSON."""
        from ownchat.data.json_outline import outline

        return outline(self.sample, whole=self.whole) if self.beginning is None else self._outline

    @cached_property
    def _outline(self) -> Any:
        from ownchat.data.json_outline import outline

        return outline(self.sample, whole=self.whole)

    def without_sample(self) -> InputFile:
        """The same file; its sample is read again each time it is asked for, for the sake of memory."""
        return self if self.magic else replace(self, beginning=None)

    def open_binary(self) -> BinaryIO:
        """The bytes, decompressed. Formats with a magic are read to and fro: those of an object come here first."""
        if self.magic and self.magic not in _IN_RANGES and isinstance(self.path, RemoteFile):
            return fetch(self.path, self.room, self.on_bytes)
        stream = open_compressed(self.path, self.compression, self.on_bytes)
        if self.most_bytes is None or self.magic:
            return stream
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, Beginning(stream, self.most_bytes)), CHUNK))

    def open_text(self, newline: str | None = None) -> TextIO:
        """A text stream; ``newline`` as in :func:`open` (``""`` keeps line ends)."""
        register_mixed()
        stream = self.open_binary()
        if self.decoding.has_nuls:
            stream = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, WithoutNuls(stream)), CHUNK))
        return io.TextIOWrapper(stream, encoding=self.encoding, errors=self.decoding.errors, newline=newline)

    def lines(self, newline: str | None = None) -> Iterator[tuple[int, str]]:
        """Lines with their number from 1; one longer than :data:`LONGEST_LINE` is handed out cut."""
        with self.open_text(newline) as text:
            number = 0
            while line := text.readline(LONGEST_LINE):
                number += 1
                while len(line) >= LONGEST_LINE and not line.endswith("\n"):
                    more = text.readline(LONGEST_LINE)
                    if len(more) < LONGEST_LINE or more.endswith("\n"):
                        break
                yield number, line


def find(sources: Sequence[Source]) -> list[Found]:
    """All files under ``sources``, folders walked in sorted order; hidden and special ones are marked, not left out.

    Raises :class:`~ownchat.errors.DataError` for a path that does not exist and a folder without any file, and
    :class:`~ownchat.data.storage.RemoteError` for storage without an object, or that refuses.
    """
    found: list[Found] = []
    bases = [source.resolve().name if isinstance(source, Path) else source.name for source in sources]
    for number, source in enumerate(sources):
        if isinstance(source, Path) and not source.exists():
            raise DataError("there is no such file or folder", where=str(source), fix="check the path")
        base = bases[number] if bases.count(bases[number]) == 1 else f"{number}-{bases[number]}"
        prefix = f"{base}/" if len(sources) > 1 else ""
        if isinstance(source, Remote):
            found += _listed(source, prefix) if source.is_dir() else [Found(source.files[0], base)]
            continue
        if not source.is_dir():
            found.append(Found(source, base, "" if source.is_file() else "not a regular file"))
            continue
        inside = list(_walk(source, prefix))
        if not inside:
            raise DataError("the folder is empty", where=str(source), fix="put the files to learn from into it")
        found += inside
    return found


def open_file(path: Location, name: str, *, beginning_only: bool = False) -> InputFile:
    """Find out what a file is made of, and how it decodes.

    Reads all of it once, or only the start when ``beginning_only`` (to recognise its format). Raises
    :class:`UnreadableFile` for an empty, damaged or undecodable file, and binary ones that no reader knows.
    """
    try:
        with open_compressed(path) as handle:
            head = handle.read(16)
        if magic := _binary_format(path, head, name):
            return InputFile(path, name, magic=magic)
        compression = compression_of(head)
        with open_compressed(path, compression) as stream:
            beginning = stream.read(4 * SAMPLE_CHARS)
            more = bool(stream.read(1))
        _refuse_binary(beginning, name)

        def again() -> BinaryIO:
            return open_compressed(path, compression)

        decoding = find_decoding(again, beginning, beginning_only=more and beginning_only)
        if isinstance(decoding, str) and _looks_like_mail(beginning):
            decoding = Decoding("latin-1")
        if isinstance(decoding, str):
            raise UnreadableFile(decoding, where=name, fix="save it as UTF-8, or export it as text, CSV or JSON")
        with InputFile(path, name, decoding, compression).open_text(newline="") as text:
            sample = text.read(SAMPLE_CHARS)
            whole = not text.read(1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # BadGzipFile is an OSError
        reason = f"cannot be read: {error.strerror if isinstance(error, OSError) and error.strerror else error}"
        raise UnreadableFile(reason, where=name, fix="check the file and its permissions, or remove it") from error
    if whole and not sample.strip():
        raise UnreadableFile("the file is empty", where=name, fix="remove it, or put text into it")
    return InputFile(path, name, decoding, compression, "", sample, whole)


def compression_of(head: bytes) -> str:
    """What the first bytes of a file say: ``"gzip"``, ``"bzip2"``, ``"xz"`` or nothing."""
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), "")


def office_format(path: Location) -> str:
    """What a zip file really is: ``"docx"``, ``"epub"``, ..., or empty: an archive of files."""
    try:
        with open_compressed(path) as stream, zipfile.ZipFile(stream) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                kind = archive.read("mimetype").decode("ascii", "replace").strip()
                if kind == "application/epub+zip":
                    return "epub"
                last = kind.rpartition(".")[2]
                return {"text": "odt", "spreadsheet": "ods", "presentation": "odp"}.get(last, "")
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, zlib.error):
        return ""
    if "[Content_Types].xml" not in names:
        return ""
    parts = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
    return next((kind for part, kind in parts.items() if any(name.startswith(part) for name in names)), "")


def is_media(name: str, head: bytes = b"") -> bool:
    """Whether a file is a picture, a sound, a film or a program by its name or first bytes: nothing to read in it."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in MEDIA_SUFFIXES or head.startswith(_MEDIA_MAGIC) or head[4:8] == b"ftyp"


# ------------------------------------------------------------------------------------------------------- finding


def _walk(folder: Path, prefix: str) -> Iterator[Found]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        name = prefix + os.fsencode(path.name).decode("utf-8", "backslashreplace")  # any bytes make a name on disk
        if path.name.startswith(".") and not _is_maildir(path):
            yield Found(path, name, "hidden", "hidden")
        elif path.is_symlink():  # it may lead out of the folder, or back to where we are
            yield Found(path, name, "a link" if path.exists() else "a broken link")
        elif path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                yield Found(path, name, "no permission to look into the folder")
            else:
                yield from _walk(path, f"{name}/")
        elif path.is_file():
            media = is_media(path.name)
            yield Found(path, name, "media" if media else "", "media" if media else "special")
        else:
            yield Found(path, name, "not a regular file")


def _listed(source: Remote, prefix: str) -> Iterator[Found]:
    """What :func:`_walk` finds in a folder with these files: the same names in the same order."""
    start = len(source.prefix) + 1 if source.prefix else 0
    boxes = ((file.key, box.start()) for file in source.files for box in re.finditer("/(cur|new)/", file.key))
    maildirs = {key[:end] for key, end in boxes}  # there are no empty folders in storage: one of the two can be missing
    hidden = ""  # the folder that was told last
    for file in source.files:
        name = file.key[start:]
        folder = _hidden_part(name, file.key[:start], maildirs)
        if folder and folder != hidden:
            yield Found(file, prefix + folder, "hidden", "hidden")
        elif not folder and not is_readable(name):
            yield Found(file, prefix + name, "a part of its name is empty")
        elif not folder:
            media = is_media(file.name)
            yield Found(file, prefix + name, "media" if media else "", "media" if media else "special")
        hidden = folder or hidden


def _hidden_part(name: str, start: str, maildirs: set[str]) -> str:
    """A key up to its first hidden part, or nothing."""
    parts = name.split("/")
    for number, part in enumerate(parts, 1):
        folder = "/".join(parts[:number])
        if part.startswith(".") and start + folder not in maildirs:
            return folder
    return ""


def _is_maildir(path: Path) -> bool:
    """Whether a folder holds mail, one file each: mail programs call a folder inside another ".Sent"."""
    return (path / "cur").is_dir() and (path / "new").is_dir()


def _looks_like_mail(beginning: bytes) -> bool:
    """Whether bytes are a mail: their charsets are said inside, each part its own."""
    head = beginning[:4096]
    return bool(re.match(rb"[A-Za-z-]+: |From ", head)) and bool(re.search(rb"^(From|Received): ", head, re.MULTILINE))


def _binary_format(path: Location, head: bytes, name: str) -> str:
    if head.startswith(b"PK\x03\x04"):
        if kind := office_format(path):
            return kind
        raise UnreadableFile("this zip archive cannot be unpacked", where=name, fix="unpack it yourself, or remove it")
    if head.startswith(b"PK\x05\x06"):
        raise UnreadableFile("the archive is empty", where=name, fix="remove it")
    return next((kind for magic, kind in _BINARY_FORMATS.items() if head.startswith(magic)), "")


def _refuse_binary(beginning: bytes, name: str) -> None:
    for magic, what in _MAGIC.items():
        if beginning.startswith(magic):
            raise UnreadableFile(f"this is {what}, not text", where=name, fix="save or export it as text, CSV or JSON")
    if is_media("", beginning[:16]):
        raise UnreadableFile("this is a picture, a sound or a film, not text", where=name, fix="remove it")
