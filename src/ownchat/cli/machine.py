"""What is on this machine: its runs, and what it can do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ownchat.cli.options import JsonOption, print_json

runs_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, help="The runs of this machine.")


@runs_app.callback(invoke_without_command=True)
def runs(
    context: typer.Context,
    delete: Annotated[list[str] | None, typer.Option(help="Remove this run for good.", metavar="NAME")] = None,
    json: JsonOption = False,
) -> None:
    """The runs of this machine: results and sizes."""
    from dataclasses import asdict

    from ownchat import artifacts
    from ownchat.pipeline import runs as of_machine

    if context.invoked_subcommand:
        return
    for name in delete or ():
        freed = of_machine.delete(name)
        typer.echo(f"{name} removed, {freed / 1e6:,.0f} MB freed")
    if delete:
        return
    found = [of_machine.describe(run) for run in artifacts.list_runs()]
    if json:
        print_json([asdict(run) for run in found])
        return
    if not found:
        typer.echo("no runs yet; make one: ownchat train FOLDER")
    widths = [
        max(len(text) for text in column) for column in zip(*((run.name, run.status) for run in found), strict=True)
    ]
    for run in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.modified))
        columns = f"{run.name:<{widths[0]}}  {run.status:<{widths[1]}}  {run.num_bytes / 1e6:>7,.0f} MB  {when}"
        typer.echo(f"{columns}  {run.result}".rstrip())


@runs_app.command("find")
def find_in_runs(
    text: Annotated[str, typer.Argument(help="A name, an address, any text.")], json: JsonOption = False
) -> None:
    """Which runs hold a text, a person's name for example."""
    from dataclasses import asdict

    from ownchat.pipeline import runs as of_machine

    places = list(of_machine.find(text))
    if json:
        print_json([asdict(place) for place in places])
    else:
        typer.echo("\n".join(of_machine.found_lines(places)))


@runs_app.command("purge-raw")
def purge_raw(name: Annotated[str, typer.Argument(help="A run that is cleaned.")]) -> None:
    """Remove a run's text as it came, what cleaning dropped and its preview; model, cleaned text and report stay."""
    from ownchat.pipeline import runs as of_machine

    typer.echo(f"{name}: raw and dropped text removed, {of_machine.purge_raw(name) / 1e6:,.1f} MB freed")


def compare(
    names: Annotated[list[str], typer.Argument(help="Two runs or more; the others are set beside the first.")],
    html: Annotated[
        Path | None, typer.Option("--html", help="The page; none: in the home, folder compare.", metavar="FILE")
    ] = None,
    json: JsonOption = False,
) -> None:
    """What differs between runs, and whether one is better; also as a page."""
    from dataclasses import asdict

    from ownchat.pipeline import compare as comparing
    from ownchat.pipeline import compare_page

    comparison = comparing.compare(names)
    typer.echo("\n".join(comparing.lines(comparison)))
    place = html if html is not None else compare_page.default_place(comparison)
    compare_page.write(comparison, place)
    typer.echo(f"\nPage: {place}")
    if json:
        print_json(asdict(comparison))


def doctor() -> None:
    """What this machine is and what it can do."""
    from ownchat.pipeline.doctor import examine

    for what, finding in examine():
        typer.echo(f"{what:<13} {finding}")
