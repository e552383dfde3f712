"""The files of an export that keeps the Hugging Face layout: a model for vLLM and the hub, or its adapter alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from shlex import quote

from ownchat.artifacts import MANIFEST, read_json, write_json
from ownchat.config import GenerateConfig
from ownchat.errors import ModelError
from ownchat.generate.locate import NOTE, Located

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM can be told to hold
PRIVATE = (NOTE, MANIFEST)  # paths of this machine, and the system message: not for others


def copy_model(model: Path, folder: Path, settings: GenerateConfig) -> None:
    """The directory as it is; its generation configuration tells how ``settings`` sample: vLLM's defaults."""
    for file in sorted(model.iterdir()):
        if file.is_file() and file.name not in PRIVATE and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)
    path = folder / "generation_config.json"
    stored = read_json(path) if path.is_file() else {}
    stored.pop("_from_model_config", None)
    greedy = settings.temperature == 0
    stored["do_sample"] = not greedy
    wanted = {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p,
              "min_p": settings.min_p, "repetition_penalty": settings.repetition_penalty}  # fmt: skip
    for name in wanted:
        stored.pop(name, None)
    if greedy:  # transformers warns of a temperature without sampling, vLLM needs it
        wanted = {"temperature": 0.0, "repetition_penalty": settings.repetition_penalty}
    write_json(path, stored | wanted)


def copy_adapter(located: Located, folder: Path, *, for_others: bool = False) -> str:
    """The PEFT adapter; returns what it stands beside: the base's directory, or ``for_others`` its name where known."""
    assert located.adapter is not None
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(located.adapter / name, folder / name)
    settings = read_json(folder / "adapter_config.json")
    base = str(located.base or settings["base_model_name_or_path"])
    if for_others:
        base = base_name(located.base) or Path(base).name
    settings["base_model_name_or_path"] = base
    write_json(folder / "adapter_config.json", settings)
    for file in sorted(located.model.glob("*token*")) + sorted(located.model.glob("*.jinja")):
        shutil.copyfile(file, folder / file.name)
    return base


def base_name(base: Path | None) -> str | None:
    """The hub's id of a base model, where its directory says it."""
    if base is None:
        return None
    if (base / MANIFEST).is_file() and isinstance(found := read_json(base / MANIFEST).get("model"), str):
        return found
    owner, separator, name = base.name.partition("--")
    return f"{owner}/{name}" if separator and (base / ".complete").is_file() else None


def serve_line(folder: Path, target: Path, name: str) -> str:
    """How vLLM serves what stands in ``folder`` and will stand in ``target``."""
    config = read_json(folder / "config.json")
    context = config.get("max_position_embeddings") or config.get("n_positions")
    return f"vllm serve {quote(str(target))} --served-model-name {quote(name)}" + (
        f" --max-model-len {context}" if context else ""
    )


def serve_adapter_line(folder: Path, target: Path, base: str, name: str) -> str:
    """How vLLM serves the adapter in ``folder`` beside its base.

    Raises :class:`~ownchat.errors.ModelError` for one that vLLM does not run.
    """
    settings = read_json(folder / "adapter_config.json")
    rank = next((rank for rank in RANKS if rank >= settings["r"]), None)
    if settings.get("use_dora") or rank is None:
        what = "DoRA adapters" if settings.get("use_dora") else f"adapters of rank {settings['r']:,}"
        raise ModelError(f"vLLM does not run {what}", where=str(folder), fix="leave out --adapter")
    modules = quote(f"{name}={target}")
    return f"vllm serve {quote(base)} --enable-lora --max-lora-rank {rank} --lora-modules {modules}"
