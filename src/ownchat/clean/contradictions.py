"""Equal or nearly equal questions whose answers contradict each other: two prices, a yes and a no, two links.

A model that learns both learns to guess. What is looked at is the first question of a conversation and the reply to it;
later ones hang on what was said before. Questions are equal when their words are, fillers ("please", "can you tell
me") aside; nearly, when one word differs by a typing mistake or an inflection. What two such answers say is compared by
:func:`disagreement`, which would rather miss a contradiction than name one that is none. Questions about one person's
case, about today, and requests to write or choose something have many right answers and are left alone, and so is
small talk. Fillers, negations and opposites are English; numbers, links and labels are of any language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.answers import disagreement, has_one_answer, one_slip
from ownchat.clean.batches import as_mask, count_messages, flat_messages, is_blank
from ownchat.clean.shingles import fold, part, pieces, text_keys, word_hashes
from ownchat.clean.words import mix

TAG, RULE, LOST_RULE = "contradiction", "contradiction", "contradicted"
MOST_WORDS = 16  # of a question besides fillers; longer ones are stories, not questions that come twice
LEAST_SLIP_WORDS = 3  # of a question in which one word may differ
MOST_OF_QUESTION = 30  # different answers to one question that are compared with each other
MOST_HELD = 100_000  # records whose question and answer are held at a time
LABEL_COUNT = 5  # records with the same short answer before it counts as a label
_CHARS = 2_000  # of a question and of an answer that are compared
_PLACE = np.uint64(0x9E3779B97F4A7C15)

_FILLERS = (
    "a an the of to for it its that this there so ok okay please pls hi hello hey dear thanks thank kindly just also "
    "really actually maybe i you we me us my your our do does did is are am be can could would will shall may might "
    "like want need know tell s m ve d ll re"
)

_POLITE = "please pls kindly hi hello hey thanks thank ok okay"


@dataclass(frozen=True)
class Contradiction:
    """Two records whose answers say different things to the same question; indices are those of the search."""

    first: int
    second: int
    detail: str  # what they disagree on: "days: 3 / 5"
    question: str
    answers: tuple[str, str]
    older: int | None  # the record that was said earlier, where both tell when


@dataclass(frozen=True)
class Found:
    """The contradictions in order of their records, and how many records were too many to be compared."""

    pairs: list[Contradiction]
    left_out: int


@dataclass(frozen=True)
class _Exchange:
    question: str
    answer: str


def find_contradictions(
    batches: Callable[[], Iterator[pa.RecordBatch]], kept: np.ndarray, copy_of: np.ndarray | None = None
) -> Found:
    """Look for contradictions among the records ``kept`` (ascending indices) of ``batches``, which is read twice.

    ``copy_of``: for every record the one that stands for it; what copies say was said when the last of them said it. In
    memory are 24 bytes for each word of a short question (16 words at most), and the texts of those that share one.
    """
    questions, answers, times = _keys(batches(), kept)
    if copy_of is not None:
        np.maximum.at(times, copy_of, times.copy())
    keys, owners = questions
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    borders = np.flatnonzero(np.diff(keys, prepend=~keys[:1], append=~keys[-1:])) if len(keys) else np.empty(0, int)
    groups: list[list[int]] = []
    wanted: set[int] = set()
    left_out = 0
    for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        if end - start < 2:
            continue
        members = owners[start:end]
        said = answers[members]
        if (said == said[0]).all():
            continue
        latest = np.lexsort((members, -times[members]))  # of those that say the same, the last one speaks
        distinct = np.sort(members[latest[np.unique(said[latest], return_index=True)[1]]])
        chosen = distinct[:MOST_OF_QUESTION].tolist()
        if len(wanted) >= MOST_HELD:
            left_out += len(chosen)
            continue
        left_out += len(distinct) - len(chosen)
        groups.append(chosen)
        wanted.update(chosen)
    exchanges = _exchanges(batches(), np.array(sorted(wanted), np.int64))
    filled, counts = np.unique(answers[answers != 0], return_counts=True)
    labels = set(filled[counts >= LABEL_COUNT].tolist())
    found: dict[tuple[int, int], Contradiction] = {}
    for chosen in groups:
        for place, one in enumerate(chosen):
            for other in chosen[:place]:
                if (other, one) not in found:
                    both_labels = int(answers[one]) in labels and int(answers[other]) in labels
                    contradiction = _compare(other, one, exchanges[other], exchanges[one], both_labels, times)
                    if contradiction is not None:
                        found[other, one] = contradiction
    return Found([found[pair] for pair in sorted(found)], left_out)


def settle(found: Found, ids: np.ndarray, *, drop: bool) -> tuple[dict[int, tuple[str, str, str]], dict[int, str]]:
    """What becomes of the records: those that are lost (rule, id of the newer one, detail), those that get the tag.

    Dropped is the older of two where both tell when they were said; of the others nobody knows which one is right.
    """
    lost: dict[int, tuple[str, str, str]] = {}
    if drop:
        for pair in found.pairs:
            if pair.older is not None:
                newer = pair.second if pair.older == pair.first else pair.first
                lost.setdefault(pair.older, (LOST_RULE, ids[newer].decode(), f"older; {pair.detail}"))
    tagged: dict[int, str] = {}
    for pair in found.pairs:
        if pair.first not in lost and pair.second not in lost:
            for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
                tagged.setdefault(one, f"{pair.detail}; the other is {ids[other].decode()}")
    return lost, tagged


# ---------------------------------------------------------------------------------------------------------------------


def _compare(
    one: int, other: int, first: _Exchange, second: _Exchange, both_labels: bool, times: np.ndarray
) -> Contradiction | None:
    # Which of many labels fits may hang on a small word ("call me Tom"): there only what is polite can differ.
    fillers = _POLITE if both_labels else _FILLERS
    if not one_slip(first.question, second.question, set(fillers.split())):
        return None
    if not both_labels and not (has_one_answer(first.question) and has_one_answer(second.question)):
        return None
    detail = disagreement(first.answer, second.answer, labels=both_labels)
    if detail is None:
        return None
    older = None
    if min(times[one], times[other]) > -np.inf and times[one] != times[other]:
        older = one if times[one] < times[other] else other
    return Contradiction(one, other, detail, first.question, (first.answer, second.answer), older)


def _seconds(text: str | None) -> float:
    """Seconds since 1970; minus infinity when no time is told."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        moment = None
    if moment is None:
        return -np.inf
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _first_exchanges(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose talk opens with a user's message and a reply, and where the user's stands in the flat messages."""
    messages, counts = flat_messages(batch), count_messages(batch)
    role = messages.field("role")
    system, user = as_mask(pc.equal(role, "system")), as_mask(pc.equal(role, "user"))
    replied = as_mask(pc.equal(role, "assistant")) & ~is_blank(messages.field("content"))
    ends = np.cumsum(counts)
    places = ends - counts
    for _ in range(2):  # a system prompt, and what was prepared for the conversation
        inside = places < ends
        places[inside] += system[places[inside]]
    rows = np.flatnonzero(places + 1 < ends)
    rows = rows[user[places[rows]] & replied[places[rows] + 1]]
    return rows, places[rows]


def _keys(
    batches: Iterator[pa.RecordBatch], kept: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Keys of short questions with the record of each (several for a record); of every record the key of its answer,
    and when it was given, in seconds.
    """
    fillers = np.unique(word_hashes(fold(pa.array([_FILLERS])))[0])
    keys, owners, answers = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    told = [np.empty(0)]
    start = 0
    for batch in batches:
        rows, places = _first_exchanges(batch)
        told.append(np.full(len(batch), -np.inf))
        times = flat_messages(batch).field("time")
        if times.null_count < len(times):
            of_reply, of_question = (times.take(pa.array(places + after)) for after in (1, 0))
            told[-1][rows] = [_seconds(time) for time in pc.coalesce(of_reply, of_question).to_pylist()]
        rows, places = (one[np.isin(rows + start, kept)] for one in (rows, places))
        contents = flat_messages(batch).field("content")
        asked = fold(pc.utf8_slice_codeunits(contents.take(pa.array(places)), 0, _CHARS))
        replies = np.zeros(len(batch), np.uint64)
        replies[rows] = text_keys(fold(pc.utf8_slice_codeunits(contents.take(pa.array(places + 1)), 0, _CHARS)))
        for first, last in pieces(asked):
            found, owned = _question_keys(*word_hashes(part(asked, first, last)), fillers)
            keys.append(found)
            owners.append(rows[first:last][owned] + start)
        answers.append(replies)
        start += len(batch)
    return (np.concatenate(keys), np.concatenate(owners)), np.concatenate(answers), np.concatenate(told)


def _question_keys(hashes: np.ndarray, starts: np.ndarray, fillers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each question a key of its telling words in order, and one for each way to leave out one of them."""
    telling = ~np.isin(hashes, fillers)
    before = np.concatenate([[0], np.cumsum(telling)])
    counts = before[starts[1:]] - before[starts[:-1]]
    short = (counts > 0) & (counts <= MOST_WORDS)
    rows = np.repeat(np.arange(len(counts)), np.diff(starts))
    chosen = telling & short[rows]
    row, place = rows[chosen], (before[:-1] - before[starts[:-1]][rows])[chosen]
    words = hashes[chosen]

    ends = np.searchsorted(row, np.arange(len(counts) + 1))

    def sums(values: np.ndarray) -> np.ndarray:
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
        return total[ends[1:]] - total[ends[:-1]]

    some = np.flatnonzero(short)
    keys, owners = [mix(sums(mix(words + place.astype(np.uint64) * _PLACE)))[some]], [some]
    many = short & (counts >= LEAST_SLIP_WORDS)
    for gone in range(MOST_WORDS):
        has = np.flatnonzero(many & (counts > gone))
        if not len(has):
            break
        values = mix(words + (place - (place > gone)).astype(np.uint64) * _PLACE)
        values[place == gone] = 0
        keys.append(mix(sums(values) ^ np.uint64((gone + 1) << 32))[has])
        owners.append(has)
    return np.concatenate(keys), np.concatenate(owners)


def _exchanges(batches: Iterator[pa.RecordBatch], wanted: np.ndarray) -> dict[int, _Exchange]:
    found: dict[int, _Exchange] = {}
    start = 0
    for batch in batches:
        rows, places = _first_exchanges(batch)
        chosen = np.isin(rows + start, wanted)
        messages = flat_messages(batch)
        for row, place in zip(rows[chosen].tolist(), places[chosen].tolist(), strict=True):
            asked, reply = messages[place].as_py(), messages[place + 1].as_py()
            found[row + start] = _Exchange((asked["content"] or "")[:_CHARS], (reply["content"] or "")[:_CHARS])
        start += len(batch)
    return found
