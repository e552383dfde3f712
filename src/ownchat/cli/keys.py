"""The keys of the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ownchat.cli.options import JsonOption, print_json
from ownchat.cli.serve import DatabaseOption

if TYPE_CHECKING:
    from ownchat.serve.keys import Keys

DAY = 86_400
MOST_DAYS = 36_500

keys_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Who may ask the server, and for what.")


@keys_app.command()
def create(
    owner: Annotated[str, typer.Argument(help="Whose it is: a person, a team, a program.")],
    scope: Annotated[list[str] | None, typer.Option(help="infer (default), train, metrics, admin.")] = None,
    days: Annotated[float | None, typer.Option(help="It ends after so many; none: never.")] = None,
    database: DatabaseOption = None,
) -> None:
    """Make a key and show it, this once."""
    from ownchat.errors import UserError

    if days is not None and not 0 < days <= MOST_DAYS:  # also what is not a number
        raise UserError(
            f"a key does not last {days:g} days", where="--days", fix=f"give more than 0 and at most {MOST_DAYS}"
        )
    with _keys(database) as keys:
        expires = None if days is None else time.time() + days * DAY
        key, token = keys.create(owner, tuple(scope or ("infer",)), expires=expires)
    typer.echo(f"{key.id} of {key.owner}, for {', '.join(key.scopes)}; it is shown this once:", err=True)
    typer.echo(token)


@keys_app.command("list")
def list_keys(json: JsonOption = False, database: DatabaseOption = None) -> None:
    """All keys, without their secrets."""
    from dataclasses import asdict

    with _keys(database) as keys:
        found = keys.list()
    now = time.time()
    if json:
        print_json([asdict(key) | {"state": key.state(now)} for key in found])
        return
    if not found:
        typer.echo("no keys yet; make one: ownchat keys create OWNER")
    for key in found:
        made = time.strftime("%Y-%m-%d", time.gmtime(key.created))
        end = "" if key.expires is None else time.strftime("  until %Y-%m-%d %H:%M", time.gmtime(key.expires))
        typer.echo(f"{key.id}  {key.state(now):<7}  {made}  {key.owner}  {','.join(key.scopes)}{end}")


@keys_app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="As ownchat keys list shows it.")], database: DatabaseOption = None
) -> None:
    """Make a key useless, within seconds also in servers that run."""
    with _keys(database) as keys:
        key = keys.revoke(id)
    typer.echo(f"{key.id} of {key.owner} is revoked")


@contextmanager
def _keys(database: str | None) -> Iterator[Keys]:
    from ownchat import artifacts
    from ownchat.serve.database import connect
    from ownchat.serve.keys import Keys
    from ownchat.serve.settings import Settings

    opened = connect(Settings(home=artifacts.home(), database=database))
    try:
        yield Keys(opened)
    finally:
        opened.close()
