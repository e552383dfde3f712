"""Objects of S3 and of storage that speaks like it: ``s3://bucket/prefix`` stands wherever a file or a folder can.

An object is named with the ETag that it had when it was listed, and every reading of it ends with a look at the ETag:
ranges of two versions put together would be a text that nobody wrote.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from ownchat.artifacts import require_free_space
from ownchat.data.storage import RemoteError, changed, client, no_bucket, told
from ownchat.errors import DataError, nearest

CHUNK = 4 << 20  # bytes of one request, where one stretch is read after the other ...
HOP = 1 << 18  # ... and at least so many after a jump
BEGINNING = 1 << 20  # bytes of an object that are kept for a while: all that finding out its format takes
ROOM_LEFT = 500_000_000  # bytes that stay free on the disk
_AT_ONCE = 16  # requests for ETags; most of their time is waiting

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//?)")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_SUPPORTED = "give a file or folder of this machine, or s3://bucket/prefix (also of other S3-compatible storage)"


@dataclass(frozen=True)
class RemoteFile:
    """An object as it was when it was looked at."""

    bucket: str
    key: str
    size: int  # bytes
    etag: str = ""  # empty: not asked for, it is not going to be read

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def path(self) -> str:
        """As pyarrow names it."""
        return f"{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        return self.key.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Remote:
    """``s3://bucket/key`` or ``s3://bucket/prefix``; what it holds is asked for once, when it is first needed."""

    bucket: str
    prefix: str  # without "/" at its end, which only says that it is not a key

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def name(self) -> str:
        return self.prefix.rpartition("/")[2] or self.bucket

    @cached_property
    def files(self) -> list[RemoteFile]:
        """Its objects in the order of their keys' parts, or the one object that it names.

        Raises :class:`RemoteError` where there is none, or the storage refuses.
        """
        found = look(self)
        if not found:
            raise _nothing_there(self)
        return _with_etags(found)

    def is_dir(self) -> bool:
        return not (len(self.files) == 1 and self.files[0].key == self.prefix)

    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and ETags: a stage that was made from these is made from the same text."""
        total = hashlib.sha256()
        for file in self.files:
            total.update(f"{file.key.removeprefix(self.prefix)}\0{file.size}\0{file.etag}\n".encode())
        return total.hexdigest()


Source = Path | Remote  # what a user can name
Location = Path | RemoteFile  # what can be opened


def locate(source: str | Path | Remote) -> Source:
    """What a user named: a path of this machine, or storage.

    >>> str(locate("s3://bucket/in/box/"))
    's3://bucket/in/box'
    >>> locate("gs://bucket/inbox")
    Traceback (most recent call last):
    ...
    ownchat.data.storage.RemoteError: gs://bucket/inbox: gs:// is not supported
    What to do: give a file or folder of this machine, or s3://bucket/prefix (also of other S3-compatible storage)
    """
    if isinstance(source, Remote):
        return source
    text = str(source)
    scheme = _SCHEME.match(text)  # a Path has made one slash of two
    if scheme is None or (scheme[1].lower() != "s3" and Path(text).exists()):
        return Path(text).expanduser()
    bucket, _, key = text[scheme.end() :].partition("/")
    if "@" in bucket or ":" in bucket:
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws; the server: AWS_ENDPOINT_URL"
        raise RemoteError("no credentials and no port in a URL", where=f"{scheme[1]}://***", fix=fix)
    if scheme[1].lower() != "s3":
        known = {"s3a": "write s3://", "s3n": "write s3://", "file": "write the path alone"}
        fix = known.get(scheme[1].lower()) or _SUPPORTED
        raise RemoteError(f"{scheme[1]}:// is not supported", where=f"{scheme[1]}://{bucket}/{key}", fix=fix)
    if not _BUCKET.fullmatch(bucket):
        raise RemoteError("this names no bucket", where=text, fix="write s3://bucket/prefix")
    return Remote(bucket, key.rstrip("/"))


def existing(source: str | Path | Remote) -> Source:
    """The same for what is to be read.

    Raises :class:`~ownchat.errors.DataError` or :class:`~ownchat.data.storage.RemoteError` where there is nothing.
    """
    place = locate(source)
    if isinstance(place, Remote):
        _ = place.files  # says itself what is wrong
    elif not place.exists():
        raise DataError("there is no such file or folder", where=str(place), fix="check the path")
    return place


def size_of(location: Location) -> int:
    """Bytes of a file or an object."""
    return location.stat().st_size if isinstance(location, Path) else location.size


def pack(location: Location) -> str | list[Any]:
    """A location as JSON can hold it; :func:`unpack` is the way back.

    >>> unpack(pack(Path("a/b"))), unpack(pack(RemoteFile("bucket", "a/b", 3, "tag")))
    (PosixPath('a/b'), RemoteFile(bucket='bucket', key='a/b', size=3, etag='tag'))
    """
    if isinstance(location, Path):
        return str(location)
    return [location.bucket, location.key, location.size, location.etag]


def unpack(packed: str | list[Any]) -> Location:
    """A location from :func:`pack`."""
    return Path(packed) if isinstance(packed, str) else RemoteFile(*packed)


# ------------------------------------------------------------------------------------------------------- reading


class RemoteStream(io.RawIOBase):
    """The bytes of an object, in ranges; seekable. ``on_bytes`` is told how many were taken."""

    def __init__(self, file: RemoteFile, on_bytes: Callable[[int], None] | None = None) -> None:
        self._file, self._on_bytes = file, on_bytes
        self._place = 0
        self._handle: Any = None
        self._held, self._start = b"", -1  # the last range and where it begins: a text's reader asks for 8 kB each time
        self._unchecked = False  # ranges came since the last look at the ETag

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise ValueError("a place before the beginning")
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._file.size - self._place)
        if count <= 0:
            return 0
        if self._place < BEGINNING:
            data = beginning(self._file)[self._place : self._place + count]
        else:
            data = self._stretch(count)
        buffer[: len(data)] = data
        self._place += len(data)
        if self._on_bytes is not None:
            self._on_bytes(len(data))
        if self._place == self._file.size:
            self._check()
        return len(data)

    def close(self) -> None:
        if not self.closed:
            handle, self._handle = self._handle, None
            super().close()
            if handle is not None:
                handle.close()
                self._check()

    def _stretch(self, count: int) -> bytes:
        """At least one byte and at most ``count`` from where we are."""
        end = self._start + len(self._held)
        if not self._start <= self._place < end:
            least = CHUNK if self._place in (end, BEGINNING) else HOP
            self._start, self._held = self._place, b""
            self._held = self._range(min(max(count, least), self._file.size - self._place))
        offset = self._place - self._start
        return self._held[offset : offset + count]

    def _range(self, count: int) -> bytes:
        if self._handle is None:
            self._handle = _open(self._file)
        unchecked, self._unchecked = self._unchecked, False  # after an error there is nothing to look at
        with told(str(self._file), self._file.bucket):
            data = self._handle.read_at(count, self._place)
        self._unchecked = unchecked or bool(data)
        if len(data) < count:
            raise changed(str(self._file))
        return cast(bytes, data)

    def _check(self) -> None:
        """pyarrow does not notice that a range came from another version, even one that is too short for it."""
        if self._unchecked:
            self._unchecked = False
            _open(self._file).close()


@lru_cache(maxsize=8)
def beginning(file: RemoteFile) -> bytes:
    """The first :data:`BEGINNING` bytes of an object, which several look at, one after the other."""
    if not file.size:
        return b""
    handle = _open(file)
    try:
        with told(str(file), file.bucket):
            data = bytes(handle.read_at(min(file.size, BEGINNING), 0))
    finally:
        handle.close()
    _open(file).close()  # as in _check
    return data


@contextmanager
def fetched(file: RemoteFile, room: Path) -> Iterator[Path]:
    """An object as a file in the folder ``room`` for a while, for what wants a path."""
    room.mkdir(parents=True, exist_ok=True)
    require_free_space(room, file.size + ROOM_LEFT)
    with tempfile.NamedTemporaryFile(dir=room, prefix="fetched-") as local:
        _copy(file, cast(BinaryIO, local))
        yield Path(local.name)


def fetch(file: RemoteFile, room: Path | None, on_bytes: Callable[[int], None] | None = None) -> BinaryIO:
    """An object as a file without a name, gone when it is closed; ``room``: where (none: the system's folder)."""
    require_free_space(room or Path(tempfile.gettempdir()), file.size + ROOM_LEFT)
    local = cast(BinaryIO, tempfile.TemporaryFile(dir=room))  # noqa: SIM115 (the caller closes it)
    try:
        _copy(file, local, on_bytes)
    except BaseException:
        local.close()
        raise
    return local


def _copy(file: RemoteFile, to: BinaryIO, on_bytes: Callable[[int], None] | None = None) -> None:
    with RemoteStream(file, on_bytes) as stream:
        while data := stream.read(CHUNK):
            to.write(data)
    to.flush()
    to.seek(0)


def _open(file: RemoteFile) -> Any:
    """pyarrow's file. Opening asks for the ETag, which must be the one we know."""
    with told(str(file), file.bucket):
        handle = client(file.bucket).open_input_file(file.path)
        etag = (handle.metadata() or {}).get("ETag", b"").decode()
    if (file.etag and etag != file.etag) or handle.size() != file.size:
        handle.close()
        raise changed(str(file))
    return handle


# ------------------------------------------------------------------------------------------------------- looking


def look(place: Remote) -> list[RemoteFile]:
    """The objects under a place without their ETags; none where there is nothing."""
    from pyarrow import fs

    if not is_readable(place.prefix):
        raise RemoteError("a part of this name is empty", where=str(place), fix="write single slashes")
    with told(str(place), place.bucket):
        storage = client(place.bucket)
        if place.prefix:
            info = storage.get_file_info(f"{place.bucket}/{place.prefix}")
            if info.type == fs.FileType.File:
                return [RemoteFile(place.bucket, place.prefix, info.size)]
            if info.type == fs.FileType.NotFound:
                return []
        folder = f"{place.bucket}/{place.prefix}".rstrip("/")
        infos = storage.get_file_info(fs.FileSelector(folder, recursive=True))
    keys = {info.path.partition("/")[2]: info.size for info in infos if info.type == fs.FileType.File}
    # as folders are walked: by the names of the parts
    return [RemoteFile(place.bucket, key, keys[key]) for key in sorted(keys, key=lambda key: key.split("/"))]


def is_readable(key: str) -> bool:
    """Whether the client can ask for an object: not when a part of its key is empty."""
    return "//" not in f"/{key}" or not key


def _with_etags(found: list[RemoteFile]) -> list[RemoteFile]:
    """A listing tells no ETags through this client: each object is asked."""

    def ask(file: RemoteFile) -> RemoteFile:
        if not is_readable(file.key):
            return file
        with told(str(file), file.bucket):
            handle = client(file.bucket).open_input_file(file.path)
            etag, size = (handle.metadata() or {}).get("ETag", b"").decode(), handle.size()
            handle.close()
        return replace(file, etag=etag, size=size)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            return list(threads.map(ask, found))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _nothing_there(place: Remote) -> RemoteError:
    from pyarrow import fs

    with told(str(place), place.bucket):
        storage = client(place.bucket)
        if storage.get_file_info(place.bucket).type == fs.FileType.NotFound:
            return no_bucket(str(place), place.bucket)
        folder, _, name = f"{place.bucket}/{place.prefix}".rpartition("/")
        around = storage.get_file_info(fs.FileSelector(folder, allow_not_found=True)) if folder else []
    if not place.prefix:
        return RemoteError("the bucket is empty", where=str(place), fix="put the files to learn from into it")
    hint = nearest(name, [info.base_name for info in around[:1000]])
    fix = hint or "check the bucket and the prefix: names count in full and in their letter case"
    return RemoteError("there is no such object, and none under this prefix", where=str(place), fix=fix)
