"""Zip packages of XML (Word, PowerPoint, Excel, OpenDocument, EPUB): parts are read with a limit on their size."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import unquote

from lxml import etree

from ownchat.data.files import InputFile, UnreadableFile

LARGEST_PART = 500_000_000  # bytes unpacked
LARGEST_RATIO = 300  # unpacked to packed: prose reaches 5, the most repetitive sheets 100
_SMALL = 2_000_000  # bytes: below it any ratio is harmless

DAMAGED = (zipfile.BadZipFile, zlib.error, etree.LxmlError, KeyError, EOFError, OSError, ValueError, RuntimeError,
           NotImplementedError, SyntaxError)  # fmt: skip


class Package:
    """A zip file whose members are read with :meth:`open` and :meth:`tree`."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive, self._name = archive, name
        self.parts = frozenset(archive.namelist())

    @contextmanager
    def open(self, part: str) -> Iterator[IO[bytes]]:
        """The bytes of a part. Raises :class:`~ownchat.data.files.UnreadableFile` where they would be too many."""
        info = self._archive.getinfo(part)
        if info.flag_bits & 1:
            raise UnreadableFile("the file is locked with a password", where=self._name, fix="save it without one")
        bomb = info.file_size > _SMALL and info.file_size > LARGEST_RATIO * max(info.compress_size, 1)
        if info.file_size > LARGEST_PART or bomb:
            raise UnreadableFile(
                f"{part} inside it unpacks to {info.file_size / 1e6:,.0f} MB from {info.compress_size / 1e6:,.1f} MB",
                where=self._name, fix="save its text as several smaller files",
            )  # fmt: skip
        with self._archive.open(info) as stream:  # zipfile gives no more bytes than file_size, and checks them
            yield stream

    def tree(self, part: str) -> Any:
        """The root element of a part, or None where there is no such part."""
        if part not in self.parts:
            return None
        with self.open(part) as stream:
            return etree.parse(stream, _parser()).getroot()

    def elements(self, part: str, *tags: str) -> Iterator[Any]:
        """The outermost elements with one of ``tags``, one at a time; what was seen is let go."""
        with self.open(part) as stream:
            depth = 0
            events = etree.iterparse(
                stream, events=("start", "end"), tag=tags, resolve_entities=False, no_network=True,
                load_dtd=False, huge_tree=False,
            )  # fmt: skip
            for event, element in events:
                if event == "start":
                    depth += 1
                    continue
                depth -= 1
                if depth:
                    continue
                yield element
                element.clear(keep_tail=False)
                while element.getprevious() is not None:
                    del element.getparent()[0]

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """``{id: (last word of the type, part)}`` of what a part of an Office file refers to."""
        folder, _, name = part.rpartition("/")
        root = self.tree(f"{folder}/_rels/{name}.rels" if folder else f"_rels/{name}.rels")
        found: dict[str, tuple[str, str]] = {}
        for element in root if root is not None else ():
            target = element.get("Target", "")
            if element.get("TargetMode") != "External":
                kind = element.get("Type", "").rpartition("/")[2]
                found[element.get("Id", "")] = (kind, resolve(folder, target))
        return found


@contextmanager
def opened(file: InputFile, what: str) -> Iterator[Package]:
    """The package of a file; whatever is wrong with it becomes one clear error.

    Raises :class:`~ownchat.data.files.UnreadableFile`.
    """
    try:
        with file.open_binary() as stream, zipfile.ZipFile(stream) as archive:
            yield Package(archive, file.name)
    except UnreadableFile:
        raise
    except DAMAGED as error:
        raise UnreadableFile(
            f"the {what} is damaged: {str(error)[:120] or type(error).__name__}", where=file.name,
            fix=f"open it in a program that reads {what}s and save it anew",
        ) from error  # fmt: skip


def resolve(folder: str, target: str) -> str:
    """A relative reference inside a package as the name of a member.

    >>> resolve("ppt/slides", "../notes/note1.xml")
    'ppt/notes/note1.xml'
    """
    target = unquote(target.partition("#")[0])
    return posixpath.normpath(target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target))


def local(element: Any) -> str:
    """The name of an element without its namespace; empty for comments and processing instructions."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _parser() -> Any:
    return etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
