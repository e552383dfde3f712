"""YAML as a tree of texts with their lines: nothing is converted ("no" stays "no"), and no file can blow it up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from ownchat.data.files import InputFile, UnreadableFile

LARGEST = 32_000_000  # characters: a YAML file is held in memory
DEEPEST = 64  # the parser's own tree would crash the process somewhere beyond 50,000
MOST_ALIASES = 1_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Node:
    """A text, a list (``items``) or a mapping (``items`` under their ``keys``)."""

    line: int
    text: str = ""
    items: list[Node] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    kind: str = "text"  # text | list | mapping

    def get(self, key: str) -> Node | None:
        """The value under a key of a mapping."""
        return self.items[self.keys.index(key)] if self.kind == "mapping" and key in self.keys else None

    def said(self) -> str:
        """All texts of the node, one a line; a mapping is what a colon in a sentence has made of it."""
        if self.kind == "mapping":
            pairs = zip(self.keys, self.items, strict=True)
            return "\n".join(f"{key}: {item.said()}".strip() for key, item in pairs)
        return self.text if self.kind == "text" else "\n".join(item.said() for item in self.items)

    def pairs(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping; nothing for any other node."""
        yield from zip(self.keys, self.items, strict=self.kind == "mapping")


def read_yaml(file: InputFile) -> str:
    """The text of a file. Raises :class:`~ownchat.data.files.UnreadableFile` for one that is too large."""
    with file.open_text() as stream:
        text = stream.read(LARGEST + 1)
    if len(text) > LARGEST:
        what = f"more than {LARGEST:,} characters of YAML"
        raise UnreadableFile(what, where=file.name, fix="take it apart, or save it as JSON Lines")
    return text.replace("\x00", "")


def parse(text: str, first_line: int = 1) -> Node:
    """The first document of a text. Raises :class:`ValueError` for what is not YAML, with its line.

    >>> parse("conversations:\\n- - Is it?\\n  - yes\\n").get("conversations").items[0].items[1]
    Node(line=3, text='yes', items=[], keys=[], kind='text')
    """
    open_now: list[_Open] = []
    anchors: dict[str, Node] = {}
    root = Node(first_line)
    aliases = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            line = (event.start_mark.line if event.start_mark else 0) + first_line
            if isinstance(event, yaml.ScalarEvent):
                node = Node(line, event.value)
                _place(node, open_now)
                if event.anchor:
                    anchors[event.anchor] = node
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                if len(open_now) >= DEEPEST:
                    raise ValueError(f"line {line}: lists inside lists, more than {DEEPEST} deep")
                node = Node(line, kind="list" if isinstance(event, yaml.SequenceStartEvent) else "mapping")
                _place(node, open_now)
                open_now.append(_Open(node, event.anchor or ""))
            elif isinstance(event, yaml.AliasEvent):
                aliases += 1
                if aliases > MOST_ALIASES or event.anchor not in anchors:
                    raise ValueError(f"line {line}: an alias of aliases, or more than {MOST_ALIASES} of them")
                node = anchors[event.anchor]
                _place(node, open_now)
                for outer in open_now:
                    outer.has_alias = True
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                closed = open_now.pop()
                node = closed.node
                if closed.anchor and not closed.has_alias:  # aliases of aliases grow without end
                    anchors[closed.anchor] = node
            elif isinstance(event, yaml.DocumentEndEvent):
                break
            else:
                continue
            if not open_now:
                root = node
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + first_line}: " if mark is not None else ""
        raise ValueError(f"{place}{getattr(error, 'problem', None) or error}") from error
    return root


@dataclass
class _Open:
    """A list or mapping that is not closed yet."""

    node: Node
    anchor: str
    has_alias: bool = False
    key: str | None = None  # the key that waits for its value


def _place(node: Node, open_now: list[_Open]) -> None:
    if not open_now:
        return
    outer = open_now[-1]
    if outer.node.kind == "list":
        outer.node.items.append(node)
    elif outer.key is None:
        outer.key = node.said()
    else:
        outer.node.keys.append(outer.key)
        outer.node.items.append(node)
        outer.key = None
