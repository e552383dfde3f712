"""``generate.prompt``: a run that is trained and used with the system text of a prompt."""

from __future__ import annotations

from pathlib import Path

from ownchat import artifacts
from ownchat.config import Config, Origins, with_derived
from ownchat.errors import ConfigError
from ownchat.generate import prompts
from ownchat.pipeline.lines import counted

FILE = "prompt.yaml"  # of a run: the prompt as it was then


def with_prompt(config: Config, origins: Origins) -> tuple[Config, Origins]:
    """The configuration with the prompt's system text as ``data.system``, and the version that was taken.

    What a run depends on is then the text: a later version of the prompt does not change it. Done twice it changes
    nothing more. Raises :class:`~ownchat.errors.ConfigError` for a prompt that is not there or has no system text, a
    variable without a value, and a ``data.system`` that says something else.
    """
    if config.generate.prompt is None:
        return config, origins
    prompt = prompts.load(config.generate.prompt)
    text = prompts.system_text(prompt)
    if text is None:
        raise ConfigError("the prompt has no system text to train with", where="generate.prompt", fix="choose another")
    if config.data.system is not None and config.data.system != text:
        raise ConfigError(
            f"data.system and the prompt {prompt.label} say different things", where="generate.prompt",
            fix="give one of them; data.system alone is enough for a run whose prompt is gone",
        )  # fmt: skip
    if (config.data.system, config.generate.prompt) == (text, prompt.label):
        return config, origins
    taken = prompt.label if prompt.version is not None else str(Path(config.generate.prompt).expanduser().resolve())
    derived = {"data.system": (text, f"the prompt {taken}")}
    if taken != config.generate.prompt:
        derived["generate.prompt"] = (taken, f"what {config.generate.prompt} was")
    return with_derived(config, origins, derived)


@artifacts.owner_only()
def keep_prompt(config: Config, run: Path) -> str | None:
    """Copy the prompt into the run; returns what a person should know of it, if there is something."""
    if config.generate.prompt is None:
        return None
    prompt = prompts.load(config.generate.prompt)
    artifacts.write_atomic(run / FILE, prompts.to_yaml(prompt))
    left_out = [
        counted(len(prompt.examples), "example") if prompt.examples else "",
        f"the {prompt.retrieve} examples that it looks up" if prompt.retrieve else "",
        "its parameters" if prompt.parameters else "",
    ]
    named = " and ".join(part for part in left_out if part)
    return f"of the prompt {prompt.label} the system text is trained with, not {named}" if named else None
