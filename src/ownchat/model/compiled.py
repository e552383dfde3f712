"""What is compiled: norms and gates, or whole layers where nearly all blocks have one size.

``torch.compile`` makes C++ of them on a CPU and Triton on a GPU: one pass over memory where formulas that are written
out in torch make five. Of a pre-trained model only these few functions are compiled, for any sizes (``dynamic``): its
layers take minutes on two cores, and gain little beyond them (LOG.md). A model from nothing reads text in rows of one
length, so its layers are compiled for blocks of that size, in seconds, and narrow ones gain a quarter; blocks of
another size, and passes without gradient, are computed as before. So what is computed follows from the block alone, and
a resume finds the same bits. The machine code is kept in a directory of ours, so that it is made once.
"""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from ownchat import artifacts
from ownchat.model import elementwise
from ownchat.monitor.progress import say

KINDS = ("rms_norm", "rms_norm_backward", "gated", "gated_backward")
Shape = tuple[int, int]  # of a block: rows, and tokens in each


def can_compile(device: str) -> str | None:
    """None if this machine can compile, else why not."""
    if device == "cuda":
        return None if torch.cuda.get_device_capability() >= (7, 0) else "the GPU is too old for Triton"
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return "there is no C++ compiler (g++)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's header files are not installed"
    return None


def cache_directory() -> Path:
    """Where machine code is kept, for this torch, this processor and this interpreter: it fits no other."""
    processor = "-".join(torch.backends.cpu.get_cpu_capability().lower().split())
    name = f"torch-{torch.__version__}-{platform.machine()}-{processor}-py{platform.python_version()}"
    return artifacts.home() / "compiled" / name


def is_compiled(what: str, device: str) -> bool:
    """Was it done before on this machine, so that little is left to do? ``what``: a dtype, for norms and gates; or
    :func:`layers_name`."""
    return _note(what, device).is_file()


@contextmanager
def compiled_kernels(enabled: bool, dtype: str, device: str) -> Iterator[None]:
    """Norms and gates are compiled at their first call inside, and are as before afterwards."""
    if not enabled:
        yield
        return
    before = elementwise.kernels
    with _kept_code():
        elementwise.kernels = elementwise.Kernels(
            **{kind: _compiled(getattr(elementwise, kind), kind, dynamic=True) for kind in KINDS}
        )
        try:
            yield
            _note(dtype, device).touch()
        finally:
            elementwise.kernels = before


def layers_name(config: Any, dtype: str, shape: Shape) -> str:
    """A name for the code of such layers, for blocks of this shape."""
    parts = (config.model_type, config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 0
    return "-".join(map(str, (dtype, *parts, getattr(config, "num_key_value_heads", 0), inner, *shape)))


@contextmanager
def compiled_layers(model: Any, shape: Shape | None, dtype: str) -> Iterator[None]:
    """The layers of a model on a processor are compiled for training on full blocks of ``shape``, at the first one
    inside; none: nothing is."""
    if shape is None:
        yield
        return
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    before = [vars(layer).get("forward") for layer in layers]
    with _kept_code():
        for layer in layers:
            layer.__dict__["forward"] = _for_blocks_of(shape, layer)
        try:
            yield
            _note(layers_name(model.config, dtype, shape), "cpu").touch()
        finally:
            for layer, forward in zip(layers, before, strict=True):
                if forward is None:
                    layer.__dict__.pop("forward")
                else:
                    layer.__dict__["forward"] = forward


def _for_blocks_of(shape: Shape, layer: Any) -> Callable[..., Any]:
    plain = layer.forward
    compiled = _compiled(plain, "a layer", dynamic=False)

    def forward(*args: Any, **kwargs: Any) -> Any:
        layout = kwargs.get("layout")
        fits = layout is not None and layout.full and (layout.num_documents, layout.longest) == shape
        fits = fits and torch.is_grad_enabled() and not layer.gradient_checkpointing
        return (compiled if fits else plain)(*args, **kwargs)

    return forward


@contextmanager
def _kept_code() -> Iterator[None]:
    """Inside, what is compiled is kept in :func:`cache_directory`."""
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    held = {name: os.environ.get(name) for name in _CACHES}
    os.environ.update({name: str(directory / part) for name, part in _CACHES.items()})
    try:
        yield
    finally:
        for name, value in held.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _compiled(plain: Callable[..., Any], name: str, *, dynamic: bool) -> Callable[..., Any]:
    """The compiled function; the plain one from then on when compiling fails, which is said aloud once."""
    from torch._dynamo.exc import TorchDynamoException  # seconds, and a hundred megabytes: only where it is used
    from torch._inductor.exc import InductorError

    current = torch.compile(plain, dynamic=dynamic, fullgraph=True)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        nonlocal current
        try:
            return current(*args, **kwargs)
        except (TorchDynamoException, InductorError) as error:
            say(f"{name} cannot be compiled, and is computed uncompiled: {str(error).strip().splitlines()[0]}")
            current = plain
            return plain(*args, **kwargs)

    return kernel


_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


def _note(what: str, device: str) -> Path:
    return cache_directory() / f"{device}-{what}"
