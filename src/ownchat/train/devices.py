"""Accelerators that one can rent, by their makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass

from ownchat.errors import ConfigError, nearest


@dataclass(frozen=True)
class Device:
    """Published figures of an accelerator: dense TFLOP/s in ``dtype``, memory, memory bandwidth."""

    tflops: float
    gigabytes: float
    gigabytes_per_second: float
    dtype: str = "bfloat16"


def device_named(name: str) -> Device:
    """The figures of a device; raises :class:`~ownchat.errors.ConfigError` with the names that are known."""
    if name.lower() not in DEVICES:
        hint = nearest(name.lower(), DEVICES) or f"known are {', '.join(DEVICES)}"
        raise ConfigError(f'the figures of "{name}" are not known', where="--device", fix=hint)
    return DEVICES[name.lower()]


# Dense TFLOP/s in bfloat16 without sparsity, GB and GB/s as the makers' data sheets say (SXM forms of h200, h100 and
# a100 with 80 GB). The t4 has no bfloat16.
DEVICES: dict[str, Device] = {
    "h200": Device(989, 141, 4800),
    "h100": Device(989, 80, 3350),
    "a100": Device(312, 80, 2039),
    "l40s": Device(362, 48, 864),
    "4090": Device(165, 24, 1008),
    "t4": Device(8.1, 16, 320, "float32"),
}
