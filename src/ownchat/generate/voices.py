"""Who answers in a chat: engines of a run, of its base, and of a model behind a URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ownchat.errors import UserError
from ownchat.generate.backend import Backend, Parts, open_engine, parts_of
from ownchat.generate.engine import BASE, Engine
from ownchat.generate.locate import Located
from ownchat.generate.openai import OpenAIEngine, parse_model

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Voice:
    """Who answers: a name to show, an engine, and what it does with its adapter."""

    label: str
    engine: Engine
    adapter: str | None = None


@contextmanager
def voices(
    found: Located | None, model: str | None, compare: bool, engine_name: Backend, dtype: str, threads: int | None
) -> Iterator[tuple[list[Voice], Callable[[Messages], int], int | None]]:
    """Engines for the session; base and tuned share one copy of the weights where there is an adapter."""
    behind: list[Voice] = []
    if model is not None:
        server = OpenAIEngine(*parse_model(model))
        behind = [Voice(server.model, server)]  # asks the server where no model is named
    if found is None:
        if compare:
            raise UserError("nothing to compare with", where=str(model), fix="ownchat chat RUN --model URL --compare")
        try:
            yield behind, lambda messages: 0, None
        finally:
            behind[0].engine.close()
        return
    from ownchat.tokenizer.render import prompt_ids

    options: dict[str, Any] = {"backend": engine_name, "dtype": dtype, "threads": threads}
    if not compare or behind:
        engine = open_engine(replace(parts_of(found), merged=found.model), **options)
        made = [*behind, Voice("tuned" if behind else "answer", engine)]
    elif found.base is None or not found.base.is_dir():
        raise UserError(
            "its base is not known or gone, so there is nothing to compare with", where=str(found.model),
            fix="--compare works with the result of ownchat train",
        )  # fmt: skip
    elif found.adapter is not None:
        engine = open_engine(parts_of(found), **options)
        made = [Voice("base", engine, BASE), Voice("tuned", engine)]
    else:
        base, engine = (open_engine(Parts(model), **options) for model in (found.base, found.model))
        made = [Voice("base", base), Voice("tuned", engine)]
    try:
        yield made, lambda messages: len(prompt_ids(engine.tokenizer, messages)), engine.context
    finally:
        for voice in made:
            voice.engine.close()
