"""``ownchat prompt``: prompts as versioned files, tried, compared on held-out rows, and searched."""

from __future__ import annotations

from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ownchat.cli.options import JsonOption, print_json
from ownchat.errors import ConfigError, printable

if TYPE_CHECKING:
    from ownchat.evaluate.scores import Interval

prompt_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Prompts of your own: keep, try, compare and improve them."
)

PromptArgument = Annotated[str, typer.Argument(help="A prompt: NAME, NAME@2, or ./file.yaml.", metavar="PROMPT")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="A run, a directory, or http://host:8000/v1#name; none: the run's base.")
]
VariableOption = Annotated[
    list[str] | None, typer.Option("--var", help="Value of a variable: --var company=Acme", metavar="NAME=VALUE")
]
RunOption = Annotated[str, typer.Option("--run", help="The run whose rows are used.", metavar="RUN")]
METRICS = {"chrf": "chrF", "rouge_l": "ROUGE-L", "exact": "exact match, %", "accuracy": "accuracy, %"}


@prompt_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="A name; one that exists gets its next version.")],
    system: Annotated[str | None, typer.Option("--system", help="The system text; {{name}} is a variable.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A prompt as YAML, or its system text.")] = None,
    var: VariableOption = None,
    note: Annotated[str | None, typer.Option("--note", help="Why, for the file.")] = None,
    json: JsonOption = False,
) -> None:
    """Keep a prompt as a new version."""
    from ownchat.generate import prompts
    from ownchat.pipeline import prompts as work

    made = work.new(name, system=system, file=file, variables=variables(var), note=note)
    path = prompts.path_of(name, made.version or 0)
    typer.echo(f"{made.label}  {path}")
    typer.echo(f"to try it: ownchat prompt try {made.label} 'YOUR QUESTION'")
    if json:
        print_json({"prompt": made.label, "version": made.version, "file": str(path)})


@prompt_app.command("list")
def list_(json: JsonOption = False) -> None:
    """All prompts that are kept."""
    from dataclasses import asdict

    from ownchat.pipeline import prompts as work

    kept = work.kept()
    if not kept:
        typer.echo("no prompt is kept yet: ownchat prompt new NAME --system TEXT")
    for one in kept:
        examples = one.examples + one.retrieve
        shown = f"{examples} example{'' if examples == 1 else 's'}, " if examples else ""
        text = "the conversation's own system text" if one.system is None else " ".join(one.system.split())
        text = text or "no system text"
        count = f"{len(one.versions)} version{'' if len(one.versions) == 1 else 's'}"
        typer.echo(printable(f"{one.name}  {count}  {shown}{_short(text)}"))
    if json:
        print_json([asdict(one) for one in kept])


@prompt_app.command("show")
def show(name: PromptArgument, json: JsonOption = False) -> None:
    """The file of a prompt."""
    from dataclasses import asdict

    from ownchat.generate import prompts
    from ownchat.pipeline import prompts as work

    text = work.text_of(name)
    typer.echo(printable(text), nl=not text.endswith("\n"))
    if json:
        print_json(asdict(prompts.load(name)))


@prompt_app.command("diff")
def diff(first: PromptArgument, second: PromptArgument, json: JsonOption = False) -> None:
    """What differs between two prompts."""
    from ownchat.pipeline import prompts as work

    lines = work.changes(first, second)
    typer.echo(printable("\n".join(lines)) if lines else "they say the same")
    if json:
        print_json({"first": first, "second": second, "lines": lines})


@prompt_app.command("try")
def try_(
    name: PromptArgument,
    question: Annotated[str, typer.Argument(help="What a person asks.")],
    model: Annotated[
        str, typer.Option("--model", help="A run, a directory, starter, or http://host:8000/v1#name.")
    ] = "starter",
    var: VariableOption = None,
    run: Annotated[str | None, typer.Option("--run", help="In whose train split examples are looked up.")] = None,
    json: JsonOption = False,
) -> None:
    """The answer to one question."""
    from dataclasses import asdict

    from ownchat.pipeline import prompts as work

    done = work.attempt(name, question, model=model, variables=variables(var), run=run)
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(printable(done.answer))
    typer.echo(f"({done.model}, {done.seconds:.1f} s, {done.prompt_tokens:,} tokens of prompt)", err=True)
    if json:
        print_json(asdict(done))


