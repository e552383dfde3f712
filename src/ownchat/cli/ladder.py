"""The command that compares prompts, training and other models."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ownchat.cli.options import JsonOption, print_json


def ladder(
    name: Annotated[str, typer.Argument(help="A run, or a folder that is trained first.")],
    rows: Annotated[int | None, typer.Option("--rows", help="Questions; none: evaluate.answers.", min=1)] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="One behind a URL as well: http://host:8000/v1#name", metavar="URL#NAME"),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Train all weights as well, as NAME-full.")] = False,
    budget: Annotated[
        int | None,
        typer.Option("--budget", help="Answers to search a prompt with; none: 96, at a service 0.", min=0),
    ] = None,
    price: Annotated[float | None, typer.Option("--price", help="Money for an hour of this machine.", min=0)] = None,
    price_in: Annotated[
        list[str] | None,
        typer.Option("--price-in", help="For a million tokens read: 0.15, or URL#NAME=0.15", metavar="PRICE"),
    ] = None,
    price_out: Annotated[
        list[str] | None,
        typer.Option("--price-out", help="For a million tokens written, likewise.", metavar="PRICE"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Is it better than a prompt? Prompts, training and other models on the same held-out questions."""
    from ownchat.pipeline import ladder as climbing
    from ownchat.pipeline.ladder_prices import Prices
    from ownchat.pipeline.ladder_table import table

    prices = Prices.read(price_in or (), price_out or (), price)
    found = climbing.ladder(
        name, rows=rows, models=model or (), full=full, budget=budget, prices=prices, say=typer.echo
    )  # fmt: skip
    typer.echo("")
    typer.echo(table(found, color=sys.stdout.isatty() and "NO_COLOR" not in os.environ), nl=False)
    if json:
        print_json(found)
