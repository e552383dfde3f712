"""``ownchat tokenizer``: the stages up to the tokenizer alone, and what is to be said about one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownchat import artifacts
from ownchat.artifacts import CLEAN, MANIFEST, SPLITS, TOKENIZER, owner_only
from ownchat.config import Config, Origins
from ownchat.data.remote import Source
from ownchat.errors import ConfigError, RunError, UserError
from ownchat.pipeline.run import import_and_clean

if TYPE_CHECKING:
    from ownchat.tokenizer.compare import Comparison

Say = Callable[[str], None]
OWN, GPT2, STARTER = "own", "GPT-2", "starter"


@owner_only()
def learn(source: Source | str, *, name: str | None, config: Config, origins: Origins, say: Say = print) -> Path:
    """Import, clean and learn a tokenizer; returns the run's directory. ``ownchat train --base scratch`` goes on."""
    if config.tokenizer.base is not None:
        raise ConfigError(
            "a tokenizer is named, so none is learned", where="tokenizer.base", fix="leave it out, or train a model"
        )
    run = import_and_clean(source, name=name, config=config, origins=origins, clean=True, say=say)
    from ownchat.tokenizer import stage

    with artifacts.locked(run):
        done = stage.run_tokenizer(config, {"clean": run / CLEAN}, run / TOKENIZER)
    seconds = f"{done.seconds:.0f} s" if done.seconds >= 1 else "<1 s"
    say(
        f"tokenizer  {done.counts['vocab']:,} tokens ({config.tokenizer.kind}) from {done.counts['bytes']:,} bytes, "
        f"context {done.details['context']:,}: {done.details['why_context']}  ({seconds})"
    )
    return run


@owner_only()
def compare(name: str) -> tuple[Comparison, list[str]]:
    """The tokenizer of a run beside others on the run's own text, and why one of them is missing.

    Raises :class:`~ownchat.errors.RunError` for a run without a tokenizer or without its cleaned text.
    """
    from ownchat.model.load import is_here, resolve_base
    from ownchat.tokenizer.compare import compare as compare_on
    from ownchat.tokenizer.gpt2 import gpt2_directory

    run = artifacts.existing_run(name)
    if not (run / TOKENIZER / MANIFEST).is_file():
        raise RunError("this run has no tokenizer yet", where=str(run), fix="ownchat tokenizer train PATH")
    if missing := [split for split in SPLITS if not (run / CLEAN / split).is_dir()]:
        raise RunError(f"its cleaned text ({missing[0]}) is gone", where=str(run), fix="run the same command again")
    places, notes = {OWN: run / TOKENIZER}, []
    try:
        places[GPT2] = gpt2_directory()
    except UserError as error:
        notes.append(f"{GPT2}: {error.what}")
    if is_here("starter"):
        places[STARTER] = resolve_base("starter")
    else:
        notes.append(f"{STARTER}: not on this machine (ownchat train fetches it)")
    return compare_on(places, run / CLEAN), notes


def lines(comparison: Comparison, notes: list[str]) -> list[str]:
    """A comparison for people."""
    own = comparison.measured[0]
    rows = [("", "tokens in all", "bytes a token", "taught")]
    rows += [
        (one.name, f"{one.vocab:,}", f"{one.bytes_per_token:.2f}", f"{one.taught:.0%}") for one in comparison.measured
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    made = [f"held-out text: {own.num_bytes:,} bytes, {own.num_tokens:,} tokens"]
    for first, *rest in rows:
        right = "  ".join(f"{text:>{width}}" for text, width in zip(rest, widths[1:], strict=True))
        made.append(f"  {first:<{widths[0]}}  {right}")
    made += [f"  ({note})" for note in notes]
    of = max(1, comparison.learned)
    made.append(f"of {comparison.learned:,} learned tokens, in the train split:")
    made.append(f"  seen less than ten times  {comparison.rare:,} ({comparison.rare / of:.1%})")
    made.append(f"  never seen                {comparison.unused:,} ({comparison.unused / of:.1%})")
    shown = {
        "rarest": comparison.rare_examples,
        "never seen": comparison.unused_examples,
        "longest": comparison.longest,
    }
    made += [f"  {what}: {' '.join(map(repr, some))}" for what, some in shown.items() if some]
    made.append(_round_trip(comparison))
    made.append(comparison.recommendation)
    return made


def as_json(comparison: Comparison, notes: list[str]) -> dict[str, Any]:
    """A comparison for programs."""
    from dataclasses import asdict

    measured = [asdict(one) | {"bytes_per_token": one.bytes_per_token} for one in comparison.measured]
    return asdict(comparison) | {"measured": measured, "notes": notes}


def _round_trip(comparison: Comparison) -> str:
    text = f"{comparison.text_bytes:,} bytes of the run's text ({comparison.texts:,} pieces)"
    if not comparison.not_exact:
        return f"round trip: all {text} come back exactly"
    return (
        f"round trip: {comparison.not_exact:,} of {comparison.texts:,} pieces do not come back exactly; the first: "
        f"{comparison.first_not_exact}"
    )
