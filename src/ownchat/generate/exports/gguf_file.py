"""One GGUF file from a Hugging Face directory: weights, tokenizer, chat template, end tokens."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import gguf
import numpy as np

from ownchat.artifacts import TRAIN, replacing, require_free_space
from ownchat.errors import ModelError, UserError
from ownchat.generate.end_tokens import end_token_ids
from ownchat.generate.exports.vocabulary import read_vocabulary
from ownchat.generate.exports.weights import Tensor, Weights
from ownchat.model.load import load_tokenizer
from ownchat.monitor.progress import progress

GgufType = Literal["f16", "q8_0", "q4_1", "q4_k_m"]
TYPES: tuple[GgufType, ...] = get_args(GgufType)
QUANTIZE = "llama-quantize"  # of llama.cpp; q4_k_m is made with it

_KINDS = gguf.GGMLQuantizationType
_FILE_TYPES = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
               "q4_1": gguf.LlamaFileType.MOSTLY_Q4_1}  # fmt: skip
_MATRICES = {"f16": _KINDS.F16, "q8_0": _KINDS.Q8_0, "q4_1": _KINDS.Q4_1}
# Embedding and head, which small models often share, lose most by four bits (LOG.md): eight there.
_EMBEDDINGS = {"f16": _KINDS.F16, "q8_0": _KINDS.Q8_0, "q4_1": _KINDS.Q8_0}
_LARGEST_F16 = 65504.0


def check_type(kind: GgufType) -> None:
    """Raise :class:`~ownchat.errors.UserError` for a type that this machine cannot write."""
    if kind not in TYPES:
        raise UserError(f'there is no type "{kind}"', where="--type", fix=f"choose one of {', '.join(TYPES)}")
    if kind == "q4_k_m" and shutil.which(QUANTIZE) is None:
        raise UserError(
            f"q4_k_m is made by llama.cpp's {QUANTIZE}, and there is none on the PATH",
            where="--type",
            fix="install llama.cpp, or choose f16, q8_0 or q4_1, which need nothing",
        )


def write_gguf(model: Path, target: Path, kind: GgufType, *, tokenizer: Path | None = None) -> Path:
    """Write the model of a Hugging Face directory into the file ``target``, whole or not at all.

    ``tokenizer``: another directory to take tokenizer, chat template and end tokens from. Norms, biases and positions
    stay float32; matrices become ``kind``, in ``q4_1`` all but embedding and head (eight bits), and what has no rows of
    whole blocks of 32 becomes ``f16``. Raises :class:`~ownchat.errors.ModelError` for a model or a tokenizer that
    llama.cpp cannot run as it is, and :class:`~ownchat.errors.UserError` from :func:`check_type`.
    """
    check_type(kind)
    weights = Weights(model)
    require_free_space(target, int(2.2 * sum(int(np.prod(tensor.shape)) for tensor in weights.tensors)))
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind != "q4_k_m":
        with replacing(target) as aside:
            _write(weights, aside, kind, tokenizer or model)
        return target
    with TemporaryDirectory(dir=target.parent, prefix=".f16.") as room, replacing(target) as aside:
        _write(weights, whole := Path(room) / "f16.gguf", "f16", tokenizer or model)
        done = subprocess.run([QUANTIZE, str(whole), str(aside), "Q4_K_M"], capture_output=True, text=True)
        if done.returncode != 0 or not aside.is_file():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError(f"{QUANTIZE} failed: {reason}", where=str(model), fix="try --type q4_1")
    return target


def _write(weights: Weights, path: Path, kind: GgufType, tokenizer: Path) -> None:
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells its plan at INFO
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[weights.architecture])
    writer.add_type(gguf.GGUFType.MODEL)
    directory = weights.directory.resolve()
    writer.add_name(directory.parents[1].name if directory.parent.name == TRAIN else directory.name)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for method, value in weights.settings():
        getattr(writer, method)(value)
    _tokenizer(writer, weights, tokenizer)
    tensors = [*weights.extra, *weights.tensors]
    types = [tensor_type(tensor, kind) for tensor in tensors]
    for tensor, type in zip(tensors, types, strict=True):
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, type) if type not in (_KINDS.F32, _KINDS.F16) else None
        if shape is None:
            dtype = np.dtype(np.float32 if type == _KINDS.F32 else np.float16)
            writer.add_tensor_info(tensor.name, tensor.shape, dtype, int(np.prod(tensor.shape)) * dtype.itemsize)
        else:
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=type)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with progress(f"GGUF {kind}", len(tensors), "tensors") as advance:
            for tensor, type in zip(tensors, types, strict=True):
                values = weights.read(tensor)
                if type == _KINDS.F16 and float(np.abs(values).max(initial=0)) > _LARGEST_F16:
                    raise ModelError(
                        f"{tensor.source} has values that float16 cannot hold", where=str(weights.directory)
                    )
                writer.write_tensor_data(gguf.quantize(values, type))
                advance()
    finally:
        writer.close()


def tensor_type(tensor: Tensor, kind: GgufType) -> gguf.GGMLQuantizationType:
    """How a tensor is written in a file of ``kind``."""
    if len(tensor.shape) == 1 or tensor.kind == gguf.MODEL_TENSOR.POS_EMBD:
        return _KINDS.F32
    shared = tensor.kind in (gguf.MODEL_TENSOR.TOKEN_EMBD, gguf.MODEL_TENSOR.OUTPUT)
    wanted = (_EMBEDDINGS if shared else _MATRICES)[kind]
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if tensor.shape[-1] % block == 0 else _KINDS.F16


def _tokenizer(writer: gguf.GGUFWriter, weights: Weights, directory: Path) -> None:
    """Vocabulary, special tokens and chat template; no token is put before a text but what the template writes."""
    tokenizer: Any = load_tokenizer(directory)
    vocabulary = read_vocabulary(directory, weights.rows)
    writer.add_tokenizer_model("gpt2")  # its name for byte-level BPE
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_vocab_size(weights.rows)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    of_model = (directory / "config.json").is_file()  # else a tokenizer alone: a run's before there is a model
    ends = end_tokens(directory if of_model else weights.directory, tokenizer)
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else ends[0]
    writer.add_eos_token_id(eos)
    writer.add_eot_token_id(ends[0])
    if others := [id for id in ends if id not in (eos, ends[0])]:
        writer.add_eom_token_id(others[0])
    # Left out, llama.cpp would take number 11 for it.
    writer.add_bos_token_id(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos)
    writer.add_pad_token_id(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def end_tokens(directory: Path, tokenizer: Any) -> list[int]:
    """Tokens that end an answer, from the directory's files alone; the model is not loaded for it."""
    from types import SimpleNamespace

    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(directory)
    has = (directory / "generation_config.json").is_file()
    generation = GenerationConfig.from_pretrained(directory) if has else SimpleNamespace(eos_token_id=None)
    ends = end_token_ids(tokenizer, SimpleNamespace(config=config, generation_config=generation))
    if not ends:
        raise ModelError("no token ends an answer: it would never stop", where=str(directory))
    return ends
