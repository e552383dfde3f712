"""Header fields of a mail: found, unfolded and decoded, also where the sender's program broke the rules.

RFC 5322 (fields, addresses, dates), RFC 2047 (encoded words), RFC 2231 (long parameters).
"""

from __future__ import annotations

import binascii
import calendar
import codecs
import email.utils
import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

# The fields that somebody asks for. Others are never looked at: Received alone is half of many mails.
_WANTED = frozenset((
    "auto-submitted", "cc", "content-disposition", "content-length", "content-transfer-encoding", "content-type",
    "date", "delivered-to", "from", "in-reply-to", "list-id", "list-post", "mailing-list", "message-id", "precedence",
    "references", "reply-to", "return-path", "sender", "sent", "subject", "to", "x-auto-response-suppress",
    "x-autoreply", "x-autorespond", "x-beenthere", "x-gmail-labels", "x-mozilla-status", "x-original-to",
    "x-spam-flag", "x-failed-recipients", "content-class", "content-description",
))  # fmt: skip
_FOLD = re.compile(r"\n[ \t]+")
_END = re.compile(rb"\n[ \t]*\r?\n")  # begins with a plain byte: regular expressions find that fast

_WORD = re.compile(r"=\?([^?\s]+)\?([bBqQ])\?([^?]*)\?=")
_BETWEEN = re.compile(r"(\?=)\s+(?==\?[^?\s]+\?[bBqQ]\?)")
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_ANGLE = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^<>,;"]*))\s*<\s*([^<>\s]+@[^<>\s]+?)\s*>')
_BARE = re.compile(r'([^\s<>,;:"()\[\]]+@[^\s<>,;:"()\[\]]+)(?:\s*\(([^)]*)\))?')
_NOT_TEXT = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
_CHARSETS = {  # what is written -> what is meant: names of old programs, and subsets whose superset everybody sends
    "iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "iso8859-1": "cp1252", "iso-8859-8-i": "iso8859-8",
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "ks_c_5601-1987": "cp949", "euc-kr": "cp949",
    "shift_jis": "cp932", "x-sjis": "cp932", "iso-8859-9": "cp1254", "tis-620": "cp874", "iso-8859-11": "cp874",
    "iso-2022-jp": "iso2022_jp_ext", "windows-31j": "cp932", "big5": "big5hkscs", "x-mac-roman": "mac_roman",
}  # fmt: skip
_SEVEN_BIT = ("utf-7", "hz", "iso2022")  # ASCII bytes that mean something else
_SURROGATES = re.compile("[\ud800-\udfff]")

Fields = dict[str, str]


def split_header(raw: bytes) -> tuple[bytes, int]:
    """The header block of a mail (or of a part of one), and where its body starts.

    >>> split_header(b"Subject: x\\r\\n\\r\\nbody")
    (b'Subject: x', 14)
    """
    if raw[:1] == b"\n" or raw[:2] == b"\r\n":  # a part without any field
        return b"", 1 if raw[:1] == b"\n" else 2
    if not (end := _END.search(raw)):
        return raw, len(raw)
    return raw[: end.start()].removesuffix(b"\r"), end.end()


def fields(block: bytes) -> Fields:
    """The wanted fields of a header block by their lower-case name, unfolded, not decoded; the first one of each.

    >>> fields(b"Subject: a\\n b\\nX-Other: c")
    {'subject': 'a b'}
    """
    found: Fields = {}
    for line in _FOLD.sub(" ", text_of(block, "")).split("\n"):
        name, colon, value = line.partition(":")
        if colon and (key := name.rstrip(" \t").lower()) in _WANTED:
            found.setdefault(key, value.lstrip(" \t"))
    return found


def decode_words(value: str) -> str:
    """Encoded words as text; what is no valid encoded word stays as it is.

    >>> decode_words("=?utf-8?Q?Gr=C3=BC=C3=9Fe?= =?utf-8?b?YXVzIEvDtmxu?=")
    'Grüßeaus Köln'
    """
    if "=?" not in value:
        return value
    value = _BETWEEN.sub(r"\1", value)
    pieces, place, held, charset = [], 0, b"", ""

    def flush() -> None:
        nonlocal held
        if held:
            pieces.append(text_of(held, charset))
            held = b""

    for match in _WORD.finditer(value):
        if match.start() > place or match[1].lower() != charset:  # a character may be cut between two words
            flush()
            pieces.append(value[place : match.start()])
        charset, place = match[1].lower(), match.end()
        try:
            content = match[3].encode("ascii")
        except UnicodeEncodeError:
            flush()
            pieces.append(match[3])
            continue
        if match[2] in "bB":
            held += base64_bytes(content)
        else:
            held += binascii.a2b_qp(content.replace(b"_", b"=20"), header=False)
    flush()
    return "".join(pieces) + value[place:]


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """A field such as Content-Type: its value in lower case, and its parameters (RFC 2231 ones put together).

    >>> parameters('text/plain; charset="UTF-8"; format=flowed')
    ('text/plain', {'charset': 'UTF-8', 'format': 'flowed'})
    """
    head, _, _ = value.partition(";")
    found: dict[str, str] = {}
    pieces: dict[str, list[tuple[int, str, bool]]] = {}
    for name, quoted, plain in _PARAMETER.findall(value):
        text = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain.strip()
        base, star, rest = name.lower().partition("*")
        if not star:
            found.setdefault(base, text)
            continue
        number = rest.rstrip("*")
        order = int(number) if number.isascii() and number.isdigit() and len(number) < 5 else 0
        pieces.setdefault(base, []).append((order, text, rest.endswith("*") or rest == ""))
    for base, parts in pieces.items():
        parts.sort(key=lambda part: part[0])
        charset, data = "", b""
        for order, text, coded in parts:
            if coded and order == 0 and text.count("'") >= 2:
                charset, _, text = text.split("'", 2)
            data += unquote_to_bytes(text) if coded else text.encode("utf-8", "replace")
        found[base] = text_of(data, charset)
    return head.strip().lower(), found


