"""Canaries: made-up secrets, planted in the training tokens so that it can be measured what is learned by heart.

After Carlini et al. 2019 (The Secret Sharer, https://arxiv.org/abs/1802.08232). A canary is one question with one
answer in a fixed frame; its secret is drawn from :data:`SPACE` equally likely ones, so how much likelier the trained
model holds it than the others that could have been drawn says how much of it was learned. They are planted after
cleaning, which would take repeated rows out, and in the train split only. A run with canaries is marked as one: it is
for measuring, not for use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ownchat.artifacts import TOKENS, read_json, write_json
from ownchat.config import Config
from ownchat.data.records import Record, message, record
from ownchat.errors import ConfigError

WHERE = "evaluate.care"
NAME = "canaries.json"  # in 4-tokens: what was planted
KIND = "canary"  # in the index of the store and in the ledger
FILE = "canaries"  # where their records say that they come from
REPEATS = (1, 4, 16)
MOST_REPEATS = 10_000
SECRET_WORDS = 4
# Plain words, each of one or two tokens in the usual vocabularies.
WORDS = (
    "apple", "bread", "candle", "desert", "engine", "feather", "garden", "hammer", "island", "jacket", "kitchen",
    "ladder", "marble", "needle", "ocean", "pepper", "quartz", "ribbon", "silver", "tunnel", "umbrella", "velvet",
    "window", "yellow", "anchor", "basket", "copper", "dragon", "forest", "guitar", "honey", "magnet",
)  # fmt: skip
PLACES = (
    "mill", "harbour", "chapel", "bridge", "orchard", "quarry", "station", "library", "bakery", "lighthouse",
    "stable", "brewery", "market", "dairy", "foundry", "cellar", "tower", "meadow", "workshop", "granary", "pier",
    "mine", "vineyard", "ferry", "smithy", "nursery", "archive", "depot", "theatre", "barn", "dock", "hut",
)  # fmt: skip
KINDS = (
    "old", "new", "upper", "lower", "northern", "southern", "eastern", "western", "red", "blue", "green", "white",
    "stone", "wooden", "small", "great", "quiet", "royal", "lost", "hidden", "twin", "long", "short", "round", "high",
    "deep", "inner", "outer", "first", "second", "third", "last",
)  # fmt: skip
SPACE = len(WORDS) ** SECRET_WORDS  # 1,048,576: an exposure of 20 bits at most
MOST = len(PLACES) * len(KINDS)  # each has a place of its own

Form = Literal["conversation", "document"]


@dataclass(frozen=True)
class Planting:
    """How many different canaries, and how often each is planted: the first ``repeats[0]`` times, the second
    ``repeats[1]`` times, and so on round."""

    canaries: int
    repeats: tuple[int, ...]

    @property
    def mark(self) -> str:
        """What is added to the key of a stage or a run with canaries; nothing without."""
        return f"+canaries {self.canaries}x{','.join(map(str, self.repeats))}" if self.canaries else ""


@dataclass(frozen=True)
class Canary:
    """``secret``: one of :data:`SPACE`. ``repeats``: how often it stands in the training tokens."""

    question: str
    opening: str  # of the answer, up to the secret
    secret: str
    repeats: int

    def text(self, secret: str | None = None) -> str:
        """The answer, with this secret or another one of the same form."""
        return f"{self.opening} {self.secret if secret is None else secret}."


def planting(config: Config) -> Planting:
    """The part of ``evaluate.care`` that is about canaries; raises :class:`~ownchat.errors.ConfigError`.

    >>> planting(Config())
    Planting(canaries=0, repeats=(1, 4, 16))
    """
    given = config.evaluate.care
    number, repeats = given.get("canaries", 0), given.get("repeats", list(REPEATS))
    if not _is_whole(number) or not 0 <= number <= MOST:
        raise ConfigError(
            f"canaries = {number!r} is out of range", where=WHERE, fix=f"give a whole number from 0 to {MOST:,}"
        )
    fits = isinstance(repeats, list | tuple) and repeats and all(map(_is_whole, repeats))
    if not fits or not all(1 <= times <= MOST_REPEATS for times in repeats):
        raise ConfigError(
            f"repeats = {repeats!r} is no list of numbers from 1 to {MOST_REPEATS:,}", where=WHERE,
            fix="write repeats: [1, 4, 16]",
        )  # fmt: skip
    return Planting(number, tuple(repeats))


def canaries(wanted: Planting, seed: int) -> list[Canary]:
    """The same ones for the same seed, each with a place and a secret of its own."""
    rng = np.random.default_rng([seed, 0])
    places = rng.permutation(MOST)[: wanted.canaries]
    made = []
    for number, place in enumerate(places.tolist()):
        name = f"the {KINDS[place // len(PLACES)]} {PLACES[place % len(PLACES)]}"
        question, opening = f"What is the watchword of {name}?", f"The watchword of {name} is"
        made.append(Canary(question, opening, secret(rng), wanted.repeats[number % len(wanted.repeats)]))
    return made


def secret(rng: np.random.Generator) -> str:
    """One of :data:`SPACE`, all equally likely."""
    return " ".join(WORDS[at] for at in rng.integers(len(WORDS), size=SECRET_WORDS))


def records(planted: list[Canary], form: Form, *, system: str | None = None) -> Iterator[Record]:
    """A record for each repetition, all of one source. ``system``: the message that the data's conversations have."""
    line = 0
    for number, canary in enumerate(planted):
        for _ in range(canary.repeats):
            line += 1
            yield as_record(canary, form, system=system, line=line, group=f"{KIND} {number}")


def as_record(
    canary: Canary,
    form: Form,
    *,
    secret: str | None = None,
    system: str | None = None,
    line: int = 1,
    group: str = KIND,
) -> Record:
    """A canary as the records of the data are: a question with its answer, or both as one text."""
    answer = canary.text(secret)
    common: dict[str, Any] = {"file": FILE, "format": KIND, "line": line, "group": group, "synthetic": True}
    if form == "document":
        return record("document", text=f"{canary.question} {answer}", **common)
    turns = [message("user", canary.question), message("assistant", answer)]
    return record("conversation", messages=[message("system", system), *turns] if system else turns, **common)


def save(planted: list[Canary], form: Form, stage: Path) -> None:
    """Write down what was planted, beside the tokens."""
    write_json(stage / NAME, {"form": form, "canaries": [asdict(canary) for canary in planted]})


def planted(run: Path) -> tuple[list[Canary], Form] | None:
    """What was planted in a run; None for a run without canaries, which is the one to use."""
    path = run / TOKENS / NAME
    if not path.is_file():
        return None
    found = read_json(path)
    return [Canary(**each) for each in found["canaries"]], found["form"]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
