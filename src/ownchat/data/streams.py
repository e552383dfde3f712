"""The bytes of a file or of an object, decompressed: streams that hold no more than a buffer of it in memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from ownchat.data.encodings import CHUNK
from ownchat.data.remote import Location, RemoteFile, RemoteStream


class _Counted(io.FileIO):
    """A raw file that tells how many bytes were taken from it: compressed ones, as the folder shows them."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._on_bytes = on_bytes

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self._on_bytes(count or 0)
        return count or 0


class WithoutNuls(io.RawIOBase):
    """A stream in which bytes of zero are spaces: damage, which no text format holds."""

    def __init__(self, below: BinaryIO) -> None:
        self._below = below

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._below.read(len(buffer))
        buffer[: len(data)] = data.replace(b"\0", b" ")
        return len(data)

    def close(self) -> None:
        self._below.close()
        super().close()


class Beginning(io.RawIOBase):
    """The first bytes of a stream, up to the last whole line of them."""

    def __init__(self, below: BinaryIO, most: int) -> None:
        self._below, self._left = below, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._below.read(min(len(buffer), self._left))
        self._left -= len(data)
        if data and not self._left and self._below.read(1):
            data = data[: data.rfind(b"\n") + 1]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._below.close()
        super().close()


class _Unzipped(gzip.GzipFile):
    """A gzip stream that closes the file below it."""

    def __init__(self, below: BinaryIO) -> None:
        self._below = below
        super().__init__(fileobj=below, mode="rb")

    def close(self) -> None:
        super().close()
        self._below.close()


def open_compressed(
    location: Location, compression: str = "", on_bytes: Callable[[int], None] | None = None
) -> BinaryIO:
    """The decompressed bytes of a file or an object; ``on_bytes`` is told how many compressed ones were taken."""
    buffered: io.BufferedReader[Any]
    if isinstance(location, RemoteFile):
        buffered = io.BufferedReader(RemoteStream(location, on_bytes), CHUNK)
    else:
        buffered = io.BufferedReader(_Counted(location, on_bytes) if on_bytes else io.FileIO(location, "rb"), CHUNK)
    if compression == "gzip":
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, _Unzipped(buffered)), CHUNK))
    if compression == "bzip2":
        return cast(BinaryIO, bz2.BZ2File(buffered))
    if compression == "xz":
        return cast(BinaryIO, lzma.LZMAFile(buffered))
    return buffered
