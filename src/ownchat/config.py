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
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from ownchat.errors import ConfigError, nearest

Origins = dict[str, str]  # "train.epochs" -> "default" | "given (config.yaml)" | "given (--set)" | "derived (why)"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _word_of_a_switch(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads off, on, yes and no as true and false; where such a word is a choice, it is meant."""
        if (
            isinstance(value, bool)
            and get_origin(annotation := cls.model_fields[info.field_name or ""].annotation) is Literal
        ):
            choices = get_args(annotation)
            return next((word for word in (("on", "yes") if value else ("off", "no")) if word in choices), value)
        return value


class DataConfig(_Section):
    """How files become records."""

    map: dict[str, str] = Field(
        {}, description="which column is what: question, answer, system, group, text; review, rating, product"
    )
    system: str | None = Field(None, description="system message put before conversations that have none")
    format: dict[str, str] = Field({}, description='format of files whose name matches: {"*.log": "irc"}')
    assistant: list[str] = Field([], description="names or addresses whose turns are the assistant's; none: inferred")
    assistant_domain: list[str] = Field([], description="mail domains whose people are the assistant")
    pause_hours: float = Field(6.0, gt=0, description="a longer pause ends a conversation of a chat")
    date_order: Literal["auto", "day", "month", "year"] = Field("auto", description="what a date in a chat starts with")
    reviews: Literal["pairs", "preferences"] = Field(
        "pairs", description="rated texts: instruction pairs, or a better beside a worse one"
    )
    workers: int | None = Field(None, ge=1, description="files read at once; none: one for each core")
    engine: Literal["local", "ray"] = Field(
        "local", description="where records are cleaned: this machine's cores, or a Ray cluster (RAY_ADDRESS)"
    )


QualityRules = Literal["gopher_quality", "gopher_repetition", "c4", "fineweb"]


PrivateType = Literal[
    "person", "address", "phone", "email", "username", "url", "ip", "card", "iban", "bank_account", "national_id",
    "passport", "driving_licence", "tax_id", "date_of_birth", "password", "secret", "reference",
    "organisation", "place", "date",
]  # fmt: skip
NOT_PRIVATE_BY_DEFAULT = ("organisation", "place", "date")


class CleanConfig(_Section):
    """What is repaired, what is taken out, and how the three splits are made."""

    repair_encoding: bool = Field(True, description="mend text that was decoded with the wrong encoding (mojibake)")
    system_lines: bool = Field(True, description='take out lines of messengers and ticket systems ("Anna joined")')
    bot_noise: bool = Field(True, description="take out automatic replies and notices")
    boilerplate: bool = Field(True, description="cut signatures, disclaimers and footers that many texts share")
    boilerplate_share: float = Field(0.1, gt=0, le=1, description="of a source's texts that share such a line")
    cut_turns: bool = Field(True, description="do not learn replies that an export cut off in a sentence")
    greetings: bool = Field(True, description="drop conversations of nothing but hello, thanks and goodbye")
    detect_language: bool = Field(True, description="write the language that a record is in into its field")
    languages: list[str] = Field([], description="keep these (codes: en, de) and what is undecided; none: all")
    min_words: int = Field(0, ge=0, description="drop records with fewer words")
    max_words: int | None = Field(None, ge=1, description="drop records with more words; none: no limit")
    quality_rules: list[QualityRules] = Field(
        ["gopher_quality", "gopher_repetition"],
        description="published rules that drop what is no running text: gopher_quality, gopher_repetition, c4, fineweb",
    )
    quality_documents: int = Field(100, ge=1, description="smaller collections, chosen by hand, are not judged")
    quality_scope: Literal["documents", "all"] = Field("documents", description="what the quality rules look at")
    toxicity: Literal["off", "flag", "drop"] = Field("flag", description="tag records with abuse, or drop them")
    mention_counts: bool = Field(False, description="count by source who is mentioned, and abuse; changes nothing")
    off_topic: Literal["off", "flag", "drop"] = Field(
        "off", description="tag or drop records that are about something else"
    )
    topic: str = Field(
        "",
        description="what records are about, in words that stand in them, or a text file; empty: what most are about",
    )
    topic_distance: float = Field(
        3.0, gt=0, description="off-topic: so many times further from the typical record than five of six are"
    )
    private_types: list[PrivateType] = Field(
        [type for type in get_args(PrivateType) if type not in NOT_PRIVATE_BY_DEFAULT],
        description="private data that becomes placeholders; [] for none; also organisation, place, date",
    )
    private_allow: list[str] = Field([], description="words that are never private (products), or /expressions/")
    private_deny: list[str] = Field([], description="words that always are (staff, projects), or /expressions/")
    private_threshold: float | None = Field(
        None, gt=0, le=1, description="least probability; none: 0.25; lower masks more"
    )
    private_surrogates: bool = Field(False, description="made-up values that look real in place of placeholders")
    exact_duplicates: bool = Field(True, description="drop records whose text stands in another record")
    near_duplicates: bool = Field(True, description="drop records that are nearly another one; the longest is kept")
    contradictions: Literal["off", "flag", "drop"] = Field(
        "off", description="equal questions, contrary answers: tag both, or drop the older one where times are known"
    )
    decontaminate: list[str] = Field(
        [], description="files with examinations: records that hold their text are dropped"
    )
    valid_share: float = Field(0.1, gt=0, lt=0.5, description="share for stopping and choosing checkpoints")
    test_share: float = Field(0.1, gt=0, lt=0.5, description="share for evaluation only")
    seed: int = Field(0, ge=0, description="which groups fall into which split")

    @model_validator(mode="after")
    def _some_length_is_left(self) -> CleanConfig:
        if self.max_words is not None and self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is more than max_words {self.max_words}: no record would fit")
        return self


