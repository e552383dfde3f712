from __future__ import annotations

import numpy as np
import pytest

from ownchat.data.records import Record, message, record
from ownchat.evaluate.answers import Answer
from ownchat.evaluate.extremes import extremes
from ownchat.evaluate.slices import frequent, slices, thirds


def item(at: int, file: str = "faq.csv", tags: list[str] | None = None) -> Record:
    turns = [message("user", f"question {at}"), message("assistant", f"answer {at}")]
    return record(
        "conversation", file=file, format="csv", line=at, messages=turns, tags=tags or [], group=f"g{at // 2}"
    )


def made(items: list[Record], base: list[float], tuned: list[float], tokens: list[float]):
    groups = [row["group"] for row in items]
    return slices(items, np.array(base), np.array(tuned), np.array(tokens), groups, draws=200)


def test_slices_by_source_topic_and_length_add_up_to_the_whole():
    items = [item(at, file=f"{'ab'[at % 2]}.csv", tags=["synthetic", "refunds"] if at < 4 else []) for at in range(12)]
    tokens = [float(at + 1) for at in range(12)]
    base, tuned = [2 * count for count in tokens], [(1 if at % 2 else 3) * count for at, count in enumerate(tokens)]
    found = made(items, base, tuned, tokens)
    by = {kind: [part for part in found if part.by == kind] for kind in ("source", "topic", "length")}
    assert [part.name for part in by["source"]] == ["a.csv", "b.csv"]
    assert [part.name for part in by["topic"]] == ["no topic", "refunds"]
    assert [part.name for part in by["length"]] == ["up to 4 tokens", "5 to 8 tokens", "9 tokens and more"]
    for parts in by.values():
        assert sum(part.records for part in parts) == 12
    first, second = by["source"]
    assert first.base.value == second.base.value == pytest.approx(2)
    assert (first.tuned.value, second.tuned.value) == pytest.approx((3, 1))
    assert (first.improvement.value, second.improvement.value) == pytest.approx((-50, 50))
    assert first.improvement.below(0) and second.improvement.above(0)


def test_one_source_no_tags_and_one_length_are_no_slices():
    assert made([item(at) for at in range(5)], [1.0] * 5, [1.0] * 5, [3.0] * 5) == []


def test_a_slice_of_one_group_says_so():
    items = [item(0), item(1), *(item(at, file="other.csv") for at in range(2, 9))]
    part = next(part for part in made(items, [2.0] * 9, [1.0] * 9, [1.0] * 9) if part.name == "faq.csv")
    assert (part.records, part.groups) == (2, 1)
    assert part.improvement.low == part.improvement.high == 50


def test_rare_names_go_together():
    names = frequent([f"file-{at % 12}" for at in range(60)] + ["file-0"])
    assert names.count("file-0") == 6 and names.count("other") == 20
    assert len(set(names)) == 9


def test_thirds_are_even_where_lengths_differ():
    names = thirds(np.arange(1.0, 301.0))
    assert [names.count(name) for name in dict.fromkeys(names)] == [100, 100, 100]


def answers(count: int) -> tuple[list[Answer], dict[str, tuple[float, float]]]:
    made = [
        Answer(f"{at:02d}", "question", "yes of course", "no", "yes of course" if at % 2 else "") for at in range(count)
    ]
    return made, {f"{at:02d}": (2.0, 2.0 + (at * 7 % count - count // 2)) for at in range(count)}


def test_extremes_are_the_ten_that_changed_most_each_way():
    found = extremes(*answers(32))
    assert len(found.best) == len(found.worst) == 10
    best, worst = ([one.tuned_loss - one.base_loss for one in side] for side in (found.best, found.worst))
    assert best == sorted(best) == [float(change) for change in range(-16, -6)]
    assert worst == sorted(worst, reverse=True) == [float(change) for change in range(15, 5, -1)]
    assert next(one for one in found.best if one.tuned).chrf_change > 90


@pytest.mark.parametrize("count", [0, 1, 2, 5, 19])
def test_extremes_of_few_share_no_question(count):
    found = extremes(*answers(count))
    ids = [one.id for one in (*found.best, *found.worst)]
    assert len(ids) == len(set(ids)) == count
