"""Norms and gates compiled: one pass over memory where the formulas, written out in torch, make five.

``torch.compile`` makes C++ of them on a CPU and Triton on a GPU. Only these few functions are compiled, not the layers:
a layer takes minutes to compile on two cores, and gains little beyond them (LOG.md). The machine code is kept in a
directory of ours, so that it is made once; sizes may differ from call to call (``dynamic``).
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

from ownchat import artifacts
from ownchat.model import elementwise
from ownchat.monitor.progress import say

KINDS = ("rms_norm", "rms_norm_backward", "gated", "gated_backward")


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


def is_compiled(dtype: str, device: str) -> bool:
    """Was it done before on this machine, so that little is left to do?"""
    return _note(dtype, device).is_file()


@contextmanager
def compiled_kernels(enabled: bool, dtype: str, device: str) -> Iterator[None]:
    """Norms and gates are compiled at their first call inside, and are as before afterwards."""
    if not enabled:
        yield
        return
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    before, held = elementwise.kernels, {name: os.environ.get(name) for name in _CACHES}
    os.environ.update({name: str(directory / part) for name, part in _CACHES.items()})
    elementwise.kernels = elementwise.Kernels(**{kind: _compiled(kind) for kind in KINDS})
    try:
        yield
        _note(dtype, device).touch()
    finally:
        elementwise.kernels = before
        for name, value in held.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _compiled(kind: str) -> Callable[..., Any]:
    """The compiled function; the plain one from then on when compiling fails, which is said aloud once."""
    from torch._dynamo.exc import TorchDynamoException  # seconds, and a hundred megabytes: only where it is used
    from torch._inductor.exc import InductorError

    plain = getattr(elementwise, kind)
    current = torch.compile(plain, dynamic=True, fullgraph=True)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        nonlocal current
        try:
            return current(*args, **kwargs)
        except (TorchDynamoException, InductorError) as error:
            say(f"{kind} cannot be compiled, and is computed uncompiled: {str(error).strip().splitlines()[0]}")
            current = plain
            return plain(*args, **kwargs)

    return kernel


_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


def _note(dtype: str, device: str) -> Path:
    return cache_directory() / f"{device}-{dtype}"
