"""The command that tries settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

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
    NameOption,
    RecipeOption,
    SeedOption,
    SourceArgument,
    SystemOption,
    print_json,
    read_settings,
)
from ownchat.config import Config, Origins
from ownchat.errors import ConfigError

TriedOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Values to try: train.learning_rate=5e-4,1e-3 or (optuna) 1e-4..1e-2:log.",
                 metavar="KEY=VALUES"),
]  # fmt: skip


def sweep(
    source: SourceArgument,
    set: TriedOption = None,
    sampler: Annotated[str, typer.Option("--sampler", help="grid or optuna.")] = "grid",
    trials: Annotated[int | None, typer.Option("--trials", help="Settings to try at most.", min=2)] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Time for all of it.", min=0.001)] = None,
    halving: Annotated[bool, typer.Option("--halving/--no-halving", help="Train only the better ones on.")] = True,
    name: NameOption = None,
    base: BaseOption = None,
    method: MethodOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    system: SystemOption = None,
    map: MapOption = None,
    format: FormatOption = None,
    assistant: AssistantOption = None,
    assistant_domain: DomainOption = None,
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Try settings on the validation split and keep the best; see docs/sweep.md."""
    if sampler not in ("grid", "optuna"):
        raise ConfigError(f'"{sampler}" is no sampler', where="--sampler", fix="grid or optuna")

    def configure(sets: Sequence[str]) -> tuple[Config, Origins]:
        return read_settings(
            config, list(sets), map, format, recipe, base=base, method=method, epochs=epochs, seed=seed,
            system=system, assistant=assistant, assistant_domain=assistant_domain,
        )  # fmt: skip

    configure(())  # what is wrong with the flags is said before torch is loaded
    from dataclasses import asdict

    from ownchat.pipeline import sweep as sweeping

    outcome = sweeping.sweep(
        source, set or (), name=name, sampler="optuna" if sampler == "optuna" else "grid", trials=trials,
        minutes=minutes, halving=halving, configure=configure,
    )  # fmt: skip
    typer.echo("")
    typer.echo("\n".join(sweeping.lines(outcome)))
    if json:
        print_json(asdict(outcome))
