"""The steps that see one batch at a time: ``step(RecordBatch) -> (RecordBatch, entries of the ledger)``.

A record that a step leaves out of its batch has a "dropped" entry of unit ``row``. Work on text is done by pyarrow's
compute functions on whole columns; only what they single out reaches Python.

To add a step: one function and one line in :data:`STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ftfy.badness import is_bad

from ownchat.clean.batches import (
    Cleaned,
    as_mask,
    count_messages,
    drop_messages,
    drop_rows,
    flat_messages,
    has_kind,
    is_blank,
    replace_messages,
    rows_of,
    with_column,
    with_messages,
)
from ownchat.clean.boilerplate import Learned, cut_boilerplate
from ownchat.clean.language import filter_languages
from ownchat.clean.noise import drop_bot_noise, drop_cut_turns, drop_greetings, drop_system_lines
from ownchat.clean.private.step import redact_private
from ownchat.clean.quality import filter_length, filter_quality
from ownchat.clean.topic import Topic, filter_topic
from ownchat.clean.toxicity import flag_toxic
from ownchat.config import CleanConfig
from ownchat.data.ledger import Entry

Step = Callable[[pa.RecordBatch], Cleaned]

# Wherever ftfy's own test finds mojibake (tests compare the two), and in little else: a control character U+0080 to
# U+009F, one of the letters that UTF-8's first bytes turn into, or a sign or accented capital that touches another
# character beyond ASCII. Pairs of Cyrillic, Greek, Chinese or small accented letters are not suspicious.
_SIGN = r"\x{80}-\x{de}\x{f7}\x{100}-\x{36f}\x{2000}-\x{2bff}\x{f000}-\x{fb06}\x{fffd}"
_SUSPICIOUS = rf"[\x{{80}}-\x{{9f}}ÂÃŒœ]|[{_SIGN}][^\x00-\x7f]|[^\x00-\x7f][{_SIGN}]|вЂ|ГўВЂВ|[ØÙ][\x00-\x7f]?[ØÙ]"


def repair_encoding(batch: pa.RecordBatch) -> Cleaned:
    """Mend text that was decoded with the wrong encoding: ``cafÃ©`` becomes ``café``. Nothing else is normalised.

    Line by line, so that one line that cannot be mended does not hinder the others (ftfy, R. Speer, 2019).
    """
    changed: dict[int, int] = {}  # row -> messages (or documents) mended
    messages = flat_messages(batch)
    contents, mended = _repair(messages.field("content"))
    if len(mended):
        for row in rows_of(batch)[mended].tolist():
            changed[row] = changed.get(row, 0) + 1
        batch = with_messages(batch, replace_messages(messages, content=contents))
    texts, mended = _repair(batch.column("text"))
    if len(mended):
        changed |= dict.fromkeys(mended.tolist(), 1)
        batch = with_column(batch, "text", texts)
    ids = batch.column("id")
    entries = [
        Entry("row", ids[row].as_py(), "changed", "encoding repaired", detail=f"{count} text{'s' if count > 1 else ''}")
        for row, count in sorted(changed.items())
    ]
    return batch, entries


def drop_empty(batch: pa.RecordBatch) -> Cleaned:
    """Take out messages without text (but not tool calls and tools' results), and records without anything to learn.

    A conversation needs a message of the assistant, a document needs text.
    """
    messages = flat_messages(batch)
    empty = is_blank(messages.field("content")) & is_blank(messages.field("tool_calls"))
    empty &= as_mask(pc.not_equal(messages.field("role"), "tool"))
    batch, entries = drop_messages(batch, empty, "empty message")
    count, rows = count_messages(batch), rows_of(batch)
    from_assistant = as_mask(pc.equal(flat_messages(batch).field("role"), "assistant"))
    replies = np.bincount(rows[from_assistant], minlength=len(batch))
    is_conversation = has_kind(batch, "conversation")
    nothing = (has_kind(batch, "document") & is_blank(batch.column("text"))) | (is_conversation & (count == 0))
    rules = dict.fromkeys(np.flatnonzero(nothing).tolist(), "empty")
    rules |= dict.fromkeys(np.flatnonzero(is_conversation & (replies == 0) & ~nothing).tolist(), "no assistant turn")
    batch, dropped = drop_rows(batch, rules)
    return batch, entries + dropped


# In order: text is mended first; what empties messages comes before what drops empty ones; what judges a record comes
# when its text is final.
STEPS: tuple[tuple[Callable[..., Cleaned], Callable[[CleanConfig], bool]], ...] = (
    (repair_encoding, lambda config: config.repair_encoding),
    (drop_system_lines, lambda config: config.system_lines),
    (drop_bot_noise, lambda config: config.bot_noise),
    (cut_boilerplate, lambda config: config.boilerplate),
    (drop_cut_turns, lambda config: config.cut_turns),
    (drop_empty, lambda config: True),
    (drop_greetings, lambda config: config.greetings),
    (filter_languages, lambda config: config.detect_language or bool(config.languages)),
    (filter_length, lambda config: config.min_words > 0 or config.max_words is not None),
    (filter_quality, lambda config: bool(config.quality_rules)),
    (filter_topic, lambda config: config.off_topic != "off"),
    (flag_toxic, lambda config: config.toxicity != "off"),
    (redact_private, lambda config: bool(config.private_types or config.private_deny)),
)

# The key that switches a step on or off, and the settings that it takes.
SWITCHES: dict[Callable[..., Cleaned], str] = {
    repair_encoding: "repair_encoding",
    drop_system_lines: "system_lines",
    drop_bot_noise: "bot_noise",
    cut_boilerplate: "boilerplate",
    drop_cut_turns: "cut_turns",
    drop_greetings: "greetings",
    filter_languages: "languages",
    filter_length: "min_words",
    filter_quality: "quality_rules",
    filter_topic: "off_topic",
    flag_toxic: "toxicity",
    redact_private: "private_types",
}
_SETTINGS: dict[Callable[..., Cleaned], Callable[[CleanConfig, Learned, Topic | None], dict[str, Any]]] = {
    cut_boilerplate: lambda config, learned, topic: {"learned": learned, "share": config.boilerplate_share},
    drop_cut_turns: lambda config, learned, topic: {"limits": learned.limits()},
    filter_languages: lambda config, learned, topic: {"languages": config.languages},
    filter_length: lambda config, learned, topic: {"min_words": config.min_words, "max_words": config.max_words},
    filter_quality: lambda config, learned, topic: {
        "families": config.quality_rules,
        "scope": config.quality_scope,
        "sizes": learned.records,
        "least": config.quality_documents,
    },
    filter_topic: lambda config, learned, topic: {
        "topic": topic,
        "most": config.topic_distance,
        "drop": config.off_topic == "drop",
    },
    flag_toxic: lambda config, learned, topic: {"drop": config.toxicity == "drop"},
    redact_private: lambda config, learned, topic: {
        "types": config.private_types,
        "allow": config.private_allow,
        "deny": config.private_deny,
        "threshold": config.private_threshold,
        "surrogates": config.private_surrogates,
    },
}


def needs_learning(config: CleanConfig) -> bool:
    """Whether a pass over the data must come first (:class:`~ownchat.clean.boilerplate.Learned`)."""
    return config.boilerplate or config.cut_turns or bool(config.quality_rules)


def steps_for(
    config: CleanConfig, learned: Learned | None = None, topic: Topic | None = None
) -> list[tuple[str, Step]]:
    """The steps that are switched on, each with its name and ready to be called with a batch.

    ``learned`` and ``topic``: what was found out about all records before.
    """
    learned = learned or Learned()
    return [
        (step.__name__, partial(step, **_SETTINGS[step](config, learned, topic)) if step in _SETTINGS else step)
        for step, is_on in STEPS
        if is_on(config)
    ]


def run_steps(
    batch: pa.RecordBatch, steps: Sequence[tuple[str, Step]]
) -> Iterator[tuple[str, pa.RecordBatch, pa.RecordBatch, list[Entry]]]:
    """Run ``steps`` (of :func:`steps_for`) one after the other: name, batch before, batch after, entries.

    A dropped message is named by its record and its number there (``id#3``). A step counts in what the steps before
    left over; here the numbers become those of the batch that came in, so that no two messages share one.
    """
    gone: dict[str, list[int]] = {}
    for name, step in steps:
        after, entries = step(batch)
        numbered = [_renumbered(entry, gone) for entry in entries]
        for entry in numbered:
            if entry.unit == "message" and "#" in entry.id:
                id, _, place = entry.id.rpartition("#")
                gone.setdefault(id, []).append(int(place))
        yield name, batch, after, numbered
        batch = after


# ---------------------------------------------------------------------------------------------------------------------


def _renumbered(entry: Entry, gone: dict[str, list[int]]) -> Entry:
    id, separator, number = entry.id.rpartition("#")
    if entry.unit != "message" or not separator or id not in gone:
        return entry
    place = int(number)
    for earlier in sorted(gone[id]):
        place += earlier <= place
    return replace(entry, id=f"{id}#{place}")


def _repair(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """A column with its mojibake mended, and the indices of what changed."""
    suspects = pc.fill_null(pc.match_substring_regex(texts, _SUSPICIOUS), False)
    indices = np.flatnonzero(suspects.to_numpy(zero_copy_only=False))
    fixed: dict[int, str] = {}
    for index in indices.tolist():
        before = texts[index].as_py()
        after = "\n".join(ftfy.fix_encoding(line) if is_bad(line) else line for line in before.split("\n"))
        if after != before:
            fixed[index] = after
    if not fixed:
        return texts, np.empty(0, np.int64)
    changed = np.fromiter(fixed, np.int64, len(fixed))
    mask = np.zeros(len(texts), bool)
    mask[changed] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(list(fixed.values()), pa.string())), changed
