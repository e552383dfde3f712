"""Between import and cleaning, where ``generate.questions`` asks for it: questions and answers about the documents."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.errors import ConfigError, DataError

STAGE = "1-questions"
SECTIONS = ("data", "generate")
REPLIES = "questions.jsonl"  # beside the stage: what a model was paid for outlives the stage
AT_ONCE = 8  # requests to a server under way together
FEW_DOCUMENTS = 30  # with fewer, passages and not documents are what the splits keep together


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> Report:
    """The records of ``inputs["data"]`` and, behind them, the questions and answers about its documents.

    Ledger: records that were there are kept as they are; each candidate of the model is a row, kept or dropped with
    the reason. Replies are stored beside ``output`` as they come. Raises
    :class:`~ownchat.errors.ConfigError` where no model is named, :class:`~ownchat.errors.DataError` where there is no
    document, and :class:`~ownchat.errors.UserError` where the server does not answer.
    """
    from ownchat.data.ledger import Entry, Ledger
    from ownchat.data.records import ShardWriter, batched, read_records, shards
    from ownchat.generate.grounding import passages
    from ownchat.generate.synthesize import PASSAGE_CHARS, synthesize
    from ownchat.monitor.progress import progress

    wanted = config.generate.questions
    key = artifacts.stage_key(config, SECTIONS, inputs)
    if (report := artifacts.completed(output, key)) is not None:
        return report
    source = inputs["data"]
    documents = total = 0
    for row in read_records(source):
        if row["kind"] == "document":
            documents += 1
            total += len(passages(row["text"] or "", PASSAGE_CHARS))
    if not documents:
        raise DataError("no document to ask about", where="generate.questions", fix="add documents, or set it to 0")
    start = artifacts.start_afresh(output)
    counts = {"documents": documents, "passages": total, "questions": 0, "rejected": 0}
    with (
        _asker(config) as (ask, model, at_once),
        Ledger(output) as ledger,
        progress("questions", total, "passages") as advance,
    ):
        for row in read_records(source):
            ledger.enter("row")
            ledger.fate("row", row["id"], "kept", "import", parents=(row["id"],))
        old = shards(source)
        for number, shard in enumerate(old):
            os.link(shard, output / f"{number:05d}.parquet")
        made = synthesize(
            read_records(source), ask, wanted, model=model, cache=output.parent / REPLIES, at_once=at_once,
            progress=advance,
        )  # fmt: skip

        def written() -> Iterator[dict[str, Any]]:
            for item in made:
                ledger.enter("row")
                if isinstance(item, Entry):
                    counts["rejected"] += 1
                    ledger.add([item])
                    continue
                counts["questions"] += 1
                parent = item["group"]
                if documents < FEW_DOCUMENTS:
                    item["group"] = f"{parent}:{item['source']['offset']}"
                ledger.fate("row", item["id"], "kept", "synthesized", parents=(parent,))
                yield item

        with ShardWriter(output / "new.tmp") as writer:
            for batch in batched(written()):
                writer.write(batch)
        for number, shard in enumerate(shards(output / "new.tmp"), len(old)):
            shard.rename(output / f"{number:05d}.parquet")
        (output / "new.tmp").rmdir()
    details = {"ledger": ledger.totals, "rules": ledger.rules, "model": model}
    return artifacts.commit(
        key, config, SECTIONS, Report("questions", output, counts, details, time.monotonic() - start)
    )


@contextmanager
def _asker(config: Config) -> Iterator[tuple[Any, str, int]]:
    """How to ask, the model's name, and how many passages at once."""
    from ownchat.generate.synthesize import ask_local, ask_url

    settings = config.generate
    if settings.url is not None:
        if not settings.model:
            fix = "--set generate.model=NAME, one that the server knows"
            raise ConfigError("no model is named for the URL", where="generate.model", fix=fix)
        yield ask_url(settings.url, settings.model), settings.model, AT_ONCE
        return
    from ownchat.generate.hf import chat_engine
    from ownchat.model.load import resolve_base

    base = settings.model or config.model.base
    engine = chat_engine(resolve_base(base), threads=config.train.threads)
    try:
        yield ask_local(engine), base, 1
    finally:
        engine.close()
