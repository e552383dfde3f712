"""The reference of a preference phase: what the model as it was when the phase began says of every reply.

Computed once, by the model that is about to be trained, and saved beside the phase's checkpoints: a resume reads it,
and goes on exactly. For KTO the replies also stand after prompts that they do not belong to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ownchat import artifacts
from ownchat.config import TrainConfig
from ownchat.errors import Interrupted
from ownchat.model.block import Document
from ownchat.monitor.progress import progress
from ownchat.tokenizer.store import Item, TokenStore
from ownchat.train.distributed import ALONE, World, nobody
from ownchat.train.objectives import Objective
from ownchat.train.preferences import DPO, KTO, ORPO, Unrelated, kto_weights, sums
from ownchat.train.signals import StopRequest

NAME = "reference.safetensors"
CHUNK = 512  # items whose documents are held at a time

Documents = Callable[[int], Sequence[Document]]  # of an item, by its place


def preference_objective(
    settings: TrainConfig,
    model: Any,
    train: TokenStore,
    valid: Sequence[Item],
    directory: Path,
    *,
    block_tokens: int,
    stop: StopRequest,
    world: World = ALONE,
) -> Objective:
    """The objective that ``settings.preference`` names, its reference made by ``model`` as it is now, or read.

    ``valid``: the items of a validation; ``directory``: of the phase.
    """
    beta = settings.preference_beta
    if settings.preference == "orpo":
        return ORPO(beta)
    counts = {"train": len(train.item_lengths), "valid": len(valid)}
    items: dict[str, Callable[[int], Item]] = {"train": train.item, "valid": valid.__getitem__}
    parts: dict[str, tuple[int, Documents]] = {
        name: (counts[name], partial(_replies, get)) for name, get in items.items()
    }
    others: dict[str, Documents] = {}
    if settings.preference == "kto":
        limit = max(int(train.lengths.max()), *(len(ids) for item in valid for ids, _ in item.documents))
        for name, get in items.items():
            others[name] = partial(_unrelated, get, partners(get, counts[name]), limit)
            parts[f"{name}_unrelated"] = (counts[name], others[name])
    known = reference(model, directory / NAME, parts, block_tokens=block_tokens, stop=stop, world=world)
    if settings.preference == "dpo":
        return DPO(beta, train=known["train"], valid=known["valid"])
    return KTO(
        beta,
        kto_weights(*train.judgements),
        train=known["train"],
        valid=known["valid"],
        train_unrelated=Unrelated(others["train"], known["train_unrelated"]),
        valid_unrelated=Unrelated(others["valid"], known["valid_unrelated"]),
        block_tokens=block_tokens,
        world=world,
    )


def reference(
    model: Any,
    path: Path,
    parts: dict[str, tuple[int, Documents]],
    *,
    block_tokens: int,
    stop: StopRequest,
    world: World = ALONE,
) -> dict[str, np.ndarray]:
    """Log-probability of every reply by ``model`` as it is now, in nats: float64 [items, replies of an item] by part.

    ``parts``: by name how many items, and the documents of each. ``path``: read when it is there and whole, else
    written when all is done. Raises :class:`~ownchat.errors.Interrupted` on a signal: nothing is kept then.
    """
    sizes = {name: count for name, (count, _) in parts.items()}
    if world.from_first(lambda: {name: len(values) for name, values in _read(path).items()}) == sizes:
        world.must_see(path)
        return _read(path)
    made: dict[str, np.ndarray] = {}
    total = sum(count for count, _ in parts.values())
    with progress("reference", total, "items") if world.first else nullcontext(nobody) as advance:
        for name, (count, documents) in parts.items():
            rows = []
            for start in range(0, count, CHUNK):
                if world.any(stop.requested):
                    raise Interrupted(f"{stop.name}: before the first step; the same command begins this phase again")
                places = range(start, min(count, start + CHUNK))
                chunk = [document for place in places for document in documents(place)]
                scores = world.score(model, chunk, block_tokens=block_tokens)
                rows.append(sums(scores).numpy().reshape(len(places), -1))
                advance(len(places))
            made[name] = np.concatenate(rows)
    world.from_first(lambda: _write(path, made))
    return made


def _read(path: Path) -> dict[str, np.ndarray]:
    """What is there; nothing where it is damaged: the model is the same, so it is made again."""
    try:
        return load_file(path) if path.is_file() else {}
    except SafetensorError:
        return {}


def _write(path: Path, made: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with artifacts.replacing(path) as aside:
        save_file(made, aside)
        with open(aside, "rb") as handle:
            os.fsync(handle.fileno())


def partners(item: Callable[[int], Item], count: int) -> np.ndarray:
    """For each item the nearest one before it, around the end, that has another prompt: int64 [count].

    A rotation by one where all prompts differ, as in the authors' code. A reply to the same prompt would not be
    unrelated. Where all prompts are equal there is no other, and it is the last item.
    """
    prompts = [hash(_prompt(item(place).documents[0])[0].tobytes()) for place in range(count)]
    found = [next((place for place in range(count - 1, 0, -1) if prompts[place] != prompts[0]), count - 1)]
    for place in range(1, count):
        found.append(place - 1 if prompts[place - 1] != prompts[place] else found[-1])
    return np.array(found)


def unrelated(item: Item, partner: Item, limit: int) -> list[Document]:
    """The item's prompts with the replies of its partner, cut to ``limit`` tokens."""
    documents = []
    for mine, (ids, weights) in zip(item.documents, partner.documents, strict=True):
        prompt, start = _prompt(mine), len(_prompt((ids, weights))[0])
        ids, weights = np.concatenate([prompt[0], ids[start:]]), np.concatenate([prompt[1], weights[start:]])
        documents.append((ids[:limit], weights[:limit]))
    return documents


def _replies(item: Callable[[int], Item], place: int) -> Sequence[Document]:
    return item(place).documents


def _unrelated(item: Callable[[int], Item], mates: np.ndarray, limit: int, place: int) -> list[Document]:
    return unrelated(item(place), item(int(mates[place])), limit)


def _prompt(document: Document) -> Document:
    """What stands before the first trained token."""
    ids, weights = document
    start = int(np.flatnonzero(weights)[0])
    return ids[:start], weights[:start]