class TokenizerConfig(_Section):
    """How records become tokens."""

    max_tokens: int | None = Field(None, ge=16, description="longest piece; longer ones are split, never cut")


class ModelConfig(_Section):
    """Which model is trained, and in what form."""

    base: str = Field("starter", description='"starter", a local directory, or a Hugging Face id')
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", description="auto: bfloat16 where measured faster")
    quantize: Literal["none", "4bit"] = Field(
        "none", description="hold the frozen base in four bits while an adapter is trained; needs ownchat[gpu]"
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="rank of the adapter's matrices")
    lora_alpha: int = Field(32, ge=1, description="the adapter is scaled by lora_alpha / lora_rank")
    lora_variant: Literal["lora", "rslora", "dora"] = Field(
        "lora", description="rslora scales by lora_alpha / sqrt(lora_rank), dora learns the columns' norms apart"
    )


class GenerateConfig(_Section):
    """How answers are sampled in chat."""

    max_tokens: int = Field(256, ge=1, description="longest answer")
    temperature: float = Field(0.0, ge=0, le=5, description="0 is greedy: always the likeliest token")
    top_k: int = Field(0, ge=0, description="keep the k likeliest tokens; 0: all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the likeliest that reach this probability together")
    min_p: float = Field(0.0, ge=0, le=1, description="drop tokens less likely than this share of the likeliest")
    repetition_penalty: float = Field(1.0, gt=0, le=5, description="above 1: tokens that were used become less likely")
    seed: int | None = Field(None, ge=0, description="same seed, same answer; none: a new one each time")
    stop: list[str] = Field([], description="end the answer before any of these texts")
    url: str | None = Field(None, description="OpenAI-compatible URL that writes questions; none: a local model")
    model: str | None = Field(None, description="model that writes questions: a name at the URL, or a local base")
    questions: int = Field(0, ge=0, le=20, description="questions and answers written for each passage of a document")


class EvaluateConfig(_Section):
    """What is measured on the test split."""

    answers: int = Field(32, ge=0, description="questions that base and tuned answer for chrF; 0: none")
    answer_tokens: int = Field(128, ge=1, description="longest of these answers")
    draws: int = Field(1000, ge=100, description="bootstrap draws of each interval")


class TrainConfig(_Section):
    """The loop."""

    method: Literal["lora", "full"] = Field(
        "lora", description="train an adapter beside frozen weights, or all weights"
    )
    epochs: float = Field(2.0, gt=0, description="passes over the train split at most; early stopping may end sooner")
    minutes: float | None = Field(None, gt=0, description="stop after this time, at the end of the schedule")
    batch_tokens: int = Field(2048, ge=1, description="tokens in one optimiser step, over all processes")
    block_tokens: int | None = Field(None, ge=1, description="most tokens in one forward pass; none: from the memory")
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="norms and gates as machine code of their own; auto: where a run is long enough to gain"
    )
    activations: Literal["auto", "keep", "recompute", "offload"] = Field(
        "auto", description="the last two take time and save memory, offload on a GPU only; auto: when memory runs out"
    )
    learning_rate: float | None = Field(None, gt=0, description="none: 2e-3 for LoRA (rslora: 5e-4), 5e-5 for full")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="how the rate falls after warm-up")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the rate rises from 0")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices (AdamW)")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    validate_every: int | None = Field(None, ge=1, description="steps between validations; none: two in an epoch")
    patience: int = Field(3, ge=1, description="stop after this many validations without a better loss")
    seed: int = Field(0, ge=0, description="order of the data, start of the adapter, dropout")
    preference: Literal["dpo", "kto", "orpo"] = Field("dpo", description="what preference data are trained by")
    preference_beta: float = Field(
        0.1, gt=0, description="dpo, kto: how near to the model before; orpo: weight of the odds ratio"
    )
    preference_epochs: float = Field(1.0, gt=0, description="passes over the preference data at most")
    preference_learning_rate: float | None = Field(
        None, gt=0, description="of preference training; none: by method and preference"
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        [], description="where metrics go as well, besides metrics.jsonl; each has to be installed"
    )
    threads: int | None = Field(None, ge=1, description="cores that compute; none: all of them")


class Config(_Section):
    """All settings of a run. Frozen; :func:`load_config` makes one."""

    data: DataConfig = DataConfig()
    clean: CleanConfig = CleanConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    generate: GenerateConfig = GenerateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    train: TrainConfig = TrainConfig()


# flag -> key. A flag is another name of a key and nothing more.
ALIASES: dict[str, str] = {
    "base": "model.base",
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
    return check_values(sections, where=str(path) if path else "configuration"), origins


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
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).strip()
            text = text.removesuffix("\n...").strip()
            lines.append(f"  {key}: {text}  # {origins.get(f'{section}.{key}', 'default')}")
    return "\n".join(lines) + "\n"


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
        raise ConfigError(f"{key}{given}: {first['msg'].removeprefix('Value error, ').lower()}", where=where) from error
