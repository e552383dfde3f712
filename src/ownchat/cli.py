"""The command line: commands in pipeline order, each a few lines around a function of the library.

A person's mistake is one message and exit code 2; an interrupt is 130; nothing heavy is imported for ``--help``.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ownchat import __version__
from ownchat.config import ALIASES, Config, Origins, load_config
from ownchat.data.remote import existing
from ownchat.errors import ConfigError, Interrupted, UserError, printable, system_error

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The text you already have, turned into a chat model of your own.",
)

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
SystemOption = Annotated[str | None, typer.Option("--system", help="System message for conversations without one.")]


@app.command("import")
def import_(
    source: SourceArgument,
    preview: Annotated[bool, typer.Option("--preview", help="Show how it is understood; write nothing.")] = False,
    rows: Annotated[int, typer.Option("--rows", help="Records of each file in the preview.", min=1)] = 3,
    name: NameOption = None,
    map: MapOption = None,
    format: FormatOption = None,
    assistant: AssistantOption = None,
    assistant_domain: DomainOption = None,
    system: SystemOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Read files into records."""
    who = {"assistant": assistant, "assistant_domain": assistant_domain}
    settings, origins = _settings(config, set, map, format, None, system=system, **who)
    if preview and json:
        from ownchat.data.preview import preview as look

        _print_json(look(settings, existing(source), rows))
        return
    if preview:
        from rich.console import Console

        from ownchat.pipeline.preview import show_preview

        show_preview(settings, existing(source), Console(highlight=False), rows=rows)
        return
    _first_stages(source, name, settings, origins, clean=False, as_json=json)


@app.command()
def clean(
    source: SourceArgument,
    preview: Annotated[bool, typer.Option("--preview", help="A page of what each step does; nothing is kept.")] = False,
    show_private: Annotated[bool, typer.Option("--show-private", help="Private data unmasked on that page.")] = False,
    to: Annotated[str | None, typer.Option("--to", help="Copy the result there.", metavar="FOLDER|URL")] = None,
    recipe: RecipeOption = None,
    name: NameOption = None,
    map: MapOption = None,
    format: FormatOption = None,
    assistant: AssistantOption = None,
    assistant_domain: DomainOption = None,
    system: SystemOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
) -> None:
    """Read, repair, redact, drop duplicates, split: everything before training."""
    who = {"assistant": assistant, "assistant_domain": assistant_domain}
    settings, origins = _settings(config, set, map, format, recipe, system=system, **who)
    if preview and to:
        raise ConfigError("a preview keeps nothing that could be copied", where="--to", fix="leave out --preview")
    if preview:
        from rich.console import Console

        from ownchat import artifacts
        from ownchat.pipeline import clean_preview, run

        place = existing(source)
        page = artifacts.previews() / (name or run.run_name(place)) / "clean.html"
        console = Console(highlight=False)
        clean_preview.write_clean_preview(settings, place, page, console, show_private=show_private)
        return
    _first_stages(source, name, settings, origins, clean=True, to=to)