@prompt_app.command("compare")
def compare(
    first: PromptArgument,
    second: PromptArgument,
    run: RunOption,
    model: ModelOption = None,
    rows: Annotated[int, typer.Option("--rows", help="Held-out questions at most.", min=1)] = 32,
    var: VariableOption = None,
    json: JsonOption = False,
) -> None:
    """Two prompts on the same held-out rows of a run, with the interval of the difference."""
    from dataclasses import asdict

    from ownchat.pipeline import prompt_search as work

    done = work.compare((first, second), run=run, model=model, rows=rows, variables=variables(var))
    typer.echo(f"{done.rows} held-out rows of {run}, answered by {done.model}; {METRICS[done.metric]}, 95 % intervals")
    each = zip(done.prompts, (done.first, done.second), done.seconds_per_answer, done.prompt_tokens, strict=True)
    for label, found, seconds, tokens in each:
        typer.echo(f"  {label}: {_interval(found)}  ({seconds:.2f} s an answer, {tokens:,.0f} tokens of prompt)")
    typer.echo(f"  difference: {_interval(done.difference, sign='+')}")
    typer.echo(done.verdict)
    if any(done.failed):
        typer.echo(f"no answer: {done.failed[0]} and {done.failed[1]} rows; these are in no figure")
    for sample in done.samples:
        typer.echo("")
        texts = (
            ("question", "question"),
            ("reference", "right"),
            ("first", done.prompts[0]),
            ("second", done.prompts[1]),
        )
        for key, title in texts:
            typer.echo(printable(f"  {title}: {_short(sample[key], 300)}"))
    if json:
        print_json(asdict(done))


@prompt_app.command("optimise")
def optimise(
    name: PromptArgument,
    run: RunOption,
    model: ModelOption = None,
    budget: Annotated[int, typer.Option("--budget", help="Answers that are asked for at most.")] = 200,
    proposer: Annotated[
        str | None, typer.Option("--proposer", help="A model that writes instructions, as for --model.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the rows and the examples.")] = 0,
    json: JsonOption = False,
) -> None:
    """Search instructions and examples on the train split; the best is kept as a new version."""
    from ownchat.pipeline import prompt_search as work

    found, kept, label = work.optimise(name, run=run, model=model, budget=budget, proposer=proposer, seed=seed)
    typer.echo(f"{len(found.tried)} prompts tried with {label}, {found.asked} answers asked, {found.failed} failed")
    typer.echo(f"{METRICS[found.metric]} on questions of the train split:")
    for line in work.tried_lines(found):
        typer.echo(f"  {line}")
    typer.echo(f"on {found.rows} questions the start has {_interval(found.start)}, the best {_interval(found.best)}")
    if kept is None:
        typer.echo(f"nothing was better than {name}: no version is made")
    else:
        start = found.tried[0].prompt.label
        typer.echo(f"kept as {kept.label}; it was chosen on these questions, so see what it is worth on held-out rows:")
        command = ["ownchat", "prompt", "compare", start, kept.label, "--run", run]
        typer.echo(f"  {join([*command, '--model', model] if model else command)}")
    if json:
        print_json(work.as_json(found, kept, label))


def variables(given: list[str] | None) -> dict[str, str]:
    """Of ``--var NAME=VALUE``; raises :class:`~ownchat.errors.ConfigError` for what is no such pair."""
    values = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier():
            raise ConfigError(f'"{text}"', where="--var", fix="write --var NAME=VALUE")
        values[name] = value
    return values


def _interval(found: Interval | None, sign: str = "") -> str:
    return "-" if found is None else f"{found.value:{sign}.1f} ({found.low:{sign}.1f} to {found.high:{sign}.1f})"


def _short(text: Any, most: int = 60) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."
