"""Talking to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ownchat.cli.options import SetOption
from ownchat.config import load_config


def chat(
    name: Annotated[str | None, typer.Argument(help="A run, or a model directory.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="One behind a URL: http://host:8000/v1#name", metavar="URL#NAME")
    ] = None,
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
    engine: Annotated[Literal["auto", "hf", "llamacpp"], typer.Option(help="What computes.")] = "auto",
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text.")] = None,
    set: SetOption = None,
) -> None:
    """Talk to a model in the terminal."""
    from ownchat import artifacts
    from ownchat.generate.chat import chat as talk
    from ownchat.pipeline import runs

    sampling = {
        "max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed, "stop": stop,
    }  # fmt: skip
    path = None
    if name is not None:
        run = artifacts.run_directory(name)
        path = Path(name).expanduser() if not run.is_dir() and Path(name).is_dir() else artifacts.existing_run(name)
    if path is not None and (warning := runs.not_promoted(path)) is not None:
        typer.echo(f"ownchat: {warning}", err=True)
    stored = path / "config.yaml" if path is not None and (path / "config.yaml").is_file() else None
    values = {f"generate.{key}": value for key, value in sampling.items()}
    settings, _ = load_config(stored, values=values, sets=set or ())
    talk(
        path, model=model, config=settings, compare=compare, prompt=prompt, system=system,
        engine=engine, threads=settings.train.threads,
    )  # fmt: skip
