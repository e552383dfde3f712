"""Files as people hold them: found in folders, unpacked, and decoded, before anybody asks what format they have.

Every byte of a file is checked once before its first row is handed on, so that a file is either readable as a whole
or not read at all.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from ownchat.errors import DataError

SAMPLE_CHARS = 256_000
CHUNK = 1 << 20

_MAGIC = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive (Word, Excel and PowerPoint files are such archives)",
    b"PK\x05\x06": "an empty zip archive",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
    b"\x7fELF": "a program",
    b"{\\rtf": "an RTF document",
}  # fmt: skip
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class UnreadableFile(DataError):
    """A whole file that cannot be used: in a folder a row of the ledger and a warning, alone an error."""


@dataclass(frozen=True)
class Found:
    """A path in the source and its name there; ``skipped`` says why it is not read (hidden, a link, ...)."""

    path: Path
    name: str  # relative to the source: the same on every machine
    skipped: str = ""


@dataclass(frozen=True)
class InputFile:
    """A file that is known to decode; :meth:`open_text` streams it."""

    path: Path
    name: str
    encoding: str
    gzipped: bool
    sample: str  # its beginning, line ends as they stand
    whole: bool  # the sample is all of it
    guessed: bool = False  # neither a byte order mark nor UTF-8: the encoding was inferred
    on_bytes: Callable[[int], None] | None = field(default=None, compare=False)

    @property
    def suffix(self) -> str:
        """The extension without ``.gz``, lower case: ``".csv"``."""
        suffixes = [suffix.lower() for suffix in Path(self.name).suffixes]
        if suffixes and suffixes[-1] == ".gz":
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    def open_text(self, newline: str | None = None) -> TextIO:
        """A text stream; ``newline`` as in :func:`open` (``""`` keeps line ends)."""
        stream = _open_binary(self.path, self.gzipped, self.on_bytes)
        return io.TextIOWrapper(stream, encoding=self.encoding, newline=newline)


def find(sources: Sequence[Path]) -> list[Found]:
    """All files under ``sources``, folders walked in sorted order; hidden and special ones are marked, not left out.

    Raises :class:`~ownchat.errors.DataError` for a path that does not exist and a folder without any file.
    """
    found: list[Found] = []
    bases = [source.resolve().name for source in sources]
    for number, source in enumerate(sources):
        if not source.exists():
            raise DataError("there is no such file or folder", where=str(source), fix="check the path")
        base = bases[number] if bases.count(bases[number]) == 1 else f"{number}-{bases[number]}"
        if not source.is_dir():
            found.append(Found(source, base, "" if source.is_file() else "not a regular file"))
            continue
        inside = list(_walk(source, f"{base}/" if len(sources) > 1 else ""))
        if not inside:
            raise DataError("the folder is empty", where=str(source), fix="put the files to learn from into it")
        found += inside
    return found


def open_file(path: Path, name: str, *, beginning_only: bool = False) -> InputFile:
    """Find out how a file decodes: byte order mark, else UTF-8, else inferred from its bytes.

    Reads all of it once, or only the start when ``beginning_only`` (for a preview). Raises
    :class:`UnreadableFile` for an empty, binary, damaged or undecodable file.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(16)
        gzipped = head.startswith(b"\x1f\x8b")
        with _open_binary(path, gzipped) as stream:
            beginning = stream.read(4 * SAMPLE_CHARS)
            more = bool(stream.read(1))
        encoding, guessed = _encoding(path, name, gzipped, beginning, more and beginning_only)
        with io.TextIOWrapper(_open_binary(path, gzipped), encoding=encoding, newline="") as text:
            sample = text.read(SAMPLE_CHARS)
            whole = not text.read(1)
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        reason = f"cannot be read: {error.strerror if isinstance(error, OSError) and error.strerror else error}"
        raise UnreadableFile(reason, where=name, fix="check the file and its permissions, or remove it") from error
    if whole and not sample.strip():
        raise UnreadableFile("the file is empty", where=name, fix="remove it, or put text into it")
    return InputFile(path, name, encoding, gzipped, sample, whole, guessed)


# ------------------------------------------------------------------------------------------------------- finding


def _walk(folder: Path, prefix: str) -> Iterator[Found]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        name = prefix + path.name
        if path.name.startswith("."):
            yield Found(path, name, "hidden")
        elif path.is_dir():
            if path.is_symlink():
                yield Found(path, name, "a link to a folder")  # may lead back to where we are
            elif not os.access(path, os.R_OK | os.X_OK):
                yield Found(path, name, "no permission to look into the folder")
            else:
                yield from _walk(path, f"{name}/")
        elif path.is_file():
            yield Found(path, name)
        else:
            yield Found(path, name, "a broken link" if path.is_symlink() else "not a regular file")


