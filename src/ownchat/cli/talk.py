"""Talking to a model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ownchat.cli.options import SetOption
from ownchat.cli.prompt import VariableOption, variables
from ownchat.config import load_config
from ownchat.errors import ConfigError


def chat(
    name: Annotated[str | None, typer.Argument(help="A run, or a model directory.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="One behind a URL: http://host:8000/v1#name", metavar="URL#NAME")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help='Answer this and end; "-" reads standard input.')] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Base and tuned, one after the other.")] = False,
    system: Annotated[str | None, typer.Option("--system", help="System message in place of the run's own.")] = None,
    with_: Annotated[
        str | None, typer.Option("--with", help="A prompt of yours: NAME, NAME@2 or ./file.yaml.", metavar="PROMPT")
    ] = None,
    var: VariableOption = None,
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
    from ownchat.generate.prompts import load
    from ownchat.pipeline import prompts, runs

    sampling: dict[str, Any] = {
        "max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed, "stop": stop,
    }  # fmt: skip
    path = None
    if name is not None:
        run = artifacts.run_directory(name)
        path = Path(name).expanduser() if not run.is_dir() and Path(name).is_dir() else artifacts.existing_run(name)
    if path is not None and (warning := runs.not_promoted(path)) is not None:
        typer.echo(f"ownchat: {warning}", err=True)
    kept = look_up = None
    if with_ is not None:
        kept = prompts.with_variables(load(with_), variables(var))
        sampling = {key: kept.parameters.get(key) if value is None else value for key, value in sampling.items()}
        look_up = prompts.finder(kept, name if name is not None and artifacts.run_directory(name).is_dir() else None)
        if kept.retrieve and look_up is None:
            typer.echo(f"ownchat: {prompts.not_looked_up(kept)}", err=True)
    elif var:
        raise ConfigError("there is no prompt with variables", where="--var", fix="give one: --with PROMPT")
    stored = path / "config.yaml" if path is not None and (path / "config.yaml").is_file() else None
    values = {f"generate.{key}": value for key, value in sampling.items()}
    settings, _ = load_config(stored, values=values, sets=set or ())
    if path is not None and model is None and artifacts.is_hosted(path) and (job := artifacts.hosted_job(path)):
        if compare:
            fix = f"ask its base in another window: ownchat chat --model {shlex.quote(job['url'] + '#' + job['base'])}"
            raise ConfigError(f"both models are at {job['host']}", where="--compare", fix=fix)
        if system is None and (kept is None or kept.system is None):
            system = settings.data.system
        path, model = None, f"{job['url']}#{job['tuned']}"
    talk(
        path, model=model, config=settings, compare=compare, prompt=prompt, system=system, kept=kept, look_up=look_up,
        engine=engine, threads=settings.train.threads,
    )  # fmt: skip
