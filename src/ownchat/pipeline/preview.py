"""``ownchat import PATH --preview``: how each file was understood, and what exactly would be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ownchat.config import Config
from ownchat.errors import DataError, printable

TRAINED, CONTEXT = "black on green", "dim"
MAX_TOKENS_SHOWN = 400


def show_preview(config: Config, source: Path, console: Console, *, rows: int = 3) -> None:
    """Print files, first records, and the records' tokens with the trained ones marked.

    In a terminal trained tokens are coloured; where there is no colour they stand between ``[[`` and ``]]``.
    """
    from ownchat.data.stage import preview
    from ownchat.model.load import resolve_base
    from ownchat.tokenizer.stage import load_tokenizer, render_record

    files = preview(config, source, rows)
    console.print(_files(files))
    tokenizer = load_tokenizer(resolve_base(config.model.base))
    trained = total = 0
    for file in files:
        for record in file.get("records", []):
            try:
                rendered = render_record(tokenizer, record)
            except DataError as error:
                console.print(f"not trainable: {error}", style="red", markup=False)
                continue
            trained, total = trained + sum(rendered.weights), total + len(rendered.ids)
            title = f"{file['file']} line {record['source']['line']}"
            console.print(_tokens(tokenizer, rendered.ids, rendered.weights, title, plain=not console.is_terminal))
    if total:
        console.print(f"In these records {trained:,} of {total:,} tokens are trained ({trained / total:.0%}).")
        console.print("Nothing was written. To train on this: ownchat train", str(source), markup=False)


def _files(files: list[dict[str, Any]]) -> Table:
    table = Table(title="How the files are understood", title_justify="left")
    for name in ("file", "format", "encoding", "understood as"):
        table.add_column(name, overflow="fold")
    for file in files:
        what = file.get("problem") or file.get("understood") or ""
        cells = (file["file"], file.get("format"), file.get("encoding"), what)
        table.add_row(*(Text(printable(str(cell or ""))) for cell in cells))
        for note in file.get("dropped", []):
            table.add_row("", "", "", Text(printable(f"not used: {note}"), style="yellow"))
    return table


def _tokens(tokenizer: Any, ids: list[int], weights: list[int], title: str, *, plain: bool) -> Group | Panel:
    text = Text()
    open_mark = False
    for id, weight in zip(ids[:MAX_TOKENS_SHOWN], weights, strict=False):
        if plain and bool(weight) != open_mark:
            text.append("[[" if weight else "]]")
            open_mark = bool(weight)
        text.append(printable(tokenizer.decode([id])), style=TRAINED if weight else CONTEXT)
    if plain and open_mark:
        text.append("]]")
    if len(ids) > MAX_TOKENS_SHOWN:
        text.append(f" ... ({len(ids) - MAX_TOKENS_SHOWN:,} more tokens)", style="italic")
    legend = "trained tokens are between [[ and ]]" if plain else "green: trained"
    return Panel(text, title=Text(printable(title)), subtitle=legend, title_align="left", subtitle_align="left")