@app.command()
def train(
    source: SourceArgument,
    name: NameOption = None,
    base: Annotated[str | None, typer.Option(help="starter, a directory, a run, or a Hugging Face id.")] = None,
    method: Annotated[str | None, typer.Option(help="lora or full.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data at most.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time at most.")] = None,
    seed: Annotated[int | None, typer.Option(help="Order of the data and start of the adapter.")] = None,
    system: SystemOption = None,
    map: MapOption = None,
    format: FormatOption = None,
    assistant: AssistantOption = None,
    assistant_domain: DomainOption = None,
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
    force: Annotated[bool, typer.Option("--force", help="Start an unfinished training again from nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """A folder of text to a chat model: import, clean, split, train, evaluate, report."""
    settings, origins = _settings(
        config, set, map, format, recipe, base=base, method=method, epochs=epochs, minutes=minutes, seed=seed,
        system=system, assistant=assistant, assistant_domain=assistant_domain,
    )  # fmt: skip
    from ownchat.pipeline import run

    start = time.monotonic()
    outcome = run.train(source, name=name, config=settings, origins=origins, force=force)
    _show(outcome, start, as_json=json)


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(help="A finished run.")],
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a finished run again on its held-out data."""
    from ownchat import artifacts
    from ownchat.pipeline import run

    if other := [text for text in set or () if not text.startswith("evaluate.")]:
        raise ConfigError(f'"{other[0]}" would change the model', where="--set", fix="only evaluate.* counts here")
    settings, _ = load_config(artifacts.existing_run(name) / "config.yaml", sets=set or ())
    start = time.monotonic()
    _show(run.evaluate(name, config=settings), start, as_json=json)


@app.command()
def chat(
    name: Annotated[str, typer.Argument(help="A run, or a model directory.")],
    prompt: Annotated[str | None, typer.Option(help='Answer this and end; "-" reads standard input.')] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Base and tuned, one after the other.")] = False,
    system: Annotated[str | None, typer.Option("--system", help="System message in place of the run's own.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: always the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the likeliest up to this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Drop tokens below this share of the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: repeat less.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text.")] = None,
    set: SetOption = None,
) -> None:
    """Talk to a model in the terminal."""
    from ownchat import artifacts
    from ownchat.generate.chat import chat as talk

    sampling = {
        "max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed, "stop": stop,
    }  # fmt: skip
    run = artifacts.run_directory(name)
    path = Path(name).expanduser() if not run.is_dir() and Path(name).is_dir() else artifacts.existing_run(name)
    stored = path / "config.yaml"
    values = {f"generate.{key}": value for key, value in sampling.items()}
    settings, _ = load_config(stored if stored.is_file() else None, values=values, sets=set or ())
    talk(
        path, settings=settings.generate, compare=compare, prompt=prompt, system=system, threads=settings.train.threads
    )


runs_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, help="The runs of this machine.")
app.add_typer(runs_app, name="runs")


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
        _print_json([asdict(run) for run in found])
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
        _print_json([asdict(place) for place in places])
    else:
        typer.echo("\n".join(of_machine.found_lines(places)))


@runs_app.command("purge-raw")
def purge_raw(name: Annotated[str, typer.Argument(help="A run that is cleaned.")]) -> None:
    """Remove a run's text as it came, what cleaning dropped and its preview; model, cleaned text and report stay."""
    from ownchat.pipeline import runs as of_machine

    typer.echo(f"{name}: raw and dropped text removed, {of_machine.purge_raw(name) / 1e6:,.1f} MB freed")


@app.command()
def doctor() -> None:
    """What this machine is and what it can do."""
    from ownchat.pipeline.doctor import examine

    for what, finding in examine():
        typer.echo(f"{what:<13} {finding}")


@app.command()
def demo(set: SetOption = None, json: JsonOption = False) -> None:
    """Train on a real company's questions and answers, and compare."""
    from ownchat.pipeline import demo as example
    from ownchat.pipeline import run

    start = time.monotonic()
    typer.echo(example.ATTRIBUTION)
    folder = example.demo_folder()
    settings, origins = load_config(values={"data.system": example.SYSTEM}, sets=set or ())
    outcome = run.train(folder, name=example.NAME, config=settings, origins=origins)
    _show(outcome, start, as_json=json)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"ownchat {__version__}")
        raise typer.Exit


def main() -> None:
    """The program: errors become messages and exit codes here and nowhere else."""
    os.umask(0o077)  # what is written here holds people's text: for its owner alone
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries among each other: nothing to do for us
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 must not end an hour's work
    signal.signal(signal.SIGTERM, _terminate)  # stages that save something on the way have handlers of their own
    with _exit_codes():
        app()


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        typer.echo(f"ownchat: {error}", err=True)
        sys.exit(2)
    except Interrupted as error:
        typer.echo(f"\nownchat: {error}", err=True)
        sys.exit(130)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 130:  # 130: Typer met a Ctrl-C and said nothing
            raise
        typer.echo("\nownchat: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `ownchat runs | head`: the reader left, and that is fine
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno is None:  # not the machine's, but a library's
            raise
        from ownchat import artifacts

        typer.echo(f"ownchat: {system_error(error, where=str(artifacts.home_path()))}", err=True)
        sys.exit(2)


def _terminate(*_: object) -> None:
    raise Interrupted("ended by a signal; the same command goes on or begins again")


def _settings(
    path: Path | None, sets: list[str] | None, maps: list[str] | None, formats: list[str] | None,
    recipe: Path | None, **flags: Any,
) -> tuple[Config, Origins]:  # fmt: skip
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
    return load_config(path, sets=sets or (), values=values, recipe=accepted)


def _first_stages(
    source: str, name: str | None, settings: Config, origins: Origins, *, clean: bool, to: str | None = None,
    as_json: bool = False,
) -> None:  # fmt: skip
    from ownchat import artifacts
    from ownchat.pipeline import run

    made = run.import_and_clean(source, name=name, config=settings, origins=origins, clean=clean, to=to)
    typer.echo(f"written to {made}")
    typer.echo(f"to go on: ownchat train {shlex.quote(printable(source))}" + (f" --name {name}" if name else ""))
    if as_json:
        _print_json(artifacts.read_json(made / artifacts.IMPORT / artifacts.MANIFEST))


def _show(outcome: Any, start: float, *, as_json: bool) -> None:
    from ownchat.evaluate.summary import summary
    from ownchat.pipeline.run import elapsed

    if not outcome.worked:
        typer.echo(f"nothing to do: run {outcome.run.name} was made from this data with these settings")
    terminal = sys.stdout.isatty()
    typer.echo("")
    typer.echo(summary(outcome.report, color=terminal and "NO_COLOR" not in os.environ), nl=False)
    typer.echo(f"\nall in {elapsed(start)}")
    if as_json:
        _print_json(outcome.report)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))
