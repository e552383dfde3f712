"""The pipeline's commands, in its order: each a few lines around a function of the library."""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import Annotated, Any

import typer

from ownchat.cli.options import (
    AssistantOption,
    BaseOption,
    ConfigOption,
    DomainOption,
    EpochsOption,
    FormatOption,
    JsonOption,
    MapOption,
    MethodOption,
    MinutesOption,
    NameOption,
    RecipeOption,
    SeedOption,
    SetOption,
    SizeOption,
    SourceArgument,
    SystemOption,
    print_json,
    read_settings,
)
from ownchat.config import Config, Origins, load_config
from ownchat.data.remote import existing
from ownchat.errors import ConfigError, printable


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
    settings, origins = read_settings(config, set, map, format, None, system=system, **who)
    if preview and json:
        from ownchat.data.preview import preview as look

        print_json(look(settings, existing(source), rows))
        return
    if preview:
        from rich.console import Console

        from ownchat.pipeline.preview import show_preview

        show_preview(settings, existing(source), Console(highlight=False), rows=rows)
        return
    _first_stages(source, name, settings, origins, clean=False, as_json=json)


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
    settings, origins = read_settings(config, set, map, format, recipe, system=system, **who)
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


def plan(
    source: SourceArgument,
    name: NameOption = None,
    base: BaseOption = None,
    size: SizeOption = None,
    method: MethodOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    seed: SeedOption = None,
    system: SystemOption = None,
    map: MapOption = None,
    format: FormatOption = None,
    assistant: AssistantOption = None,
    assistant_domain: DomainOption = None,
    recipe: RecipeOption = None,
    device: Annotated[str | None, typer.Option("--device", help="Another machine: h100, a100, ...")] = None,
    count: Annotated[int, typer.Option("--count", help="So many of them.", min=1)] = 1,
    price: Annotated[float | None, typer.Option("--price", help="Money for one device and hour.", min=0)] = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Measure three steps on this machine.")] = True,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """What training would take: memory, time, tokens, money. Trains nothing."""
    settings, origins = read_settings(
        config, set, map, format, recipe, base=base, size=size, method=method, epochs=epochs, minutes=minutes,
        seed=seed, system=system, assistant=assistant, assistant_domain=assistant_domain,
    )  # fmt: skip
    from ownchat.pipeline import planning

    found = planning.plan(
        source, name=name, config=settings, origins=origins, device=device, count=count, price=price, probe=probe
    )
    typer.echo("")
    typer.echo("\n".join(planning.lines(found)))
    if json:
        print_json(found.as_json())


def train(
    source: SourceArgument,
    name: NameOption = None,
    base: BaseOption = None,
    size: SizeOption = None,
    method: MethodOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    seed: SeedOption = None,
    system: SystemOption = None,
    map: MapOption = None,
    format: FormatOption = None,
    assistant: AssistantOption = None,
    assistant_domain: DomainOption = None,
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
    force: Annotated[bool, typer.Option("--force", help="Start an unfinished training again from nothing.")] = False,
    on: Annotated[
        str | None, typer.Option("--on", help="A service trains: https://api.openai.com/v1#MODEL", metavar="URL#MODEL")
    ] = None,
    price: Annotated[
        float | None, typer.Option("--price", help="With --on: money for a million training tokens.", min=0)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --on: send it without asking.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="With --on: end the job there.")] = False,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="With --on: also a URL without TLS.")] = False,
    json: JsonOption = False,
) -> None:
    """A folder of text to a chat model: import, clean, split, train, evaluate, report."""
    settings, origins = read_settings(
        config, set, map, format, recipe, base=base, size=size, method=method, epochs=epochs, minutes=minutes,
        seed=seed, system=system, assistant=assistant, assistant_domain=assistant_domain,
    )  # fmt: skip
    start = time.monotonic()
    if on is not None:
        from ownchat.pipeline import hosted

        place: dict[str, Any] = {"on": on, "name": name, "config": settings, "origins": origins, "say": typer.echo}
        place["allow_http"] = allow_http
        if force:
            raise ConfigError(
                "a service begins anew by itself where that is needed", where="--force", fix="leave it out"
            )
        if cancel:
            hosted.cancel(source, **place)
            return
        again = shlex.join(["ownchat", *(printable(word) for word in sys.argv[1:])])
        made = hosted.train(source, **place, price=price, yes=yes, again=again)
        if made is None:  # somebody said no
            raise typer.Exit(1)
        _show(made, start, as_json=json)
        return
    flags = {"--price": price is not None, "--yes": yes, "--cancel": cancel, "--allow-http": allow_http}
    if unused := [flag for flag, given in flags.items() if given]:
        raise ConfigError(f"{unused[0]} means nothing without a service", where="train", fix="add --on URL#MODEL")
    from ownchat.pipeline import run

    outcome = run.train(source, name=name, config=settings, origins=origins, force=force)
    _show(outcome, start, as_json=json)


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
    settings, origins = load_config(artifacts.existing_run(name) / "config.yaml", sets=set or ())
    start = time.monotonic()
    _show(run.evaluate(name, config=settings, origins=origins), start, as_json=json)


def demo(set: SetOption = None, json: JsonOption = False) -> None:
    """Train on a real company's questions and answers, and compare."""
    from ownchat.pipeline import demo as example
    from ownchat.pipeline import run

    start = time.monotonic()
    typer.echo(example.ATTRIBUTION)
    folder = example.demo_folder()
    values = {"data.system": example.SYSTEM, "evaluate.card": example.CARD}
    settings, origins = load_config(values=values, sets=set or ())
    outcome = run.train(folder, name=example.NAME, config=settings, origins=origins)
    _show(outcome, start, as_json=json)


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
        print_json(artifacts.read_json(made / artifacts.IMPORT / artifacts.MANIFEST))


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
        print_json(outcome.report)
    if (outcome.report.get("gates") or {}).get("passed") is False:
        raise typer.Exit(1)  # for a script: done, and not good enough; 2 is a mistake
