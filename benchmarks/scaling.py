"""How step time, speed and cost grow with the number of GPUs: counted, not measured. docs/scaling.md explains.

Computation is ownchat plan's formula: FLOPs of the model over an assumed share of the device's published speed.
Communication is what FSDP2 moves in a step, counted from the model, over published link speeds. The two overlap as far
as they can: a step takes the longer one, and the first gather and the last sum stand alone.

    python benchmarks/scaling.py                       a table, and last a line of JSON
    python benchmarks/scaling.py --price 2.50          with money; --device a100; --batch 1048576 for all GPUs
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from transformers import LlamaConfig

from ownchat.model import account as accounts
from ownchat.model.account import Account, BlockSize
from ownchat.train import micro_batch
from ownchat.train.devices import device_named
from ownchat.train.speed import SECONDS_PER_LAYER, speed_on

ADAPTER_BYTES = GRADIENT_BYTES = 4  # float32
DOCUMENT = 512  # tokens; half of them trained


@dataclass(frozen=True)
class Links:
    """Between GPUs: bytes per second in one direction for each GPU, seconds for a hop of a ring, GPUs of a machine."""

    inside: float
    outside: float
    inside_hop: float
    outside_hop: float
    base: float  # seconds to start a collective
    per_machine: int = 8


# NVLink 4: 900 GB/s both ways (NVIDIA H100 data sheet); InfiniBand NDR: 400 Gb/s for each GPU (DGX H100 user guide).
# Hops and start: NCCL's own model, src/graph/tuning.cc, ring with LL128: 1.9, 4.0 and 14 microseconds.
H100_CLUSTER = Links(inside=450e9, outside=50e9, inside_hop=1.9e-6, outside_hop=4.0e-6, base=14e-6)


@dataclass(frozen=True)
class Collectives:
    """What one process hands over or gets in one pass or step: sizes in bytes of what is whole, by collective."""

    gathers: tuple[float, ...]
    sums: tuple[float, ...]

    @property
    def received(self) -> float:
        """Bytes, as the size of what is whole: a process receives (N - 1) / N of it."""
        return sum(self.gathers) + sum(self.sums)


def collectives(account: Account, *, base: Literal["whole", "sharded"], passes: int) -> Collectives:
    """Of one step of ``passes`` forward and backward passes in each process (see ownchat.train.sharding).

    Full training: every pass gathers each layer twice, the rest once, and sums every gradient in float32. An adapter's
    gradient is summed once a step; with a whole base the adapter is gathered once a step, with a sharded one it is
    gathered with its layer in every pass.
    """
    layers, width = account.layers, account.weight_bytes
    rest = float(account.parameters - account.matrices) * width  # embedding, head and norms (those of layers are small)
    layer = account.matrices / layers * width
    if not account.adapter:
        gradients = (account.matrices / layers * GRADIENT_BYTES,) * layers
        one = ((layer,) * (2 * layers) + (rest,), (*gradients, rest / width * GRADIENT_BYTES))
        return Collectives(one[0] * passes, one[1] * passes)
    adapter = float(account.adapter) * ADAPTER_BYTES
    if base == "whole":
        return Collectives((adapter,), (adapter,))
    return Collectives(((layer + adapter / layers,) * (2 * layers) + (rest,)) * passes, (adapter / layers,) * layers)


def seconds_of(size: float, processes: int, links: Links) -> float:
    """A ring of so many GPUs gathers or sums ``size`` bytes.

    Between machines every GPU has a port of its own, so that a machine's ports carry what enters it.
    """
    if processes == 1:
        return 0.0
    machines = -(-processes // links.per_machine)
    inside = size * (processes - 1) / processes / links.inside
    hops = (processes - machines) * links.inside_hop
    if machines == 1:
        return links.base + hops + inside
    ports = links.per_machine * links.outside
    outside = size * (machines - 1) / machines / ports
    return links.base + hops + machines * links.outside_hop + max(inside, outside)


@dataclass(frozen=True)
class Step:
    """One optimiser step of ``gpus`` GPUs."""

    model: str
    method: str
    base: str
    gpus: int
    block_tokens: int  # of a pass in each GPU
    batch_tokens: int
    gigabytes: float  # of memory that each GPU needs
    gigabytes_received: float  # by each GPU
    computing: float  # seconds
    communicating: float
    seconds: float
    tokens_per_second: float
    efficiency: float  # of so many GPUs that need not talk
    gpu_hours_per_billion: float  # tokens
    money_per_billion: float | None


def step(
    name: str,
    account: Account,
    gpus: int,
    *,
    device: str = "h100",
    base: Literal["whole", "sharded"] = "sharded",
    tokens: int = 16_384,
    passes: int = 1,
    links: Links = H100_CLUSTER,
    price: float | None = None,
) -> Step:
    """A step in which every GPU has ``passes`` blocks of ``tokens`` tokens."""
    block = BlockSize(tokens, tokens * DOCUMENT, tokens // 2)
    flops = accounts.training_flops(account, block)
    rate = speed_on(device_named(device), account).training
    computing = passes * max(flops / rate, 3 * account.layers * SECONDS_PER_LAYER)
    moved = collectives(account, base=base, passes=passes)
    needed = micro_batch.with_allocator(
        accounts.memory(account, [block], device="cuda", shards=1 if account.adapter else gpus), "cuda", 1
    )
    each = [seconds_of(size, gpus, links) for size in (*moved.gathers, *moved.sums)]
    alone = (each[0] + each[-1]) if gpus > 1 else 0.0  # nothing to compute beside these
    seconds = max(computing, sum(each) - alone) + alone
    speed = gpus * passes * tokens / seconds
    hours = gpus * 1e9 / speed / 3600
    return Step(
        model=name, method="lora" if account.adapter else "full", base=base if account.adapter else "sharded",
        gpus=gpus, block_tokens=tokens, batch_tokens=gpus * passes * tokens, gigabytes=needed.peak / 1e9,
        gigabytes_received=moved.received * (gpus - 1) / gpus / 1e9,
        computing=computing, communicating=sum(each), seconds=seconds, tokens_per_second=speed,
        efficiency=computing / seconds, gpu_hours_per_billion=hours,
        money_per_billion=None if price is None else hours * price,
    )  # fmt: skip


def shape(
    vocabulary: int, width: int, inner: int, layers: int, heads: int, key_heads: int, *, tied: bool
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=key_heads, tie_word_embeddings=tied,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


MODELS: dict[str, tuple[LlamaConfig, Literal["lora", "full"], Literal["whole", "sharded"]]] = {
    "135M": (shape(49_152, 576, 1536, 30, 9, 3, tied=True), "lora", "whole"),  # the starter
    "1.3B": (shape(32_000, 2048, 5504, 24, 16, 16, tied=False), "full", "sharded"),
    "6.7B": (shape(32_000, 4096, 11_008, 32, 32, 32, tied=False), "full", "sharded"),  # Llama 2 7B
}
GPUS = (1, 8, 64, 1024)


def table(device: str, *, batch: int | None = None, price: float | None = None) -> list[Step]:
    """Steps of all models on so many GPUs. Blocks as ownchat plan would make them.

    ``batch``: tokens of a step, shared by the GPUs; none: every GPU has one block as large as its memory takes.
    """
    rows = []
    for name, (config, method, base) in MODELS.items():
        account = accounts.count(config, method=method, dtype=device_named(device).dtype)
        for gpus in GPUS:
            room = int(device_named(device).gigabytes * 1e9)
            fits = micro_batch.fitting_block_tokens(account, "cuda", DOCUMENT, room, processes=gpus)
            share = fits if batch is None else max(DOCUMENT, batch // gpus)
            passes = -(-share // fits)
            rows.append(
                step(name, account, gpus, device=device, base=base, tokens=share // passes, passes=passes, price=price)
            )
    return rows


def lines(rows: list[Step]) -> list[str]:
    """The table in Markdown."""
    head = ["model", "GPUs", "batch, tokens", "memory", "received", "computing", "moving", "step", "tokens/s",
            "efficiency", "GPU hours a billion"]  # fmt: skip
    priced = rows[0].money_per_billion is not None
    found = [[*head, *(["money a billion"] if priced else [])], ["---"] * (len(head) + priced)]
    for row in rows:
        cells: list[Any] = [
            f"{row.model} {row.method}", f"{row.gpus:,}", f"{row.batch_tokens:,}", f"{row.gigabytes:.0f} GB",
            f"{row.gigabytes_received:.2f} GB",
            f"{1000 * row.computing:,.0f} ms", f"{1000 * row.communicating:,.1f} ms", f"{1000 * row.seconds:,.0f} ms",
            f"{row.tokens_per_second:,.0f}", f"{row.efficiency:.0%}", f"{row.gpu_hours_per_billion:,.1f}",
        ]  # fmt: skip
        found.append([*cells, *([f"{row.money_per_billion:,.0f}"] if priced else [])])
    return [f"| {' | '.join(map(str, cells))} |" for cells in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="h100", help="see ownchat plan --device")
    parser.add_argument("--batch", type=int, help="tokens of a step, shared by all GPUs; none: a full block in each")
    parser.add_argument("--price", type=float, help="of one GPU for an hour")
    given = parser.parse_args()
    rows = table(given.device, batch=given.batch, price=given.price)
    print("\n".join(lines(rows)))
    print(json.dumps({"benchmark": "scaling", "device": given.device, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
