"""``data.mix``: how often the parts of the data are in an epoch, by kind or by the file they were read from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

import numpy as np

from ownchat.errors import ConfigError
from ownchat.tokenizer.packing import Mix
from ownchat.tokenizer.store import Part, TokenStore

KINDS = {"document": "documents", "conversation": "conversations", "preference": "preferences"}
NAMED = 8  # files that an error names


def mixes(wanted: Mapping[str, float], stores: Sequence[TokenStore]) -> list[Mix | None]:
    """For each store how often its items are in an epoch; None: all of them once.

    ``wanted``: passes by kind ("documents", "conversations", "preferences") or by a pattern of file names ("*faq*");
    the last one that matches counts, what none matches has one pass; what is replayed has its own number
    (:mod:`ownchat.tokenizer.replay`). Raises :class:`~ownchat.errors.ConfigError` for what matches nothing in any
    store, and for a number of passes that is none.
    """
    for pattern, passes in wanted.items():
        if not math.isfinite(passes) or passes < 0:
            raise ConfigError(f"{pattern}: {passes} passes", where="data.mix", fix="give 0 (leave it out) or more")
    if not wanted:
        return [None] * len(stores)
    parts = [store.parts() for store in stores]
    known = [part for of_store, _ in parts for part in of_store if part.kind in KINDS]
    for pattern in wanted:
        if not any(_matches(pattern, part) for part in known):
            raise ConfigError(
                f'"{pattern}" is no part of what is trained on', where="data.mix", fix=f"there are {_listed(known)}"
            )
    return [_mix(wanted, of_store, part_of_item) for of_store, part_of_item in parts]


def _mix(wanted: Mapping[str, float], parts: Sequence[Part], part_of_item: np.ndarray) -> Mix | None:
    passes = tuple(_passes(wanted, part) for part in parts)
    return None if all(number == 1 for number in passes) else Mix(part_of_item, passes)


def _passes(wanted: Mapping[str, float], part: Part) -> float:
    return next((wanted[pattern] for pattern in reversed(list(wanted)) if _matches(pattern, part)), 1.0)


def _matches(pattern: str, part: Part) -> bool:
    if part.kind not in KINDS:
        return False
    if pattern in KINDS.values():
        return pattern == KINDS[part.kind]
    return fnmatch(part.file, pattern) or fnmatch(part.file.rpartition("/")[2], pattern)


def _listed(parts: Sequence[Part]) -> str:
    kinds = sorted({KINDS[part.kind] for part in parts})
    files = sorted({part.file for part in parts})
    more = f" and {len(files) - NAMED:,} more files" if len(files) > NAMED else ""
    return f"{', '.join(kinds)}; {', '.join(files[:NAMED])}{more}"
