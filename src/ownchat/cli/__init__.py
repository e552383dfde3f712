"""The command line: commands in pipeline order, each a few lines around a function of the library.

A person's mistake is one message and exit code 2; an interrupt is 130; nothing heavy is imported for ``--help``.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ownchat import __version__
from ownchat.cli import (
    benchmark,
    ending,
    export,
    keys,
    ladder,
    machine,
    migrate,
    prompt,
    records,
    serve,
    stages,
    sweep,
    talk,
    tokenizer,
)
from ownchat.errors import Interrupted, UserError, system_error

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The text you already have, turned into a chat model of your own.",
)
app.command("import")(stages.import_)
app.command()(stages.clean)
app.command()(stages.plan)
app.command()(stages.train)
app.command()(sweep.sweep)
app.command()(stages.evaluate)
app.command()(ladder.ladder)
app.command()(benchmark.benchmark)
app.command()(talk.chat)
app.command()(serve.serve)
app.command()(export.export)
app.command()(machine.compare)
app.command()(machine.doctor)
app.command()(stages.demo)
app.add_typer(tokenizer.tokenizer_app, name="tokenizer")
app.add_typer(prompt.prompt_app, name="prompt")
app.add_typer(machine.runs_app, name="runs")
app.add_typer(keys.keys_app, name="keys")
app.add_typer(records.records_app, name="records")
app.add_typer(migrate.migrate_app, name="migrate")


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
    ending.listen()
    try:
        with _exit_codes():
            app()
    except (KeyboardInterrupt, Interrupted):  # a signal in the middle of what is said below
        sys.exit(ending.CODE)
    finally:
        ending.quietly()


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts one says it
            typer.echo(f"ownchat: {error}", err=True)
        sys.exit(2)
    except Interrupted as error:
        ending.quietly()
        typer.echo(f"\nownchat: {error}", err=True)
        sys.exit(ending.CODE)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != ending.CODE:  # 130: Typer met a Ctrl-C and said nothing
            raise
        ending.quietly()
        typer.echo("\nownchat: interrupted", err=True)
        sys.exit(ending.CODE)
    except BrokenPipeError:  # `ownchat runs | head`: the reader left, and that is fine
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno is None:  # not the machine's, but a library's
            raise
        from ownchat import artifacts

        typer.echo(f"ownchat: {system_error(error, where=str(artifacts.home_path()))}", err=True)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:  # while a model is loaded or saved: a training step is rescued
        if not _ran_out_of_memory(error):
            raise
        typer.echo(
            "ownchat: memory ran out\nWhat to do: a smaller base model, --method lora, or a machine with more memory; "
            "ownchat plan says how much is needed",
            err=True,
        )
        sys.exit(2)


def _ran_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from ownchat.model.out_of_memory import is_out_of_memory

    return is_out_of_memory(error)
