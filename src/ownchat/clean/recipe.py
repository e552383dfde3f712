"""The recipe: the ``clean:`` section of the settings in a file of its own, to be accepted once and used again.

The same recipe on the same data gives the same bytes. What a step does may change with a version of ownchat; then
:data:`VERSION` rises, and a recipe of another version is refused instead of doing something else than it did.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ownchat.artifacts import stage_key, write_atomic
from ownchat.config import CleanConfig, Config, check_values
from ownchat.data.remote import Source, existing
from ownchat.errors import ConfigError, nearest

VERSION = 1


def write_recipe(path: Path, config: CleanConfig) -> None:
    """Write every setting of cleaning, defaults too: a default that changes later does not change the recipe."""
    content = {"recipe": VERSION, "clean": config.model_dump(mode="json")}
    write_atomic(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe as ``{"clean.key": value}``, for ``recipe`` of :func:`~ownchat.config.load_config`.

    Raises :class:`~ownchat.errors.ConfigError` for a file that is no recipe, for one of another version, and for one
    whose settings are not all there, unknown or out of range: then it is not what was accepted.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("there is no such recipe", where=str(path), fix="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(
            f"not readable as YAML: {error}", where=str(path), fix="make it anew with --preview"
        ) from error
    if not isinstance(loaded, dict) or "recipe" not in loaded or not isinstance(loaded.get("clean"), dict):
        raise ConfigError(
            "this is no recipe: it needs a line recipe: and a section clean:", where=str(path),
            fix="ownchat clean PATH --preview writes one; other settings go into --config",
        )  # fmt: skip
    version, again = loaded["recipe"], "look at a new preview and accept its recipe: ownchat clean PATH --preview"
    if type(version) is not int:  # true is 1 for Python
        raise ConfigError(f"recipe: is the number of a version, not {version!r}", where=str(path), fix=again)
    if version != VERSION:
        what = f"a recipe of version {version}; this ownchat reads version {VERSION}"
        raise ConfigError(what, where=str(path), fix=again)
    if others := sorted(set(map(str, loaded)) - {"recipe", "clean"}):
        raise ConfigError(f'unknown section "{others[0]}" in a recipe', where=str(path), fix="it holds clean: alone")
    known, given = CleanConfig.model_fields, [str(key) for key in loaded["clean"]]
    if unknown := [key for key in given if key not in known]:
        what = f"unknown in clean: {', '.join(unknown)}"
        raise ConfigError(what, where=str(path), fix=nearest(unknown[0], known) or again)
    if missing := [key for key in known if key not in given]:
        what = f"a recipe holds every setting of clean:, here is missing: {', '.join(missing)}"
        raise ConfigError(what, where=str(path), fix=f"{again}; some settings alone go into --config")
    check_values({"clean": loaded["clean"]}, where=str(path))
    return {f"clean.{key}": value for key, value in loaded["clean"].items()}


def result_key(config: Config, data: Path) -> str:
    """The key that the stage of cleaning will have when it is run on the records of ``data``."""
    from ownchat.clean.topic import description_file

    inputs: dict[str, Source] = {"data": data}
    inputs |= {f"decontaminate-{number}": existing(path) for number, path in enumerate(config.clean.decontaminate)}
    if config.clean.off_topic != "off" and (described := description_file(config.clean.topic)):
        inputs["topic"] = described
    return stage_key(config, ("clean",), inputs)


def check_settings(config: Config) -> None:
    """Raise what is wrong with the settings of cleaning and what they name, before any work is done.

    That is :class:`~ownchat.errors.ConfigError` for the lists of private words, and
    :class:`~ownchat.errors.DataError` for an examination or a description of the topic that cannot be read.
    """
    from ownchat.clean.private.lists import compile_list
    from ownchat.clean.topic import read_description

    compile_list(config.clean.private_allow, "allow")
    compile_list(config.clean.private_deny, "deny")
    for path in config.clean.decontaminate:
        existing(path)
    if config.clean.off_topic != "off":
        read_description(config.clean.topic)
