"""How bytes become text: byte order mark, UTF-8, mixtures of UTF-8 and Windows-1252, or an inferred legacy encoding."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 1 << 20
MIXED = "ownchat.mixed"  # the error handler that reads bytes which are not UTF-8 as Windows-1252

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MOST_NULS = 0.001  # share of the bytes: more is a binary file, fewer are damage

Open = Callable[[], BinaryIO]


@dataclass(frozen=True)
class Decoding:
    """How a file is decoded; ``notes`` say what was inferred or damaged, for the ledger."""

    encoding: str
    errors: str = "strict"
    has_nuls: bool = False  # single bytes of zero, read as spaces
    notes: tuple[str, ...] = ()


def find_decoding(open_binary: Open, beginning: bytes, *, beginning_only: bool = False) -> Decoding | str:
    """The decoding under which a file makes text, or the reason why there is none.

    Reads all bytes once (only the first ones when ``beginning_only``). A file of which some lines are UTF-8 and some
    are not is read as UTF-8, what does not fit as Windows-1252.
    """
    marked = next((encoding for bom, encoding in _BOMS if beginning.startswith(bom)), None)
    if marked:
        fits, nuls = _try(open_binary, marked, beginning_only)
        if fits:
            return Decoding(marked, has_nuls=bool(nuls) and marked == "utf-8-sig", notes=_nul_notes(nuls))
        if marked != "utf-8-sig":
            return _refused(marked)
    elif b"\0" in beginning:
        if wide := _utf16(beginning):
            fits, _ = _try(open_binary, wide, beginning_only)
            return Decoding(wide, notes=(f"decoded as {wide}",)) if fits else _refused(wide)
        if beginning.count(0) > 1 + _MOST_NULS * len(beginning) or _control_share(beginning) > 0.02:
            return "this is a binary file, not text"
    fits, nuls = _try(open_binary, "utf-8", beginning_only)
    if fits:
        return Decoding("utf-8", has_nuls=bool(nuls), notes=_nul_notes(nuls))
    suspects = _suspects(open_binary, beginning_only)
    if _is_mixed(suspects):
        note = "bytes that are not UTF-8 read as Windows-1252"
        return Decoding(marked or "utf-8", MIXED, has_nuls=b"\0" in beginning or bool(nuls), notes=(note,))
    inferred = infer(b"".join(suspects))
    if inferred:
        fits, nuls = _try(open_binary, inferred, beginning_only)
        if fits:
            return Decoding(inferred, has_nuls=bool(nuls), notes=(f"decoded as {inferred}", *_nul_notes(nuls)))
    if _odd_share(beginning) < 0.02:  # text in which a few bytes are damaged
        return Decoding("utf-8", MIXED, has_nuls=b"\0" in beginning, notes=("damaged bytes read as Windows-1252",))
    return _refused("UTF-8")


def register_mixed() -> None:
    """Make the error handler :data:`MIXED` known to this process; cheap to call again."""
    codecs.register_error(MIXED, _as_windows_1252)


def _refused(encoding: str) -> str:
    return f"its bytes are not valid {encoding}, nor any other encoding that makes text of them"


def _nul_notes(count: int) -> tuple[str, ...]:
    return ("bytes of zero read as spaces",) if count else ()


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


def _control_share(beginning: bytes) -> float:
    """Share of the bytes that are control characters."""
    controls = bytes(byte for byte in range(32) if byte not in b"\t\n\r\f\v\x1b")
    return 1 - len(beginning.translate(None, controls)) / max(1, len(beginning))


def _odd_share(beginning: bytes) -> float:
    """Share of the bytes that plain English text does not have."""
    printable = bytes(range(32, 127)) + b"\t\n\r\f"
    return len(beginning.translate(None, printable)) / max(1, len(beginning))


def _try(open_binary: Open, encoding: str, beginning_only: bool) -> tuple[bool, int]:
    """Whether all bytes decode, and the number of zero characters."""
    decoder = codecs.getincrementaldecoder(encoding)()
    nuls = 0
    with open_binary() as stream:
        try:
            while chunk := stream.read(CHUNK):
                nuls += decoder.decode(chunk).count("\0")
                if beginning_only:
                    return True, nuls
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False, nuls
    return True, nuls


def _utf16(beginning: bytes) -> str | None:
    """UTF-16 without a mark: Western text has a zero in every second byte, always on the same side."""
    even, odd = beginning[::2].count(0), beginning[1::2].count(0)
    half = len(beginning) // 2
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.4 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _suspects(open_binary: Open, beginning_only: bool, most: int = 65_536) -> list[bytes]:
    """Lines with bytes above 127: only they can tell one legacy encoding from another."""
    kept: list[bytes] = []
    size = read = 0
    with open_binary() as stream:
        while size < most and (line := stream.readline(CHUNK)):
            read += len(line)
            if not line.isascii():
                kept.append(line[:8192] if len(line) <= 8192 else _whole_characters(line))
                size += len(kept[-1])
            if beginning_only and read > CHUNK:
                break
    return kept


def _whole_characters(line: bytes) -> bytes:
    """The surroundings of the first odd byte of a long line, not cut inside a UTF-8 character."""
    start = next(i for i in range(0, len(line), 4096) if not line[i : i + 4096].isascii())
    piece = line[start : start + 8192]
    return piece.lstrip(bytes(range(0x80, 0xC0))).rstrip(bytes(range(0x80, 0x100)))


def _is_mixed(lines: list[bytes]) -> bool:
    """Whether some of the lines are UTF-8: by chance a line of a legacy encoding hardly ever is."""
    valid = 0
    for line in lines:
        try:
            line.decode("utf-8")
            valid += not line.isascii()
        except UnicodeDecodeError:
            # one damaged byte in a long line of good ones
            text = line.decode("utf-8", "replace")
            good = sum(character > "\x7f" for character in text) - text.count("\ufffd")
            valid += good > 2 * text.count("\ufffd")
    return valid >= max(1, 0.1 * len(lines))


# Letters and signs of Western European text. õ is left out: there Hungarian has its most frequent letter of its own.
_WESTERN = frozenset("åäöéèüñçßæøáíóúâêîôûàìòùãëïÅÄÖÉÈÜÑÇÆØÁÍÓÚÂÊÎÔÀËÏ“”„‘’–—…•€£«»¿¡°§®©´·\xa0")

_LEGACY = (
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2", "iso8859_7",
    "iso8859_9", "koi8_r", "koi8_u", "cp932", "euc_jp", "iso2022_jp", "gb18030", "big5", "euc_kr", "cp949", "cp874",
    "mac_roman", "cp850",
)  # fmt: skip


def infer(sample: bytes) -> str | None:
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
