"""ChatterBot's corpus: YAML with ``categories`` and ``conversations``, each a list of turns.

https://github.com/gunthercox/chatterbot-corpus: the first turn is the user's, then they alternate. In the wild turns
are also numbers, words that YAML takes for truth values, mappings (a colon in a sentence) and lists inside lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ownchat.config import DataConfig
from ownchat.data.datasets.yaml_tree import Node, parse, read_yaml
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.messages import checked
from ownchat.data.reading import Reading, dropped, unreadable
from ownchat.data.records import Record, message

_BEGINNING = re.compile(
    r"^conversations:[ \t]*(?:#.*)?\r?\n(?:[ \t]*(?:#.*)?\r?\n)*[ \t]*-[ \t]*(?:-|\[|\r?\n)", re.MULTILINE
)
_ITEM = re.compile(r"^([ \t]*)-[ \t]+-[ \t]", re.MULTILINE)


def recognise_chatterbot(file: InputFile) -> float:
    """How surely a file is a corpus of ChatterBot."""
    if file.magic or "conversations:" not in file.sample:
        return 0.0
    return 0.9 if _BEGINNING.search(file.sample) else 0.0


def read_chatterbot(file: InputFile, data: DataConfig) -> Reading:
    """Each list of turns is a conversation. A damaged one costs itself only.

    Raises :class:`~ownchat.data.files.UnreadableFile` where no conversation can be read.
    """
    text = read_yaml(file)
    tags: list[str] = []
    found: list[Node | tuple[int, str]]
    try:
        tree = parse(text)
        if (categories := tree.get("categories")) is not None:
            tags = [item.said() for item in categories.items or [categories]]
        listed = tree.get("conversations")
        found = list(listed.items) if listed is not None else []
    except ValueError as error:
        found = list(_pieces(text))
        if not any(isinstance(one, Node) for one in found):
            fix = "correct the line, or remove it"
            raise UnreadableFile(f"this is not YAML: {error}", where=file.name, fix=fix) from error

    def records() -> Iterator[Record | Entry]:
        for one in found:
            if isinstance(one, tuple):
                yield unreadable(file.name, one[0], "invalid YAML", one[1])
            else:
                yield _conversation(one, tags, file.name)

    return Reading("chatterbot", "conversations: turns alternate, the user begins", records())


def _conversation(node: Node, tags: list[str], file: str) -> Record | Entry:
    turns = [item.said().strip() for item in node.items] if node.kind == "list" else [node.said().strip()]
    if not any(turns):
        return dropped(file, node.line, "empty")
    if not all(turns):
        return dropped(file, node.line, "no answer" if turns[0] else "no question")
    messages = [message("assistant" if number % 2 else "user", turn) for number, turn in enumerate(turns)]
    return checked(messages, None, "", file=file, format="chatterbot", line=node.line, tags=tags)


def _pieces(text: str) -> Iterator[Node | tuple[int, str]]:
    """The conversations of a damaged file one by one; a line and what is wrong where one is damaged."""
    starts = list(_ITEM.finditer(text))
    widths = [len(match[1]) for match in starts]
    starts = [match for match in starts if len(match[1]) == min(widths)]
    line, counted = 1, 0
    for match, end in zip(starts, [*(after.start() for after in starts[1:]), len(text)], strict=True):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        try:
            yield from parse(text[match.start() : end], line).items
        except ValueError as error:
            yield line, str(error)
