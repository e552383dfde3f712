"""The stages before anything is learned, which every way of training begins with: import, questions, clean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ownchat import artifacts
from ownchat.artifacts import CLEAN, IMPORT, Report
from ownchat.config import Config
from ownchat.data.remote import Source
from ownchat.errors import printable
from ownchat.pipeline.lines import counted, lost

Say = Callable[[str], None]

MOST_NOTES = 12  # on screen: who the assistant is, and why


def imported(source: Source, run: Path, config: Config, say: Say) -> Path:
    """Read the source and, where asked for, write questions about its documents; the records' directory."""
    from ownchat.data import stage
    from ownchat.pipeline import questions

    done = stage.run(config, {"source": source}, run / IMPORT)
    read = f"{counted(done.counts['files'], 'file')}, {counted(done.counts['records'], 'record')}"
    tell(say, done, f"{read}{lost(done, ('row', 'message'))}")
    noted = [(file["file"], note) for file in done.details["files"] for note in file.get("notes", ())]
    for file, note in noted[:MOST_NOTES]:
        say(f"           {printable(file)}: {printable(note)}")
    if len(noted) > MOST_NOTES:
        say(f"           and {len(noted) - MOST_NOTES:,} more notes in {run / IMPORT / artifacts.MANIFEST}")
    if not config.generate.questions:
        return run / IMPORT
    asked = questions.run(config, {"data": run / IMPORT}, run / questions.STAGE)
    counts = asked.counts
    tell(
        say, asked, f"{counts['questions']:,} questions about {counts['passages']:,} passages, answered by "
        f"{asked.details['model']}; {counts['rejected']:,} rejected",
    )  # fmt: skip
    return run / questions.STAGE


def cleaned(data: Path, run: Path, config: Config, say: Say) -> None:
    """Clean and split the records."""
    from ownchat.clean import stage

    done = stage.run(config, {"data": data}, run / CLEAN)
    sizes = ", ".join(f"{split} {done.counts.get(split, 0):,}" for split in artifacts.SPLITS)
    masked = done.details["rules"].get("row changed", {}).get("private data", 0)
    tell(say, done, f"{sizes}{lost(done, ('row',))}")
    if masked:
        say(f"           private data masked in {counted(masked, 'place')}")


def tell(say: Say, report: Report, text: str) -> None:
    """A line of a stage that is done."""
    seconds = f"{report.seconds:.0f} s" if report.seconds >= 1 else "<1 s"
    say(f"{report.stage:>9}  {text}  ({seconds})")
