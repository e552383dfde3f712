"""``ownchat migrate``: fine-tuning jobs and their data, from a service to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ownchat.cli.options import JsonOption, print_json
from ownchat.errors import printable

if TYPE_CHECKING:
    from ownchat.pipeline.migrate import Migration

migrate_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Bring what a service has to this machine.")


@migrate_app.callback()
def _migrate() -> None:
    """Bring what a service has to this machine."""


@migrate_app.command("openai")
def openai(
    to: Annotated[Path, typer.Option("--to", help="Folder to write.", metavar="DIR")] = Path("migrated"),
    on: Annotated[
        str | None, typer.Option("--on", help="The service; none: OPENAI_BASE_URL, or OpenAI.", metavar="URL")
    ] = None,
    completions: Annotated[
        bool, typer.Option("--completions", help="Stored chat completions as well, as rows to train on.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fine-tuning jobs of an account, with their files and the settings to train them here. The key: OPENAI_API_KEY."""
    from ownchat.pipeline.migrate import migrate

    done = migrate(to, url=on, completions=completions)
    typer.echo(printable("\n".join(_lines(done))))
    if json:
        print_json(done.as_json())
    if done.unfinished:
        raise typer.Exit(1)


def _lines(done: Migration) -> list[str]:
    from ownchat.pipeline.migrate_job import LAST_NEW_JOBS, OPENAI

    lines = [f"{len(done.jobs)} fine-tuning jobs at {done.host}", ""] if done.jobs else []
    for moved in done.jobs:
        job = moved.job
        tokens = "" if job.trained_tokens is None else f", {job.trained_tokens:,} tokens trained"
        closes = job.closes(done.host)
        ends = "" if closes is None else f"; ends there on {closes:%-d %B %Y}"
        lines.append(f"{job.folder}  {job.day}  {job.model}  {job.method}  {job.status}{tokens}{ends}")
        for file in moved.files:
            if "missing" in file:
                lines.append(
                    f"  {file['kind']} file {' '.join(file['id'].split())[:64]} is NOT here: {file['missing']}"
                )
            else:
                changed = ", changed here since" if file.get("changed_here") else ""
                lines.append(f"  {file['path']}  {file['bytes']:,} bytes{changed}")
        if moved.command is None:
            lines.append(f"  cannot be trained here: {moved.why_not}")
    lines += ["", f"{done.fetched} files came, {done.there} were there already; {done.folder}/migration.json has more"]
    lines += done.notes
    if done.completions is not None:
        found = done.completions
        place = f" in {found.path}" if found.path else ""
        lines.append(f"stored answers: {found.written} rows came, {found.there} were there already{place}")
        lines += [f"  {count} left out: {why}" for why, count in found.left_out.items()]
    if done.host == OPENAI:
        lines.append(f"OpenAI takes no new fine-tuning jobs after {LAST_NEW_JOBS:%-d %B %Y}.")
    if commands := [moved.command for moved in done.jobs if moved.command]:
        lines += ["", "To train them here:", *(f"  {command}" for command in commands)]
    if done.unfinished:
        lines += [
            "",
            f"{done.unfinished} files did not come: run the same command again, which fetches what is missing",
        ]
    return lines
