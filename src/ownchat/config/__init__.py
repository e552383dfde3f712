"""Every setting there is, its default, and where its value came from.

One YAML file with flat sections, ``--set section.key=value`` on top, and a few flags that are aliases
(:data:`ALIASES`). All defaults work. ``None`` means *derived*: the stage that needs the value computes it from
the data or the machine and writes what it took beside the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError

from ownchat.config.sections import FROM_NOTHING as FROM_NOTHING
from ownchat.config.sections import NOT_PRIVATE_BY_DEFAULT as NOT_PRIVATE_BY_DEFAULT
from ownchat.config.sections import CleanConfig as CleanConfig
from ownchat.config.sections import Config as Config
from ownchat.config.sections import DataConfig as DataConfig
from ownchat.config.sections import EvaluateConfig as EvaluateConfig
from ownchat.config.sections import GenerateConfig as GenerateConfig
from ownchat.config.sections import PrivateType as PrivateType
from ownchat.config.sections import QualityRules as QualityRules
from ownchat.config.sections import TrainConfig as TrainConfig
from ownchat.errors import ConfigError, nearest

Origins = dict[str, str]  # "train.epochs" -> "default" | "given (config.yaml)" | "given (--set)" | "derived (why)"

# flag -> key. A flag is another name of a key and nothing more.
ALIASES: dict[str, str] = {
    "base": "model.base",
    "size": "model.size",
    "method": "train.method",
    "epochs": "train.epochs",
    "minutes": "train.minutes",
    "seed": "train.seed",
    "system": "data.system",
    "assistant": "data.assistant",
    "assistant_domain": "data.assistant_domain",
}


def keys() -> dict[str, Any]:
    """Every key with its default, as ``{"train.epochs": 2.0, ...}``."""
    return flatten(Config())


def flatten(config: Config) -> dict[str, Any]:
    """The configuration as ``{"section.key": value}``."""
    dumped = config.model_dump()
    return {f"{section}.{key}": value for section, values in dumped.items() for key, value in values.items()}


def load_config(
    path: Path | None = None,
    *,
    sets: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> tuple[Config, Origins]:
    """Defaults, the YAML file at ``path``, a ``recipe``'s values, ``values`` (flags), ``sets`` (``"train.epochs=3"``).

    Each goes over the one before; a flag that is None was not given, a recipe's None is a value.

    Returns the configuration and, for every key, where its value came from. Raises :class:`ConfigError` for a
    file that is not YAML, an unknown section or key (with the nearest name), and a value out of range.

    >>> config, origins = load_config(sets=["train.epochs=1"])
    >>> config.train.epochs, origins["train.epochs"], origins["train.seed"]
    (1.0, 'given (--set)', 'default')
    """
    origins: Origins = dict.fromkeys(keys(), "default")
    sections: dict[str, dict[str, Any]] = {}
    if path is not None:
        for key, value in _read_yaml(path).items():
            _place(sections, key, value, where=str(path))
            origins[key] = f"given ({path.name})"
    for key, value in (recipe or {}).items():
        _place(sections, key, value, where="recipe")
        origins[key] = "given (recipe)"
    for key, value in (values or {}).items():
        if value is not None:
            _place(sections, key, value, where="flag")
            origins[key] = "given (flag)"
    for text in sets:
        key, separator, raw = text.partition("=")
        if not separator:
            raise ConfigError(f'"{text}" has no "="', where="--set", fix="write --set section.key=value")
        try:
            value = yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value {raw!r} cannot be read", where=f"--set {key}", fix="quote it") from error
        _place(sections, key.strip(), value, where="--set")
        origins[key.strip()] = "given (--set)"
    config = check_values(sections, where=str(path) if path else "configuration")
    if config.model.base == FROM_NOTHING and origins["train.method"] == "default":
        origins["train.method"] = "derived (a model from nothing)"
    return config, origins


def with_derived(config: Config, origins: Origins, derived: Mapping[str, tuple[Any, str]]) -> tuple[Config, Origins]:
    """A copy with derived values filled in: ``{"train.learning_rate": (1e-3, "LoRA")}``."""
    sections = config.model_dump()
    origins = dict(origins)
    for key, (value, why) in derived.items():
        _place(sections, key, value, where="derived")
        origins[key] = f"derived ({why})"
    return check_values(sections, where="derived"), origins


def to_yaml(config: Config, origins: Origins) -> str:
    """The effective configuration as YAML that :func:`load_config` reads, each line with its origin."""
    lines = ["# The settings of this run; each line says where its value came from."]
    for section, values in config.model_dump().items():
        lines.append(f"{section}:")
        for key, value in values.items():
            text = yaml.dump(value, Dumper=_Lines, default_flow_style=True, allow_unicode=True, width=10**6).strip()
            text = text.removesuffix("\n...").strip()
            lines.append(f"  {key}: {text}  # {origins.get(f'{section}.{key}', 'default')}")
    return "\n".join(lines) + "\n"


class _Lines(yaml.SafeDumper):
    """A text with line breaks stays on its line, in double quotes."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if len(text.splitlines()) > 1 else None)


