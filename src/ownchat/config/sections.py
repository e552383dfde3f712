"""The settings by section, each with its default and what it is."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

FROM_NOTHING = "scratch"  # model.base


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
        {},
        description="which column is what: question, answer, system, group, text; review, rating, product; and which "
        "files are held out: valid, test",
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
    mix: dict[str, float] = Field(
        {}, description='passes over a part in an epoch: {documents: 2, conversations: 0.5, "*faq*": 3}; others 1'
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
    base: str | None = Field(
        None, description="tokenizer to use: a directory, a run, a model; none: the base's, or a new one for scratch"
    )
    kind: Literal["bpe", "word", "char", "byte"] = Field(
        "bpe", description="what a new tokenizer's tokens are: pieces of words, words, characters, bytes"
    )
    vocab: int | None = Field(None, ge=1, description="tokens of a new tokenizer; none: from the size of the text")


class ModelConfig(_Section):
    """Which model is trained, and in what form."""

    base: str = Field(
        "starter", description='"starter", a local directory, a Hugging Face id, or "scratch": a model from nothing'
    )
    size: str | None = Field(
        None, description="of a model from nothing: 30M, 1.3B, gpt2 ... gpt2-xl, gpt3-125m ... gpt3-13b; none: derived"
    )
    architecture: Literal["qwen3", "llama", "gpt2"] = Field("qwen3", description="of a model from nothing")
    shape: dict[Literal["layers", "width", "heads", "kv_heads", "inner"], int] = Field(
        {}, description="of a model from nothing, where it is not to be derived from its size: {layers: 8, width: 512}"
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", description="auto: bfloat16 where measured faster")
    quantize: Literal["none", "4bit"] = Field(
        "none", description="hold the frozen base in four bits while an adapter is trained; needs ownchat[gpu]"
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="rank of the adapter's matrices")
    lora_alpha: int = Field(32, ge=1, description="the adapter is scaled by lora_alpha / lora_rank")
    lora_variant: Literal["lora", "rslora", "dora"] = Field(
        "lora", description="rslora scales by lora_alpha / sqrt(lora_rank), dora learns the columns' norms apart"
    )


PolicyKey = Literal["disclosure", "private", "toxicity", "deny", "out_of_scope", "refusal"]


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
    prompt: str | None = Field(None, description="a prompt of ownchat prompt that the model is trained and used with")
    policy: dict[PolicyKey, Any] = Field(
        {},
        description="what users are told, and answers that are held back: {disclosure: TEXT or off, private: on, "
        "toxicity: on, deny: [..], out_of_scope: 0.5}",
    )


CareKey = Literal["checks", "rows", "samples", "canaries", "repeats", "probes"]
CardKey = Literal["owner", "contact", "data_licence", "intended_use", "not_for"]


class EvaluateConfig(_Section):
    """What is measured on the test split."""

    answers: int = Field(32, ge=0, description="questions that base and tuned answer for chrF; 0: none")
    answer_tokens: int = Field(128, ge=1, description="longest of these answers")
    draws: int = Field(1000, ge=100, description="bootstrap draws of each interval")
    judge: dict[Literal["url", "model"], str] = Field(
        {}, description="an OpenAI-compatible model that compares base and tuned: {url: http://HOST/v1, model: NAME}"
    )
    embedding: dict[Literal["url", "model"], str] = Field(
        {}, description="a model of embeddings, as OpenAI serves them, that scores answers: {url: .., model: ..}"
    )
    require: list[str] = Field(
        [], description="what a run must reach to be promoted: [loss better, slices fall at most 5 %]"
    )
    care: dict[CareKey, Any] = Field(
        {},
        description="of what is looked at besides: {checks: [memorisation, forgetting, bias, toxicity, truth, scope], "
        "rows: 64, samples: 32, canaries: 20, repeats: [1, 4, 16], probes: [FILE, ..]}",
    )
    card: dict[CardKey, str] = Field(
        {},
        description="what only the owner knows, for cards and the disclosure: {owner, contact, data_licence, "
        "intended_use, not_for}",
    )


class TrainConfig(_Section):
    """The loop."""

    method: Literal["lora", "full"] = Field(
        "lora", description="train an adapter beside frozen weights, or all weights"
    )
    epochs: float = Field(2.0, gt=0, description="passes of fine-tuning at most; early stopping may end sooner")
    minutes: float | None = Field(None, gt=0, description="stop after this time, at the end of the schedule")
    batch_tokens: int = Field(2048, ge=1, description="tokens in one optimiser step, over all processes")
    block_tokens: int | None = Field(None, ge=1, description="most tokens in one forward pass; none: from the memory")
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="norms and gates as machine code of their own, from nothing whole layers; auto: where a run is "
        "long enough to gain",
    )
    activations: Literal["auto", "keep", "recompute", "offload"] = Field(
        "auto", description="the last two take time and save memory, offload on a GPU only; auto: when memory runs out"
    )
    learning_rate: float | None = Field(None, gt=0, description="none: 2e-3 for LoRA (rslora: 5e-4), 5e-5 for full")
    schedule: Literal["auto", "cosine", "linear", "constant", "wsd"] = Field(
        "auto", description="how the rate falls after warm-up; auto: wsd (at the end) from nothing, else cosine"
    )
    optimizer: Literal["auto", "adamw", "muon"] = Field(
        "auto", description="muon: for hidden matrices, AdamW for the rest; auto: muon from nothing, else adamw"
    )
    pretrain: dict[Literal["epochs", "learning_rate", "batch_tokens", "weight_decay", "momentum"], float] = Field(
        {}, description="of pre-training, where it is not to be derived: {epochs: 4, learning_rate: 0.003}"
    )
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
    replay: dict[Literal["path", "share"], Any] = Field(
        {},
        description="general rows mixed in against forgetting: {share: 0.1, path: FILE}; no path: the base's words",
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        [], description="where metrics go as well, besides metrics.jsonl; each has to be installed"
    )
    threads: int | None = Field(None, ge=1, description="cores that compute; none: all of them")

    @field_validator("pretrain")
    @classmethod
    def _of_a_training(cls, value: dict[str, float]) -> dict[str, float]:
        """Each above zero, decay and momentum also zero, a batch of whole tokens, a momentum that forgets."""
        for name, number in value.items():
            zero = number == 0 and name not in ("weight_decay", "momentum")
            if number < 0 or zero or (name == "batch_tokens" and number < 1) or (name == "momentum" and number >= 1):
                raise ValueError(f"{name} = {number:g} trains nothing")
        return value


class Config(_Section):
    """All settings of a run. Frozen; :func:`load_config` makes one."""

    data: DataConfig = DataConfig()
    clean: CleanConfig = CleanConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    generate: GenerateConfig = GenerateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _all_weights_from_nothing(cls, values: Any) -> Any:
        """A model from nothing trains all its weights unless something else is asked for."""
        if isinstance(values, dict) and isinstance(model := values.get("model"), dict):
            train = values.get("train") or {}
            if model.get("base") == FROM_NOTHING and isinstance(train, dict) and "method" not in train:
                return values | {"train": train | {"method": "full"}}
        return values

    @model_validator(mode="after")
    def _what_a_base_decides(self) -> Config:
        if self.model.base != FROM_NOTHING and (self.model.size is not None or self.model.shape):
            raise ValueError("model.size and model.shape are of a model from nothing: give model.base = scratch, too")
        if self.model.base == FROM_NOTHING and self.train.method == "lora":
            raise ValueError("model.base = scratch trains all weights: train.method = lora has nothing to stand beside")
        return self
