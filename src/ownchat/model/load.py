"""Models in and out of directories: safetensors only, no pickle, no code from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ownchat import artifacts
from ownchat.errors import ModelError
from ownchat.model import attention, elementwise, starter, trial
from ownchat.model.attention import can_pack as can_pack
from ownchat.model.quantize import Quantize, keep_gradients, settings
from ownchat.tokenizer.stage import load_tokenizer as load_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def resolve_base(name: str) -> Path:
    """The directory of a base model: ``"starter"``, a local directory, a run's name, or a Hugging Face id (fetched).

    Raises :class:`~ownchat.errors.ModelError` when there is none, or when it
    has no weights that are safe to open.
    """
    if name == "starter":
        return starter.starter_directory()
    path = Path(name).expanduser()
    if path.is_dir():
        check_directory(path)
        return path.resolve()
    if (run := artifacts.finished_model(artifacts.run_directory(name))) is not None:
        return run
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ModelError(
            "there is no such model",
            where=name,
            fix='give a directory with config.json and model.safetensors, a Hugging Face id (owner/name), or "starter"',
        )
    return _fetch(name)


def resolve_tokenizer(name: str) -> Path:
    """The directory of a tokenizer: one with ``tokenizer.json``, a run's name, or what :func:`resolve_base` takes.

    Raises :class:`~ownchat.errors.ModelError` when there is none.
    """
    path = Path(name).expanduser()
    if (path / "tokenizer.json").is_file():
        return path.resolve()
    learned = artifacts.run_directory(name) / artifacts.TOKENIZER
    return learned if (learned / artifacts.MANIFEST).is_file() else resolve_base(name)


def is_here(name: str) -> bool:
    """Whether a base is on this machine, so that nothing has to be fetched for it."""
    if name == "starter":
        return (artifacts.home() / "models" / starter.NAME / artifacts.MANIFEST).is_file()
    return Path(name).expanduser().is_dir() or artifacts.finished_model(artifacts.run_directory(name)) is not None


def load_model(
    directory: Path,
    *,
    dtype: str = "float32",
    packed: bool = False,
    quantize: Quantize = "none",
    device: str | None = None,
) -> Any:
    """A causal language model in eval mode, on ``device``; none: on the best there is.

    ``packed``: use :mod:`ownchat.model.attention` where the model takes it (tried, not assumed), so that blocks of
    packed documents can be scored and trained; such a model does not generate. ``quantize``: hold the matrices in four
    bits (:mod:`ownchat.model.quantize`) and compute in ``dtype``.

    Raises :class:`~ownchat.errors.ModelError` for a directory without weights, or with only pickled ones.
    """
    check_directory(directory)
    device = device or best_device()
    model = _load(directory, dtype, quantize, device)
    if quantize != "none":
        keep_gradients(model)
    if packed:  # a model for training and scoring, not for generating
        paths = trial.try_paths(model)
        model.plain_head = paths.plain_head
        if paths.packed:
            model.set_attn_implementation(attention.NAME)
        elementwise.use_ours(model)
    model.eval()
    return model.to(device)


def best_device() -> Literal["cuda", "cpu"]:
    """Where models run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_directory(directory: Path) -> None:
    """Raise :class:`~ownchat.errors.ModelError` unless the directory holds a model that is safe to open."""
    if not (directory / "config.json").is_file():
        raise ModelError("no config.json: not a model directory", where=str(directory))
    if any(directory.glob("*.safetensors")):
        return
    pickled = [file.name for pattern in PICKLES for file in directory.glob(pattern)]
    if pickled:
        raise ModelError(
            f"the weights are pickled ({', '.join(sorted(pickled)[:3])}): opening them could run any code",
            where=str(directory),
            fix="take the model's safetensors version, or convert it on a machine you can lose",
        )
    raise ModelError("no weights (model.safetensors) in the directory", where=str(directory))


def check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase, where: Path) -> None:
    """Raise :class:`~ownchat.errors.ModelError` when the tokenizer has ids that the model has no row for."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer has {len(tokenizer):,} tokens and the model has {rows:,} rows: they do not belong together",
            where=str(where),
            fix="use the tokenizer that the model was trained with",
        )


def _load(directory: Path, dtype: str, quantize: Quantize, device: str) -> Any:
    options = settings(quantize, DTYPES[dtype])
    if options:
        options["device_map"] = {"": device}  # each matrix goes there as it is read, and is made small there
    transformers_logging.disable_progress_bar()  # loading takes a second; our own progress is on screen
    try:
        return AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"cannot be loaded: {str(error).splitlines()[0]}", where=str(directory)) from error


def _fetch(name: str) -> Path:
    """Fetch a model from the hub into ``models/``; later runs use the copy."""
    target = artifacts.home() / "models" / name.replace("/", "--")
    if (target / ".complete").is_file():
        return target
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(name, local_dir=target, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt"])
    except Exception as error:  # the hub's client raises its own, httpx's and OSError
        raise ModelError(
            f"cannot be fetched: {str(error).splitlines()[0]}",
            where=name,
            fix='check the id and the network; "--base starter" needs no hub',
        ) from error
    (target / ".complete").touch()
    return target
