"""``ownchat tokenizer``: learn one from a folder of text, and say what it is worth."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from ownchat.artifacts import TOKENIZER
from ownchat.cli.options import (
    AssistantOption,
    ConfigOption,
    DomainOption,
    FormatOption,
    JsonOption,
    MapOption,
    NameOption,
    RecipeOption,
    SetOption,
    SourceArgument,
    SystemOption,
    print_json,
    read_settings,
)
from ownchat.config import FROM_NOTHING
from ownchat.errors import printable

tokenizer_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="A tokenizer of your own: learn it, and see what it is worth."
)


@tokenizer_app.command("train")
def train(
    source: SourceArgument,
    kind: Annotated[str | None, typer.Option("--kind", help="bpe, word, char or byte.")] = None,
    vocab: Annotated[int | None, typer.Option("--vocab", help="Tokens; none: from the size of the text.")] = None,
    name: NameOption = None,
    map: MapOption = None,
    format: FormatOption = None,
    assistant: AssistantOption = None,
    assistant_domain: DomainOption = None,
    system: SystemOption = None,
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Import, clean, and learn a tokenizer from the train split."""
    given = {"tokenizer.kind": kind, "tokenizer.vocab": vocab}
    flags = [f"{key}={value}" for key, value in given.items() if value is not None]
    settings, origins = read_settings(
        config, [*(set or ()), *flags], map, format, recipe, base=FROM_NOTHING, system=system, assistant=assistant,
        assistant_domain=assistant_domain,
    )  # fmt: skip
    from ownchat.pipeline import tokenizer

    run = tokenizer.learn(source, name=name, config=settings, origins=origins)
    given_again = {
        "--set": [*(set or ()), *flags], "--map": map, "--format": format, "--assistant": assistant,
        "--assistant-domain": assistant_domain, "--system": [system], "--recipe": [recipe], "--config": [config],
        "--name": [name],
    }  # fmt: skip
    again = [
        word for flag, values in given_again.items() for value in values or () if value for word in (flag, str(value))
    ]
    typer.echo(f"written to {run / TOKENIZER}")
    typer.echo(f"to go on: ownchat train {shlex.join([printable(source), '--base', FROM_NOTHING, *again])}")
    _show(str(run), json)


@tokenizer_app.command("report")
def report(name: Annotated[str, typer.Argument(help="A run.")], json: JsonOption = False) -> None:
    """What a run's tokenizer makes of its text, beside GPT-2's and the starter's."""
    _show(name, json)


def _show(name: str, as_json: bool) -> None:
    from ownchat.pipeline import tokenizer

    comparison, notes = tokenizer.compare(name)
    typer.echo("")
    typer.echo("\n".join(tokenizer.lines(comparison, notes)))
    if as_json:
        print_json(tokenizer.as_json(comparison, notes))
