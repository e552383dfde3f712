"""Stored answers of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ownchat.cli.serve import DatabaseOption

records_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Answers that the server stored.")


@records_app.callback()
def _records() -> None:
    """Answers that the server stored."""


@records_app.command()
def export(
    file: Annotated[Path, typer.Argument(help="JSONL file to write; - is standard output.")],
    form: Annotated[Literal["sft", "dpo"], typer.Option(help="Conversations, or better and worse answers.")] = "sft",
    owner: Annotated[str | None, typer.Option(help="Of this owner of keys; none: of all.")] = None,
    database: DatabaseOption = None,
) -> None:
    """Rated and mended answers as training data: ownchat train reads the file."""
    import json

    from ownchat import artifacts
    from ownchat.errors import DataError
    from ownchat.serve.database import connect
    from ownchat.serve.exporting import export as rows_of
    from ownchat.serve.records import Records
    from ownchat.serve.settings import Settings

    settings = Settings(home=artifacts.home(), database=database)
    opened = connect(settings)
    try:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows_of(Records(opened, settings).all(owner), form)]
    finally:
        opened.close()
    if not lines:
        wanted = "rated up or mended" if form == "sft" else "mended, or rated both up and down for one prompt,"
        raise DataError(
            f"no answer {wanted} is stored", where=owner or "records",
            fix='rate stored answers: client.chat.completions.update(ID, metadata={"rating": "up"})',
        )  # fmt: skip
    text = "".join(f"{line}\n" for line in lines)
    if str(file) == "-":
        typer.echo(text, nl=False)
        return
    artifacts.write_atomic(file, text)
    typer.echo(f"{len(lines)} rows in {file}", err=True)
