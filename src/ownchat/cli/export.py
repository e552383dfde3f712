"""A finished model for another program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ownchat.cli.options import JsonOption, print_json


def export(
    name: Annotated[str, typer.Argument(help="A run, or a model directory (then with --out).")],
    to: Annotated[str, typer.Option("--to", help="gguf, ollama, vllm or hub.")] = "gguf",
    type: Annotated[str, typer.Option("--type", help="Of GGUF and Ollama: f16, q8_0, q4_1 or q4_k_m.")] = "f16",
    out: Annotated[Path | None, typer.Option("--out", help="Folder; none: 7-export of the run.", metavar="DIR")] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="The LoRA adapter, not merged into its base.")] = False,
    prompts: Annotated[int, typer.Option("--prompts", help="Prompts that are compared with the model.", min=1)] = 8,
    repo: Annotated[
        str | None, typer.Option("--repo", help="On the hub; none: the run's name.", metavar="NAME")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository on the hub that all can read.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also a run that does not meet its requirements.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a model for llama.cpp, Ollama, vLLM or the Hugging Face hub; it is run there and compared first."""
    from dataclasses import asdict

    from ownchat.errors import UserError
    from ownchat.pipeline import export as exporting

    if to == "hub":
        from ownchat.pipeline import hub

        repo = hub.target_of(repo, exporting.source_of(name).name)  # without a token no work is begun
    done = exporting.export(
        name, to, kind=type, out=out, adapter=adapter, prompts=prompts, force=force,  # type: ignore[arg-type]
        say=typer.echo,
    )  # fmt: skip
    typer.echo(f"{done.path}  {done.num_bytes / 1e6:,.1f} MB")
    typer.echo(done.parity)
    if to == "hub" and repo is not None:
        for file, size in hub.files_of(done.path):
            typer.echo(f"  {file}  {size / 1e6:,.1f} MB")
        whom = "that all can read" if public else "that is private"
        if not yes and not sys.stdin.isatty():
            raise UserError("nobody is here to ask", where=f"upload to {repo}", fix="look at the files, then add --yes")
        if not yes and not typer.confirm(f"Upload these files to {repo}, a repository {whom}?"):
            typer.echo("nothing was uploaded")
            return
        typer.echo(hub.upload(done.path, repo, private=not public))
    else:
        for command in done.commands:
            typer.echo(f"$ {command}")
    if json:
        print_json(asdict(done))
