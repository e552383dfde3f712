"""Serving models behind OpenAI's API."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ownchat.errors import ConfigError

DatabaseOption = Annotated[
    str | None,
    typer.Option(help="postgresql://USER:PASSWORD@HOST/NAME; none: SQLite in the home.", envvar="OWNCHAT_DATABASE"),
]


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any that is free.")] = 8000,
    database: DatabaseOption = None,
    engine: Annotated[Literal["auto", "hf", "llamacpp"], typer.Option(help="What computes.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Cores that compute; none: all but one.")] = None,
    slots: Annotated[int, typer.Option(help="Answers made at the same time.")] = 4,
    memory: Annotated[float | None, typer.Option(help="For loaded models; none: half of it.", metavar="GB")] = None,
    upstream: Annotated[
        list[str] | None, typer.Option(help="A model of another server, a vLLM for example.", metavar="NAME=URL#MODEL")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse fields that are not known.")] = False,
    queue: Annotated[int, typer.Option(help="Requests that may wait.")] = 64,
    queue_tokens: Annotated[int, typer.Option(help="Tokens of the requests that may wait.")] = 200_000,
    requests_per_minute: Annotated[int | None, typer.Option("--rpm", help="Of each key; none: no limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option("--tpm", help="Of each key; none: no limit.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds for an answer, its wait included.")] = 600,
    drain: Annotated[float, typer.Option(help="Seconds for what runs, after SIGTERM.")] = 30,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name that clients know this server by; *.example.org works, too.")
    ] = None,
    cors: Annotated[list[str] | None, typer.Option(help="Origin of web pages that may ask.", metavar="ORIGIN")] = None,
    metrics: Annotated[bool, typer.Option(help="Figures at /metrics, for keys with that scope.")] = True,
    retention: Annotated[int, typer.Option(help="Days that stored answers are kept; 0: for ever.")] = 30,
    store: Annotated[bool, typer.Option("--store", help="Store answers unless a request says no.")] = False,
    webhook: Annotated[
        list[str] | None, typer.Option(help="Told how jobs end.", metavar="URL", envvar="OWNCHAT_WEBHOOKS")
    ] = None,
) -> None:
    """Serve this machine's models behind OpenAI's API."""
    from ownchat import artifacts
    from ownchat.serve.settings import Settings

    settings = Settings(
        home=artifacts.home(), host=host, port=port, database=database, engine=engine, threads=threads, slots=slots,
        memory_bytes=None if memory is None else int(memory * 1e9), upstreams=dict(map(_upstream, upstream or ())),
        strict=strict, queue=queue, queue_tokens=queue_tokens, requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute, deadline_seconds=deadline, drain_seconds=drain,
        allowed_hosts=tuple(allow_host or ()), cors_origins=tuple(cors or ()), metrics=metrics,
        retention_days=retention or None, store_default=store, webhooks=tuple(dict.fromkeys(webhook or ())),
    )  # fmt: skip
    from ownchat.serve.server import start  # loads much: a wrong option is said before

    start(settings, typer.echo)


def _upstream(text: str) -> tuple[str, str]:
    name, equals, target = text.partition("=")
    if not equals:
        raise ConfigError("not a name and its server", where=text, fix="give NAME=http://HOST:PORT/v1#MODEL")
    return name, target
