"""Scores of written answers against the answers that were really given: chrF, ROUGE-L, exact match, accuracy.

All of them go from 0 to 100, higher is better. An answer that is missing is the empty text and scores 0.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ownchat.evaluate.scores import Array, Interval, bootstrap, chrf, chrf_statistics, percentage, proportion
from ownchat.generate.retrieve import words

Metric = Literal["chrf", "rouge_l", "exact", "accuracy"]

LABEL_CHARACTERS = 64  # longest reply that may be a label
FEWEST_REPLIES = 10  # below this nothing tells labels from short answers
RUN, LONG_ANSWER = 4, 20  # words: of what is said again, and of an answer in which it counts
SHARE = 0.9  # of the replies that are labels, and that somebody else gave as well


def metric_for(references: Sequence[str]) -> Metric:
    """``accuracy`` where the replies are labels, else ``chrf``.

    Labels: of ten replies or more, nine in ten are one line of at most 64 characters that ends in no full stop, and
    stand there twice or more; there are two different ones at least. ``references`` is best every reply of a whole
    split, of all turns: 32 draws from 77 classes hardly repeat, and conversations that end alike ("Bye!") are no
    classification.

    >>> metric_for(["card lost", "card late"] * 6), metric_for(["Your card is on its way."] * 12)
    ('accuracy', 'chrf')
    """
    counts = Counter(map(label_key, references))
    labels = [text for text in references if _may_be_label(text) and counts[label_key(text)] > 1]
    enough = len(references) >= FEWEST_REPLIES and len(labels) >= SHARE * len(references)
    return "accuracy" if enough and len(set(map(label_key, labels))) > 1 else "chrf"


def score(
    metric: Metric,
    answers: Sequence[str],
    references: Sequence[str],
    groups: Sequence[str | None],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """The score and its 95 % interval: bootstrap by group; of shares (exact, accuracy) Wilson's, which has a width also
    where every answer is right or wrong. None for no answers. Raises ValueError where the lengths differ."""
    sums = statistics(metric, answers, references)
    if metric in ("exact", "accuracy"):
        return percent(proportion(sums[:, 0], groups))
    return bootstrap(sums, STATISTICS[metric], groups, draws=draws, seed=seed)


def difference(
    metric: Metric,
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[str],
    groups: Sequence[str | None],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """``second`` - ``first`` on the same questions: one bootstrap draws both, so what is hard for both cancels.

    >>> found = difference("exact", ["no", "no"], ["yes", "no"], ["yes", "yes"], ["a", "b"])
    >>> found.value, found.low, found.high
    (50.0, 0.0, 100.0)
    """
    before, after = (statistics(metric, answers, references) for answers in (first, second))
    statistic, columns = STATISTICS[metric], before.shape[1]
    return bootstrap(
        np.concatenate([before, after], axis=1),
        lambda total: statistic(total[..., columns:]) - statistic(total[..., :columns]),
        groups,
        draws=draws,
        seed=seed,
    )


def statistics(metric: Metric, answers: Sequence[str], references: Sequence[str]) -> Array:
    """What a score adds up, (answers, columns); :data:`STATISTICS` makes the score of their sum.

    Raises ValueError where the lengths differ.
    """
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers, {len(references)} references")
    if metric == "chrf":
        return chrf_statistics(answers, references)
    values = np.array([_EACH[metric](*pair) for pair in zip(answers, references, strict=True)], dtype=np.float64)
    return np.stack([values, np.ones(len(values))], axis=1)


def percent(share: Interval | None) -> Interval | None:
    """
    >>> percent(Interval(0.5, 0.25, 0.75))
    Interval(value=50.0, low=25.0, high=75.0)
    """
    return None if share is None else Interval(100 * share.value, 100 * share.low, 100 * share.high)


# ------------------------------------------------------------------------------------------------- of one answer


def goes_in_circles(answer: str) -> bool:
    """Is at least half of a longer answer what it said before, by runs of four words?

    >>> goes_in_circles("i like it . " * 10), goes_in_circles("i like it . " * 2)
    (True, False)
    """
    said = answer.split()
    runs = [tuple(said[start : start + RUN]) for start in range(len(said) - RUN + 1)]
    return len(said) >= LONG_ANSWER and len(set(runs)) <= len(runs) / 2


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 (Lin 2004), 0 to 1: of the longest common subsequence of words.

    Equal to the package rouge-score without stemming for ASCII text. That one leaves out every other letter; here words
    of all scripts count (:func:`words`).

    >>> round(rouge_l("the cat sat", "The cat was here, and sat."), 4)
    0.6667
    """
    first, second = words(answer), words(reference)
    if not first or not second:
        return 0.0
    common = longest_common(first, second)
    precision, recall = common / len(first), common / len(second)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def exact(answer: str, reference: str) -> bool:
    """Are they the same text? Forms of Unicode, and how much white space stands where, make no difference.

    >>> exact(" Yes,\\nof course. ", "Yes, of course."), exact("yes", "Yes")
    (True, False)
    """
    return plain(answer) == plain(reference)


def right(answer: str, reference: str) -> bool:
    """Is the answer this label? See :func:`label_key`.

    >>> right('"Card lost".', "card lost"), right("It is: card lost", "card lost")
    (True, False)
    """
    return label_key(answer) == label_key(reference)


def label_key(text: str) -> str:
    """A label as it is compared: without quotes, marks and full stops around it; capitals make no difference.

    A label of such marks alone ("?", "...") is compared as it is.

    >>> label_key(' **Card_lost**. '), label_key("+")
    ('card_lost', '+')
    """
    text = plain(text).casefold()
    return text.strip(" \"'`*.“”‘’«»") or text


def plain(text: str) -> str:
    """Unicode's NFC, white space around it gone and each run of it inside one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table as the bits of one number (Hyyrö 2004).

    >>> longest_common("ABCBDAB", "BDCABA")
    4
    """
    places: dict[str, int] = {}
    for at, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << at
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & everywhere
    return len(first) - row.bit_count()


def _may_be_label(text: str) -> bool:
    text = text.strip()
    return 0 < len(text) <= LABEL_CHARACTERS and "\n" not in text and text[-1] not in ".!?…。！？"


_EACH: dict[Metric, Callable[[str, str], float]] = {"rouge_l": rouge_l, "exact": exact, "accuracy": right}
STATISTICS: dict[Metric, Callable[[Array], Array]] = {
    "chrf": chrf, "rouge_l": percentage, "exact": percentage, "accuracy": percentage,
}  # fmt: skip
