"""What commands have in common: their options, the settings made of them, and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ownchat.config import ALIASES, Config, Origins, load_config
from ownchat.errors import ConfigError

SourceArgument = Annotated[str, typer.Argument(help="A file or a folder, or s3://bucket/prefix.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.", metavar="FILE")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting: --set train.epochs=2", metavar="KEY=VALUE")
]
MapOption = Annotated[
    list[str] | None, typer.Option("--map", help="Which column is what: --map question=Subject", metavar="ROLE=COLUMN")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the run; none: from the source.")]
JsonOption = Annotated[bool, typer.Option("--json", help="End with the result as one line of JSON.")]
FormatOption = Annotated[
    list[str] | None, typer.Option("--format", help="Format of all files, or of some: '*.log=irc'", metavar="FORMAT")
]
AssistantOption = Annotated[
    list[str] | None, typer.Option("--assistant", help="Who the assistant is: a name or an address.", metavar="NAME")
]
DomainOption = Annotated[
    list[str] | None, typer.Option("--assistant-domain", help="Mail domain of the assistants.", metavar="DOMAIN")
]
RecipeOption = Annotated[
    Path | None, typer.Option("--recipe", help="Cleaning as accepted in a preview.", metavar="FILE")
]
BaseOption = Annotated[str | None, typer.Option("--base", help="starter, scratch, a directory, a run, a hub id.")]
SizeOption = Annotated[str | None, typer.Option("--size", help="Of a model from nothing: 30M, gpt2, gpt3-125m.")]
MethodOption = Annotated[str | None, typer.Option("--method", help="lora or full.")]
EpochsOption = Annotated[float | None, typer.Option("--epochs", help="Passes of fine-tuning at most.")]
MinutesOption = Annotated[float | None, typer.Option("--minutes", help="Training time at most.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Order of the data and start of the adapter.")]
SystemOption = Annotated[str | None, typer.Option("--system", help="System message for conversations without one.")]


def read_settings(
    path: Path | None, sets: list[str] | None, maps: list[str] | None, formats: list[str] | None,
    recipe: Path | None, **flags: Any,
) -> tuple[Config, Origins]:  # fmt: skip
    """The settings of a command: file, recipe, ``--set`` and flags (``None``: not given), see :mod:`ownchat.config`."""
    values: dict[str, Any] = {ALIASES[flag]: value for flag, value in flags.items()}
    if maps:
        pairs = [text.partition("=") for text in maps]
        for role, separator, column in pairs:
            if not (role and separator and column):
                raise ConfigError(f'"{role}{separator}{column}"', where="--map", fix="write --map question=COLUMN")
        values["data.map"] = {role: column for role, _, column in pairs}
    accepted = None
    if recipe is not None:
        from ownchat.clean.recipe import read_recipe

        accepted = read_recipe(recipe)
    if formats:
        pairs = [text.rpartition("=") for text in formats]
        values["data.format"] = {pattern or "*": format for pattern, _, format in pairs}
    config, origins = load_config(path, sets=sets or (), values=values, recipe=accepted)
    if config.generate.prompt is not None:
        from ownchat.pipeline.system_prompt import with_prompt

        return with_prompt(config, origins)
    return config, origins


def print_json(value: Any) -> None:
    """One line, the last one that a command prints."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))
