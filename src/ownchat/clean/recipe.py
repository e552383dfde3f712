"""The recipe: the ``clean:`` section of the settings in a file of its own, to be accepted once and used again.

The same recipe on the same data gives the same bytes. What a step does may change with a version of ownchat; then
:data:`VERSION` rises, and a recipe of another version is refused instead of doing something else than it did.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ownchat.artifacts import write_atomic
from ownchat.config import CleanConfig
from ownchat.errors import ConfigError

VERSION = 1


def write_recipe(path: Path, config: CleanConfig) -> None:
    """Write every setting of cleaning, defaults too: a default that changes later does not change the recipe."""
    content = {"recipe": VERSION, "clean": config.model_dump(mode="json")}
    write_atomic(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe as ``{"clean.key": value}``, for ``values`` of :func:`~ownchat.config.load_config`.

    Raises :class:`~ownchat.errors.ConfigError` for a file that is no recipe, and for one of another version.
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
    if loaded["recipe"] != VERSION:
        raise ConfigError(
            f"a recipe of version {loaded['recipe']}; this ownchat reads version {VERSION}", where=str(path),
            fix="look at a new preview and accept its recipe: ownchat clean PATH --preview",
        )  # fmt: skip
    if others := sorted(set(map(str, loaded)) - {"recipe", "clean"}):
        raise ConfigError(f'unknown section "{others[0]}" in a recipe', where=str(path), fix="it holds clean: alone")
    return {f"clean.{key}": value for key, value in loaded["clean"].items()}
