"""What this machine is and what it can do, measured: the first thing to send along with a question."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata

from ownchat import __version__, artifacts

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "pyarrow", "numpy")


def examine() -> list[tuple[str, str]]:
    """(what, finding) lines; takes a few seconds because the speeds are measured."""
    import torch

    from ownchat.evaluate.report import conditions
    from ownchat.model import starter
    from ownchat.train.decisions import BFLOAT16_MIN_GAIN, matmul_tflops

    slow, fast = matmul_tflops(torch.float32), matmul_tflops(torch.bfloat16)
    better = "bfloat16" if fast > BFLOAT16_MIN_GAIN * slow else "float32"
    found = starter_state(artifacts.home() / "models" / starter.NAME)
    return [
        ("ownchat", f"{__version__}, Python {platform.python_version()} ({sys.executable})"),
        ("processor", f"{conditions().get('cpu', platform.processor())}, {os.cpu_count()} cores"),
        ("instructions", _instructions()),
        ("speed", f"float32 {slow:.2f}, bfloat16 {fast:.2f} TFLOP/s: trains in {better}"),
        ("memory", _memory()),
        ("disk", _disk()),
        ("GPU", _gpu()),
        ("packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
        ("home", str(artifacts.home())),
        ("starter", found),
    ]


def starter_state(directory: os.PathLike[str]) -> str:
    """Is the starter model there?"""
    if os.path.isfile(os.path.join(directory, artifacts.MANIFEST)):
        return f"ready ({directory})"
    return "not fetched yet: the first training fetches 93 MB"


def _instructions() -> str:
    try:
        with open("/proc/cpuinfo") as handle:
            flags = next((line.split(":")[1].split() for line in handle if line.startswith("flags")), [])
    except OSError:
        return "unknown (no /proc/cpuinfo)"
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
    return ", ".join(name for name in wanted if name in flags) or "none of the fast ones"


def _memory() -> str:
    try:
        with open("/proc/meminfo") as handle:
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in handle}
        return f"{sizes['MemTotal'] / 1e9:.1f} GB, {sizes['MemAvailable'] / 1e9:.1f} GB free"
    except (OSError, KeyError):
        return "unknown"


def _disk() -> str:
    usage = shutil.disk_usage(artifacts.home())
    return f"{usage.free / 1e9:.0f} GB free of {usage.total / 1e9:.0f} GB"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none (not needed)"
    name, total = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    return f"{name}, {total / 1e9:.0f} GB"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