def addresses(value: str) -> list[tuple[str, str]]:
    """``(name, address in lower case)`` of each mailbox in a field.

    >>> addresses('"Roe, Jane" <Jane@Example.org>, bob@example.org (Bob)')
    [('Roe, Jane', 'jane@example.org'), ('Bob', 'bob@example.org')]
    """
    if "<" not in value:
        return [(_name(name), address.lower()) for address, name in _BARE.findall(value)[:500]]
    found, place = [], 0
    for match in _ANGLE.finditer(value):
        found += [(_name(name), address.lower()) for address, name in _BARE.findall(value[place : match.start()])]
        place = match.end()
        name = re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2]
        found.append((_name(name), match[3].lower().removeprefix("mailto:")))
        if len(found) > 500:
            return found
    return found + [(_name(name), address.lower()) for address, name in _BARE.findall(value[place:])[:500]]


def seconds(date: str) -> float | None:
    """A date as seconds since 1970; None for what is no date, or one before mail or after 2100.

    >>> seconds("Thu, 22 Aug 2002 12:36:23 +0200")
    1030012583.0
    """
    try:
        parsed = email.utils.parsedate_tz(date)
        value = float(calendar.timegm((*parsed[:6], 0, 0, 0)) - (parsed[9] or 0)) if parsed else None
    except (ValueError, OverflowError, TypeError, IndexError, AttributeError):  # a library that trusts its input
        return None
    return value if value is not None and 0 < value < 4.1e9 else None


def base64_bytes(content: bytes) -> bytes:
    """Base64 as bytes, however it is broken: foreign characters left out, the end as far as it goes."""
    try:
        return binascii.a2b_base64(content)
    except binascii.Error:
        kept = re.sub(rb"[^A-Za-z0-9+/]", b"", content)
        kept = kept[: len(kept) - (len(kept) % 4 == 1)]
        return binascii.a2b_base64(kept + b"=" * (-len(kept) % 4))


def text_of(content: bytes, charset: str) -> str:
    """Bytes as text: as declared where that fits, else UTF-8, else Windows-1252; NUL bytes are left out.

    >>> text_of("Grüße".encode(), "iso-8859-1"), text_of("Grüße".encode("cp1252"), "utf-8")
    ('Grüße', 'Grüße')
    """
    codec = _codec(charset)
    if content.isascii() and not codec.startswith(_SEVEN_BIT) and not codec.startswith(("utf-16", "utf-32")):
        text = content.decode("ascii")
    else:
        text = _decoded(content, codec)
    return text.replace("\0", "") if "\0" in text else text


# ----------------------------------------------------------------------------------------------------------------


def _decoded(content: bytes, codec: str) -> str:
    wide = codec.startswith(("utf-16", "utf-32", "gb", "cp9", "big5", "euc", *_SEVEN_BIT))
    for candidate in (codec, "utf-8") if wide else ("utf-8", codec):  # bytes that are UTF-8 by chance hardly exist
        if not candidate:
            continue
        try:
            text = content.decode(candidate)
        except (UnicodeError, LookupError, ValueError):
            continue
        return _SURROGATES.sub("\ufffd", text)
    if codec == "utf-8" or wide:
        text = content.decode(codec, "replace")
        if text.count("\ufffd") <= 0.005 * len(text) + 1 and (wide or _has_utf8(content)):
            return _SURROGATES.sub("\ufffd", text)  # a character was cut; the rest is what was declared
    return content.decode("cp1252", "replace")


def _has_utf8(content: bytes) -> bool:
    return re.search(rb"[\xc3-\xf4][\x80-\xbf]+", content) is not None


@lru_cache(maxsize=1024)
def _codec(charset: str) -> str:
    """Python's name of a charset; empty where there is none that makes text."""
    name = charset.strip().strip("\"'").lower().partition("*")[0]
    try:
        codec = codecs.lookup(_CHARSETS.get(name, name))
    except (LookupError, ValueError):  # ValueError: a NUL in the name
        return ""
    if codec.name in _NOT_TEXT or not codec._is_text_encoding:
        return ""
    return "" if codec.name == "ascii" else codec.name


def _name(value: str) -> str:
    name = " ".join(decode_words(value).split()).strip(" '\",")
    return "" if "@" in name else name[:120]
