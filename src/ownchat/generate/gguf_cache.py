"""GGUF files for llama.cpp, made when they are first needed and kept under ``cache/gguf`` of ownchat's home.

One file for a base, one beside it for each LoRA adapter. The name says which model, where it lay and in which state, so
a model that was trained again gets a new file and the old one goes, as do those of models that are gone. Only files
that were written here are opened, and only while their SHA-256 is the one that was noted then: llama.cpp's parser is
not for strangers' files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ownchat import __version__, artifacts
from ownchat.errors import ModelError, system_error
from ownchat.generate.adapters import check_files

if TYPE_CHECKING:
    from ownchat.generate.exports.gguf_file import GgufType
    from ownchat.generate.exports.weights import Weights

GRID: GgufType = "q4_1"  # the starter's
OF_GRID: GgufType = "q8_0"  # what it is served in: as near to it, and 1.4 times as fast with several answers (LOG.md)
RULES = 3  # how files are made; with another number those that lie there are made again
PARTS = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json", "generation_config.json")


def model_file(model: Path, tokenizer: Path | None = None) -> Path:
    """The GGUF file of a Hugging Face directory; written if it is not there, or is another one than was written.

    ``tokenizer``: where its tokenizer is, if not with it.

    Weights that lie on the grid of ``q4_1`` (the starter came from there) are written in ``q8_0``, all others in
    ``f16``: llama.cpp rounds activations to eight bits beside either, so that answers are as near to the model's own as
    from ``q4_1``, for which it has no fast products of several rows. Raises
    :class:`~ownchat.errors.ModelError` for a model that llama.cpp cannot run as it is and
    :class:`~ownchat.errors.UserError` where the disk is full.
    """
    target = _place(model, "gguf")
    with _locked(target):
        if not _is_whole(target):
            from ownchat.generate.exports import gguf_file
            from ownchat.generate.exports.weights import Weights

            kind: GgufType = OF_GRID if on_grid(Weights(model)) else "f16"
            with _writing(target, model):
                gguf_file.write_gguf(model, target, kind, tokenizer=tokenizer)
    return target


def adapter_file(adapter: Path, base: Path) -> Path:
    """The GGUF file of a PEFT directory, for the model of ``base``; as :func:`model_file`.

    Raises :class:`~ownchat.errors.ModelError` for an adapter of another base.
    """
    check_adapter(adapter, base)
    target = _place(adapter, "lora.gguf")
    with _locked(target):
        if not _is_whole(target):
            from ownchat.generate.exports.adapter import write_adapter
            from ownchat.generate.exports.weights import Weights

            with _writing(target, adapter):
                write_adapter(adapter, Weights(base), target)
    return target


def check_adapter(adapter: Path, base: Path) -> None:
    """Raise :class:`~ownchat.errors.ModelError` unless the adapter's matrices fit those of the base.

    Only the headers of the files are read.
    """
    check_files(adapter)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(base.glob("*.safetensors")):
        shapes |= _shapes(file)
    for name, shape in _shapes(adapter / "adapter_model.safetensors").items():
        layer, found, which = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
        if not found:
            continue  # another kind of adapter: who loads it says what it can
        theirs = shapes.get(f"{layer}.weight", ())
        fits = len(shape) == 2 and shape[1 if which == "A" else 0] in theirs
        if not fits:
            raise ModelError(
                f"the adapter is of another base: {layer} is {shape} in it and {theirs or 'missing'} in {base.name}",
                where=str(adapter),
                fix="serve it with the base that it was trained on",
            )


def on_grid(weights: Weights) -> bool:
    """Whether a file in ``q4_1`` (embedding and head in ``q8_0``) would be the same model, to the last bit.

    Every matrix is looked at, since training moves some weights of a tuned model by less than a step of the grid and
    may leave others where they were.
    """
    import gguf
    import numpy as np

    from ownchat.generate.exports.gguf_file import tensor_type

    found = False
    for tensor in weights.tensors:
        kind = tensor_type(tensor, GRID)
        if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
            continue  # as in any file
        values = weights.read(tensor)
        if not np.array_equal(gguf.dequantize(gguf.quantize(values, kind), kind), values):
            return False
        found = found or kind == gguf.GGMLQuantizationType.Q4_1
    return found


def state_of(directory: Path, patterns: Sequence[str] = PARTS) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change (ns) of the files that make a model: others, where it was made anew there."""
    files = sorted({file for pattern in patterns for file in directory.glob(pattern)})
    return [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]


# --------------------------------------------------------------------------------------------------------- inside


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, from its header."""
    try:
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if not 2 <= length <= min(100_000_000, file.stat().st_size):
                raise ValueError("its header is longer than the file")
            header = json.loads(handle.read(length))
        return {name: tuple(map(int, part["shape"])) for name, part in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError("not a safetensors file, or damaged", where=str(file)) from error


def _place(directory: Path, suffix: str) -> Path:
    """Where the file of ``directory`` in its present state belongs; those of earlier states are removed."""
    directory = directory.resolve()
    place = hashlib.sha256(str(directory).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    now = hashlib.sha256(json.dumps([__version__, RULES, state_of(directory)]).encode()).hexdigest()[:12]
    names = [part for part in directory.parts[-3:] if part not in ("5-train", "checkpoints")]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(names[-2:]))[:80]
    folder = artifacts.home() / "cache" / "gguf"
    target = folder / f"{name}-{place}-{now}.{suffix}"
    for old in folder.glob(f"*-{place}-*.{suffix}*"):
        if not old.name.startswith(target.name):
            old.unlink(missing_ok=True)
    return target


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One process at a time writes into the folder; those that come meanwhile wait and find the file."""
    try:
        for folder in (target.parent.parent, target.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        with open(target.parent / ".lock", "a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise system_error(error, where=str(target.parent)) from error


@contextmanager
def _writing(target: Path, source: Path) -> Iterator[None]:
    """Note what was written, last; without the note a file is not used. Those of models that are gone go."""
    _sweep(target.parent)
    note = target.with_name(target.name + ".json")
    note.unlink(missing_ok=True)
    target.unlink(missing_ok=True)
    yield
    written = {"sha256": artifacts.fingerprint(target), "bytes": target.stat().st_size}
    artifacts.write_json(note, written | {"source": str(source.resolve())})


def _sweep(folder: Path) -> None:
    """Remove files whose model is no longer there, such as an older checkpoint of a training."""
    for note in folder.glob("*.gguf.json"):
        try:
            source = json.loads(note.read_text(encoding="utf-8"))["source"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half written, or of a version that did not note it
        if not Path(source).is_dir():
            note.with_name(note.name.removesuffix(".json")).unlink(missing_ok=True)
            note.unlink(missing_ok=True)


def _is_whole(target: Path) -> bool:
    """Whether the file is there as it was written."""
    note = target.with_name(target.name + ".json")
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        return bool(noted["bytes"] == target.stat().st_size and noted["sha256"] == artifacts.fingerprint(target))
    except (OSError, ValueError, KeyError, TypeError):
        return False
