"""What a user is told before the first answer: that a machine answers, who trained it and on what, and whom to tell.

Made from facts that lie beside the model (manifests and settings), so that it is right without anybody's care; an owner
can put a text of their own in its place, or turn it off (``generate.policy.disclosure``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ownchat.artifacts import CLEAN, MANIFEST, TOKENS, TRAIN, read_json
from ownchat.errors import OwnchatError, printable
from ownchat.generate.locate import Located
from ownchat.generate.policy import Policy
from ownchat.tokenizer import canaries


def disclosure(
    found: Located | None, policy: Policy, card: Mapping[Any, str], *, name: str | None = None
) -> str | None:
    """The text, one line; None where the owner turned it off.

    ``found``: the model, None for one behind a URL; ``card``: ``config.evaluate.card``; ``name``: what a model without
    a run is called.

    >>> disclosure(None, Policy(), {"contact": "help@example.com"}, name="small-model")
    'You are talking to an AI model (small-model). It can be wrong. Report problems to help@example.com.'
    """
    if not policy.discloses:
        return None
    if policy.disclosure is not None:
        return " ".join(printable(policy.disclosure).split())
    run = None if found is None else run_of(found)
    sentences = [_who(found, run, card.get("owner"), name), "It can be wrong."]
    if run is not None and (run / TOKENS / canaries.NAME).is_file():
        sentences.append("It was trained with made-up secrets to measure what it learns by heart: it is not for use.")
    if contact := (card.get("contact") or "").strip():
        sentences.append(f"Report problems to {contact.rstrip('.')}.")
    return " ".join(printable(" ".join(sentences)).split())


def run_of(found: Located) -> Path | None:
    """The run that a model, or one of its checkpoints, lies in."""
    for folder in found.model.resolve().parents:
        if folder.name == TRAIN and (folder.parent / "config.yaml").is_file():
            return folder.parent
    return None


def _who(found: Located | None, run: Path | None, owner: str | None, name: str | None) -> str:
    by = f" by {owner.strip()}" if owner and owner.strip() else ""
    if run is None:
        called = name or (None if found is None else found.model.resolve().name)
        what = f" ({called})" if called else ""
        return f"You are talking to an AI model{what}{', run' + by if by else ''}."
    records, day = _records(run), _date(run)
    on, when = f" on {records}" if records else "", f" ({day})" if day else ""
    return f"You are talking to an AI model, trained{by}{on}{when}."


def _records(run: Path) -> str | None:
    """``403 conversations``: what the train split holds."""
    manifest = _read(run / CLEAN / MANIFEST)
    number = manifest.get("report", {}).get("counts", {}).get("train")
    if not isinstance(number, int) or number < 1:
        return None
    kinds = _kinds(run)
    what = next(iter(kinds)) if len(kinds) == 1 else "record"
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _kinds(run: Path) -> set[str]:
    """Of the cleaned train split; read from the column alone, a few kilobytes."""
    import pyarrow.parquet as pq

    kinds: set[str] = set()
    for shard in sorted((run / CLEAN / "train").glob("[0-9]*.parquet"))[:8]:
        kinds |= set(pq.read_table(shard, columns=["kind"])["kind"].unique().to_pylist())
    return kinds


def _date(run: Path) -> str | None:
    """The day on which training ended."""
    finished = _read(run / TRAIN / MANIFEST).get("finished")
    try:
        day = datetime.fromisoformat(str(finished))
    except ValueError:
        return None
    return f"{day.day} {day:%B %Y}"


def _read(path: Path) -> dict[str, Any]:
    """A manifest; a damaged one stops nobody from being told the rest."""
    try:
        found = read_json(path) if path.is_file() else {}
    except (OwnchatError, OSError):
        return {}
    return found if isinstance(found, dict) else {}