class _Counted(io.FileIO):
    """A raw file that tells how many bytes were taken from it: compressed ones, as the folder shows them."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._on_bytes = on_bytes

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self._on_bytes(count or 0)
        return count or 0


def _open_binary(path: Path, gzipped: bool, on_bytes: Callable[[int], None] | None = None) -> BinaryIO:
    raw = _Counted(path, on_bytes) if on_bytes else io.FileIO(path, "rb")
    buffered = io.BufferedReader(raw, CHUNK)
    if not gzipped:
        return buffered
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, _Unzipped(buffered)), CHUNK))


class _Unzipped(gzip.GzipFile):
    """A gzip stream that closes the file below it."""

    def __init__(self, below: BinaryIO) -> None:
        self._below = below
        super().__init__(fileobj=below, mode="rb")

    def close(self) -> None:
        super().close()
        self._below.close()


# ------------------------------------------------------------------------------------------------------ decoding


def _encoding(path: Path, name: str, gzipped: bool, beginning: bytes, beginning_only: bool) -> tuple[str, bool]:
    """The encoding under which all bytes decode, and whether it was inferred."""
    for magic, what in _MAGIC.items():
        if beginning.startswith(magic):
            raise UnreadableFile(f"this is {what}, not text", where=name, fix="save or export it as text, CSV or JSON")
    marked = next((encoding for bom, encoding in _BOMS if beginning.startswith(bom)), None)
    candidates = [(marked, False)] if marked else [("utf-8", False)]
    if not marked and b"\0" in beginning:
        wide = _utf16(beginning)
        if not wide:
            raise UnreadableFile("this is a binary file, not text", where=name, fix="export it as text, CSV or JSON")
        candidates = [(wide, True)]
    for encoding, guessed in candidates:
        if _decodes(path, gzipped, encoding, beginning_only):
            return encoding, guessed
    if not marked:
        inferred = _infer(_suspects(path, gzipped, beginning_only))
        if inferred and _decodes(path, gzipped, inferred, beginning_only):
            return inferred, True
    reason = f"its bytes are not valid {marked or 'UTF-8'}, nor any other encoding that makes text of them"
    raise UnreadableFile(reason, where=name, fix="save it as UTF-8")


def _decodes(path: Path, gzipped: bool, encoding: str, beginning_only: bool) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with _open_binary(path, gzipped) as stream:
        try:
            while chunk := stream.read(CHUNK):
                if "\0" in decoder.decode(chunk):
                    return False
                if beginning_only:
                    return True
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _utf16(beginning: bytes) -> str | None:
    """UTF-16 without a mark: Western text has a zero in every second byte, always on the same side."""
    even, odd = beginning[::2].count(0), beginning[1::2].count(0)
    half = len(beginning) // 2
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.4 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _suspects(path: Path, gzipped: bool, beginning_only: bool, most: int = 65_536) -> bytes:
    """Lines with bytes above 127: only they can tell one legacy encoding from another."""
    kept, size = [], 0
    with _open_binary(path, gzipped) as stream:
        read = 0
        while size < most and (line := stream.readline(CHUNK)):
            read += len(line)
            if not line.isascii():
                kept.append(line[:8192])
                size += len(kept[-1])
            if beginning_only and read > CHUNK:
                break
    return b"".join(kept)


# Letters and signs of Western European text. õ is left out: there Hungarian has its most frequent letter of its own.
_WESTERN = frozenset("åäöéèüñçßæøáíóúâêîôûàìòùãëïÅÄÖÉÈÜÑÇÆØÁÍÓÚÂÊÎÔÀËÏ“”„‘’–—…•€£«»¿¡°§®©´·\xa0")

_LEGACY = (
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2", "iso8859_7",
    "iso8859_9", "koi8_r", "koi8_u", "cp932", "euc_jp", "iso2022_jp", "gb18030", "big5", "euc_kr", "cp949", "cp874",
    "mac_roman", "cp850",
)  # fmt: skip


def _infer(sample: bytes) -> str | None:
    """A legacy encoding for bytes that are not UTF-8: Windows-1252 where it makes sense, else by statistics."""
    from charset_normalizer import from_bytes

    try:
        text = sample.decode("cp1252")  # what is called Latin-1 nearly always has Windows' quotes and dashes
    except UnicodeDecodeError:
        text = ""
    foreign = [character for character in text if character > "\x7f"]
    western = _WESTERN | {"õ"} if "ã" in text else _WESTERN  # Portuguese
    known = sum(character in western for character in foreign)
    if foreign and known >= 0.97 * len(foreign) and len(foreign) < 0.4 * len(text):
        return "cp1252"  # statistics alone take short Swedish for Windows-1250
    best = from_bytes(sample, cp_isolation=list(_LEGACY)).best()
    if best is not None and best.encoding == "cp1252" and re.search("[a-z][³¹¿][a-z]", text):
        return "cp1250"  # no Western word has these inside: they are Polish letters
    return best.encoding if best is not None else None
