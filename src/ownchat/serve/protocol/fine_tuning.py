"""What clients send about fine-tuning. Fields and limits are OpenAI's; ``x_train`` holds what is ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ownchat.serve.protocol.body import STRICT

Auto = Literal["auto"]
Epochs = Auto | Annotated[int, Field(ge=1, le=50)] | None
BatchSize = Auto | Annotated[int, Field(ge=1, le=256)] | None
Multiplier = Auto | Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None
Beta = Auto | Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None

STRICT_OWN = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


class Hyperparameters(BaseModel):
    """Of both methods; a number that is not given, or null, is "auto"."""

    model_config = STRICT

    n_epochs: Epochs = "auto"
    batch_size: BatchSize = "auto"
    learning_rate_multiplier: Multiplier = "auto"


class DpoHyperparameters(Hyperparameters):
    """``beta``: how near to the model before it stays."""

    beta: Beta = "auto"


class Supervised(BaseModel):
    """``method.supervised``."""

    model_config = STRICT

    hyperparameters: Hyperparameters | None = None


class Dpo(BaseModel):
    """``method.dpo``."""

    model_config = STRICT

    hyperparameters: DpoHyperparameters | None = None


class Method(BaseModel):
    """How it learns. ``reinforcement`` is known, so that its refusal can say what is wrong."""

    model_config = STRICT

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None


class Train(BaseModel):
    """``x_train``: settings that OpenAI's API has no word for. An unknown one is an error, everywhere.

    ``method``: an adapter beside the weights, or all weights. ``clean``: repair texts and take out noise and copies;
    otherwise every line is learned. ``private``: mask private data. ``report``: examine the model and write the report
    of a run. ``patience``: validations without gain after which training ends; the best checkpoint is kept in any
    case. ``base64_results``: result files as OpenAI returns them.
    """

    model_config = STRICT_OWN

    method: Literal["lora", "full"] = "lora"
    rank: int | None = Field(None, ge=1, le=1024)
    alpha: int | None = Field(None, ge=1, le=4096)
    minutes: float | None = Field(None, gt=0, le=100_000, allow_inf_nan=False)
    max_tokens: int | None = Field(None, ge=16, le=1_000_000)
    validate_every: int | None = Field(None, ge=1, le=1_000_000)
    patience: int | None = Field(None, ge=1, le=1000)
    clean: bool = False
    private: bool = False
    report: bool = False
    base64_results: bool = False


class JobRequest(BaseModel):
    """``POST /v1/fine_tuning/jobs``."""

    model_config = STRICT

    model: str = Field(min_length=1, max_length=256)
    training_file: str = Field(min_length=1, max_length=128)
    validation_file: str | None = Field(None, max_length=128)
    hyperparameters: Hyperparameters | None = None  # deprecated by OpenAI, and used by many
    suffix: str | None = Field(None, min_length=1, max_length=64)
    seed: int | None = Field(None, ge=0, le=2_147_483_647)
    method: Method | None = None
    integrations: list[dict[str, Any]] | None = Field(None, max_length=5)
    metadata: dict[str, str] | None = None
    x_train: Train | None = None

    @property
    def kind(self) -> Literal["supervised", "dpo", "reinforcement"]:
        """The method's name."""
        return "supervised" if self.method is None else self.method.type

    @property
    def wanted(self) -> dict[str, Any]:
        """The hyperparameters of the method, each a number or "auto"."""
        given: Hyperparameters | None = self.hyperparameters
        names = ["n_epochs", "batch_size", "learning_rate_multiplier"]
        if self.method is not None and self.method.type == "supervised" and self.method.supervised is not None:
            given = self.method.supervised.hyperparameters or given
        if self.kind == "dpo":
            names.append("beta")
            if self.method is not None and self.method.dpo is not None:
                given = self.method.dpo.hyperparameters or given
        found = {name: getattr(given, name, None) for name in names}
        return {name: "auto" if value is None else value for name, value in found.items()}
