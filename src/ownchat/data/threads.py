"""Channels in which many people talk at once, taken apart into conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ownchat.data.ledger import Entry
from ownchat.data.talk import Turn


def take_apart(items: Iterable[Turn | Entry], pause: float) -> Iterator[list[Turn] | Entry]:
    """Conversations of a channel."""
    held: list[Turn] = []
    for item in items:
        if isinstance(item, Entry):
            yield item
        else:
            if held and item.time is not None and held[-1].time is not None and item.time - held[-1].time > pause:
                yield held
                held = []
            held.append(item)
    if held:
        yield held
