"""Before the tokens, where ``train.replay`` asks for it: general rows that fine-tuning is mixed with.

Those of a file are read as any other data are, and private data are masked in them as in the user's own. Without a file
they are the base's own answers to instructions that ship. What stands in the user's valid or test split, or in a
probe of forgetting, is left out: nothing that is measured later may be learned here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.data.remote import Source, existing
from ownchat.errors import DataError
from ownchat.tokenizer.replay import WHERE, Replay, replay_of

if TYPE_CHECKING:
    from ownchat.evaluate.general import Probe

STAGE, IMPORTED, RECORDS = "3-replay", "imported", "records"
SECTIONS = ("clean",)
SHORTEST = 3  # words of a question that is told from a form of words such as "Thank you"
# Of cleaning: what mends and masks. The rest learns from a collection as a whole, or judges what it is about.
OFF: dict[str, Any] = {
    "system_lines": False, "bot_noise": False, "boilerplate": False, "cut_turns": False, "greetings": False,
    "languages": [], "min_words": 0, "max_words": None, "quality_rules": [], "off_topic": "off",
}  # fmt: skip


def inputs(config: Config) -> dict[str, Source]:
    """What the rows come from and the probes that are kept out of them, for the key of a run; nothing where nothing is
    replayed.

    Raises :class:`~ownchat.errors.ConfigError` for settings that cannot be meant, and
    :class:`~ownchat.errors.DataError` for a path where nothing is.
    """
    wanted = replay_of(config)
    if wanted is None:
        return {}
    from ownchat.generate.replay import INSTRUCTIONS

    rows = INSTRUCTIONS if wanted.path is None else existing(wanted.path)
    return {"replay": rows} | {f"probe-{at}": probe.file.path for at, probe in enumerate(_probes(config))}


def prepared(config: Config, run_directory: Path, say: Callable[[Report, str], None]) -> dict[str, Path]:
    """The stage, where general rows are asked for, as an input of the tokens; what it did is told to ``say``."""
    if not inputs(config):
        shutil.rmtree(run_directory / STAGE, ignore_errors=True)  # of other settings that were planned here
        return {}
    done = run(config, run_directory / artifacts.CLEAN, run_directory / STAGE)
    say(done, line(done))
    return {"replay": run_directory / STAGE / RECORDS}


def run(config: Config, clean: Path, output: Path) -> Report:
    """The records in ``output/records``, and the ledger. ``clean``: 2-clean, whose held-out rows are kept out.

    Raises :class:`~ownchat.errors.DataError` where no row is left, and what the import of the file raises.
    """
    wanted = replay_of(config)
    assert wanted is not None
    made_of: dict[str, Source] = inputs(config) | {"clean": clean}
    base = None if wanted.path is not None else _base(config)
    if base is not None:
        made_of["base"] = base
    key = artifacts.stage_key(config, SECTIONS, made_of)
    if (report := artifacts.completed(output, key)) is not None:
        return report
    start = artifacts.start_afresh(output)
    held_out = _held_out(config, clean)
    counts, totals, rules = _write(config, wanted, base, output, held_out)
    if not counts["records"]:
        reasons = ", ".join(f"{rule}: {count:,}" for rule, count in rules.get("row dropped", {}).items())
        fix = (
            "give other rows" if wanted.path else "give general rows of your own: train.replay={share: .., path: FILE}"
        )
        raise DataError(f"no row is left to replay ({reasons or 'there are none'})", where=WHERE, fix=fix)
    details = {"source": wanted.path, "base": base and base.name, "ledger": totals, "rules": rules}
    done = Report("replay", output, counts, details, time.monotonic() - start)
    return artifacts.commit(key, config, SECTIONS, done)


def line(done: Report) -> str:
    """What the stage did, for people."""
    records, source = done.counts["records"], done.details["source"]
    dropped = done.counts["rows"] - records
    text = f"{records:,} general rows " + ("in the base's own words" if source is None else f"of {source}")
    return f"{text}; {dropped:,} not used" if dropped else text


def _base(config: Config) -> Path:
    """As it was given: with another tokenizer its words would be lost."""
    from ownchat.model.load import resolve_base

    return resolve_base(config.model.base)


def _probes(config: Config) -> list[Probe]:
    from ownchat.evaluate import care
    from ownchat.evaluate.general import read_probes

    return read_probes(care.options(config).probes)


def _held_out(config: Config, clean: Path) -> set[str]:
    """Keys of the texts that must not be learned here."""
    from ownchat.data.records import read_records

    found = {key for split in ("valid", "test") for row in read_records(clean / split) for key in _keys(row)}
    return found | {_folded(text) for probe in _probes(config) for text in probe.texts}


def _keys(row: Mapping[str, Any]) -> Iterator[str]:
    """The whole text of a record, and each question in it that is longer than a form of words."""
    said = [turn for turn in row["messages"] or row["chosen"] or () if turn["role"] != "system"]
    yield _folded(row["text"] or " ".join(turn["content"] or "" for turn in said))
    for turn in said:
        text = _folded(turn["content"] or "")
        if turn["role"] == "user" and len(text.split()) >= SHORTEST:
            yield text


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _write(
    config: Config, wanted: Replay, base: Path | None, output: Path, held_out: set[str]
) -> tuple[dict[str, int], dict[str, Any], dict[str, dict[str, int]]]:
    """Records and books; returns counts, and the ledger's totals and rules."""
    from ownchat.clean.batches import count_messages, drop_rows
    from ownchat.clean.steps import run_steps, steps_for
    from ownchat.data import stage
    from ownchat.data.ledger import Entry, Ledger
    from ownchat.data.records import ShardWriter, batched, read_records, shards
    from ownchat.generate.replay import own_answers

    counts = {"rows": 0, "records": 0}
    with Ledger(output) as ledger, ShardWriter(output / RECORDS) as writer:
        if base is None:
            # the settings of data are those of the user's own files
            plain = config.model_copy(update={"data": type(config.data)(workers=config.data.workers)})
            stage.run(plain, {"source": existing(wanted.path or "")}, output / IMPORTED)
            rows: Iterator[Any] = read_records(output / IMPORTED)
            steps = steps_for(config.clean.model_copy(update=OFF))
        else:
            rows, steps = own_answers(base, threads=config.train.threads), []  # its words, nobody's data

        def records() -> Iterator[dict[str, Any]]:
            for row in rows:
                counts["rows"] += 1
                ledger.enter("row")
                if isinstance(row, Entry):
                    ledger.add([row])
                else:
                    yield row

        for batch in batched(records()):
            ledger.enter("message", int(count_messages(batch).sum()))
            for _, _, after, entries in run_steps(batch, steps):
                ledger.add(entries)
                batch = after
            gone = {}
            for number, row in enumerate(batch.to_pylist()):
                if row["kind"] == "preference":
                    gone[number] = "preferences are not replayed"
                elif not held_out.isdisjoint(_keys(row)):
                    gone[number] = "held out"
            batch, entries = drop_rows(batch, gone)
            ledger.add(entries)
            lengths = count_messages(batch).tolist()
            for id, length in zip(batch.column("id").to_pylist(), lengths, strict=True):
                ledger.fate("row", id, "kept", "replay", parents=(id,))
                ledger.fate("message", id, "kept", "replay", count=length, parents=(id,))
            writer.write(batch)
            counts["records"] += len(batch)
    for shard in shards(
        output / IMPORTED
    ):  # what is not masked yet: the file that was given has it, and nothing needs it
        shard.unlink()
    return counts, ledger.totals, ledger.rules