_Lines.add_representer(str, _text)


def options_page() -> str:
    """Every key as a Markdown page, made from the models above: ``docs/configuration.md``."""
    lines = [
        "# Settings",
        "",
        "Everything works without a setting. `ownchat train FOLDER --config mine.yaml` reads a file of sections,",
        "`--set section.key=value` changes one key and wins over the file, and a few flags are other names of keys:",
        ", ".join(f"`--{flag.replace('_', '-')}` is `{key}`" for flag, key in ALIASES.items()) + ".",
        "",
        "The settings of a run, with where each value came from (given, default, derived), are in its `config.yaml`,",
        "which can be given to `--config` again. `null` means derived: from the data, or measured on the machine.",
    ]
    for section, model in Config.model_fields.items():
        fields = model.annotation.model_fields  # type: ignore[union-attr]
        about = (model.annotation.__doc__ or "").strip()
        lines += ["", f"## {section}", "", about, "", "| key | default | what it is |", "|---|---|---|"]
        for name, field in fields.items():
            default = yaml.safe_dump(field.default, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            about = field.description or ""
            about += f" ({', '.join(choices)})" if choices else ""
            lines.append(f"| `{section}.{name}` | `{default}` | {about} |")
    return "\n".join(lines) + "\n"


def _read_yaml(path: Path) -> dict[str, Any]:
    """``{"section.key": value}`` of a file."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", where=str(path), fix="check the path after --config") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"not readable as YAML: {error}", where=str(path), fix="see docs/configuration.md") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError("the file must hold sections such as train:", where=str(path))
    flat: dict[str, Any] = {}
    for section, values in loaded.items():
        if section not in Config.model_fields:
            hint = nearest(str(section), Config.model_fields)
            raise ConfigError(f'unknown section "{section}"', where=str(path), fix=hint or _sections())
        if not isinstance(values, dict | None):
            raise ConfigError(f'section "{section}" must hold keys, not {values!r}', where=str(path))
        flat |= {f"{section}.{key}": value for key, value in (values or {}).items()}
    return flat


def _place(sections: dict[str, dict[str, Any]], key: str, value: Any, *, where: str) -> None:
    known = keys()
    if key not in known:
        hint = nearest(key, known) or nearest(key.split(".")[-1], [name.split(".")[1] for name in known])
        raise ConfigError(f'unknown key "{key}"', where=where, fix=hint or "see docs/configuration.md for all keys")
    section, _, name = key.partition(".")
    sections.setdefault(section, {})[name] = value


def _sections() -> str:
    return "sections are " + ", ".join(Config.model_fields)


def check_values(sections: dict[str, dict[str, Any]], *, where: str) -> Config:
    """The configuration of ``{"train": {"epochs": 3}}``; raises :class:`ConfigError` for a value out of range."""
    try:
        return Config.model_validate(sections)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        given = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"  # of a section as a whole
        what = f"{key}{given}: " if key else ""  # of several sections together the message names them
        raise ConfigError(f"{what}{first['msg'].removeprefix('Value error, ').lower()}", where=where) from error
