"""Public benchmarks on a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ownchat.cli.options import JsonOption, print_json


def benchmark(
    name: Annotated[str, typer.Argument(help="A run, a model directory, or URL#MODEL.")],
    tasks: Annotated[list[str], typer.Option("--tasks", help="hellaswag,arc_easy,...", metavar="NAMES")],
    limit: Annotated[int | None, typer.Option("--limit", help="Questions of each task; none: all.", min=1)] = None,
    shots: Annotated[int | None, typer.Option("--shots", help="Examples before each question.", min=0)] = None,
    compare: Annotated[bool, typer.Option("--compare", help="The base, too, on the same questions.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Questions as turns of a conversation.")] = False,
    include: Annotated[Path | None, typer.Option("--include", help="Task files of your own.", metavar="FOLDER")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="Of a model behind a URL.", metavar="DIRECTORY")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tasks of lm-evaluation-harness: what a model knows beside your data, and whether training cost it."""
    from dataclasses import asdict

    from ownchat.pipeline import benchmarks

    found, path = benchmarks.benchmark(
        name, tasks, limit=limit, shots=shots, compare=compare, chat=chat, include=include, tokenizer=tokenizer
    )
    typer.echo("")
    typer.echo("\n".join(benchmarks.lines(found)))
    if path is not None:
        typer.echo(f"\nwritten to {path}")
    if json:
        print_json(asdict(found))
