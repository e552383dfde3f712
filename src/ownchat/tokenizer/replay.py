"""``train.replay``: general rows mixed into fine-tuning, so that what the base could is not forgotten.

They lie in the same store as the user's own conversations, as parts of the kind :data:`KIND`, and an epoch takes so
many of them that they are a given share of its trained tokens. They are in no other split and in no other phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ownchat.config import FROM_NOTHING, Config
from ownchat.errors import ConfigError
from ownchat.tokenizer.packing import Mix

if TYPE_CHECKING:
    from ownchat.tokenizer.store import TokenStore

KIND = "replay"  # in the index of the store, where the user's own are "conversation" and "document"
WHERE = "train.replay"
SHARE, MOST_SHARE = 0.1, 0.9
MANY_PASSES = 4.0  # over the same rows in an epoch, from where repeating says ever less (Muennighoff et al. 2023)


@dataclass(frozen=True)
class Replay:
    """``share`` of the trained tokens; ``path``: a file or folder of general rows, none: the base's own answers."""

    share: float
    path: str | None


def replay_of(config: Config) -> Replay | None:
    """``train.replay``, understood; None where nothing is replayed.

    Raises :class:`~ownchat.errors.ConfigError` for what cannot be meant, and for a model from nothing.

    >>> replay_of(Config()) is None
    True
    """
    given = config.train.replay
    if not given:
        return None
    share = given.get("share", SHARE)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= MOST_SHARE:
        raise ConfigError(
            f"share = {share!r} is out of range", where=WHERE,
            fix=f"give the share of the trained tokens, from 0 (none) to {MOST_SHARE}: {{share: {SHARE}}}",
        )  # fmt: skip
    path = given.get("path")
    if path is not None and (not isinstance(path, str) or not path.strip()):
        raise ConfigError(f"path = {path!r} names no file", where=WHERE, fix="write {share: 0.1, path: FILE}")
    if share == 0:
        return None
    if config.model.base == FROM_NOTHING:
        raise ConfigError(
            "a model from nothing has no general ability to keep", where=WHERE,
            fix="leave it out, or put the general text among the data",
        )  # fmt: skip
    return Replay(float(share), path)


def replayed(store: TokenStore) -> np.ndarray:
    """bool [items]: which items of a store are replayed."""
    parts, part_of_item = store.parts()
    return np.array([part.kind == KIND for part in parts], bool)[part_of_item] if parts else np.zeros(0, bool)


def sizes(store: TokenStore) -> dict[str, int]:
    """Of the replayed items: how many, their tokens, and those of them that are trained."""
    mine = replayed(store)
    tokens, trained = store.item_lengths[mine].sum(), store.item_trained[mine].sum()
    return {"rows": int(mine.sum()), "tokens": int(tokens), "trained_tokens": int(trained)}


def with_replay(store: TokenStore, mix: Mix | None, share: float) -> tuple[Mix | None, dict[str, Any] | None]:
    """The mix of a store that holds replayed rows, and what comes of it; both as they were where it holds none.

    ``mix``: how often the user's own items are in an epoch, None for once. Replayed rows are there so often that they
    are ``share`` of the trained tokens of an average epoch, and one of them at least. The second value:
    ``{share, passes, rows, tokens, trained_tokens}``, the last three of all rows there are, ``share`` as it came out.
    """
    parts, part_of_item = store.parts()
    mine = np.array([part.kind == KIND for part in parts], bool)
    if not mine.any():
        return mix, None
    own = Mix(part_of_item, tuple(0.0 if is_mine else 1.0 for is_mine in mine))
    if mix is not None:
        own = Mix(part_of_item, tuple(0.0 if its else mix.passes[number] for number, its in enumerate(mine)))
    if not own.num_documents:
        return own, None  # data.mix leaves nothing that it could be mixed into
    there = sizes(store)
    wanted = share / (1 - share) * own.tokens(store.item_trained)
    passes = max(wanted / there["trained_tokens"], 1 / there["rows"])
    made = Mix(part_of_item, tuple(passes if is_mine else own.passes[at] for at, is_mine in enumerate(mine)))
    total = made.tokens(store.item_trained)
    came = 1 - own.tokens(store.item_trained) / total if total else math.nan
    return made, {"share": round(came, 4), "passes": round(passes, 3)} | there


def told(facts: dict[str, Any]) -> str:
    """For people: how much is replayed.

    >>> told({"share": 0.1, "passes": 0.5, "rows": 90, "tokens": 9000, "trained_tokens": 6000})
    'replay: 10 % of the trained tokens are general ones, 45 of 90 rows in an epoch'
    """
    rows, passes = facts["rows"], facts["passes"]
    text = f"replay: {100 * facts['share']:.0f} % of the trained tokens are general ones, "
    if passes <= 1:
        return f"{text}{max(1, round(passes * rows)):,} of {rows:,} rows in an epoch"
    text += f"{rows:,} rows {passes:.1f} times in an epoch"
    return text if passes <= MANY_PASSES else f"{text}: give more of them (train.replay path) or a smaller share"
