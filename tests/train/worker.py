"""One of several processes, started by torchrun: trains what the requests on the command line (JSON) ask for.

A request: ``sets`` (settings), ``inputs``, ``output``; ``sharded``: the base of an adapter is spread as well;
``stop_at`` and ``stop_rank``: this process gets SIGTERM in this step. ``short_at`` and ``short_rank``: it runs out of
memory there, as long as nothing is noted. Interruptions are printed, and the bytes that the training steps gathered and
summed, each as one line.
"""

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist

from ownchat import artifacts
from ownchat.config import load_config
from ownchat.errors import Interrupted
from ownchat.train import distributed, loop, micro_batch, sharding
from ownchat.train.stage import run

WHOLE_BASE, TRAIN_STEP, BEFORE_PASS = micro_batch.WHOLE_BASE, loop.train_step, sharding.before_pass
# what FSDP2 calls: of one name until torch 2.12, and of another since
GATHER, SUM = (
    name if hasattr(dist, name) else older
    for name, older in (
        ("all_gather_single", "all_gather_into_tensor"),
        ("reduce_scatter_single", "reduce_scatter_tensor"),
    )
)
COLLECTIVES = {name: getattr(dist, name) for name in (GATHER, SUM)}


def train(request: dict, world: distributed.World) -> None:
    micro_batch.WHOLE_BASE = -1.0 if request.get("sharded") else WHOLE_BASE
    done, moved, within = [], Counter(), []

    def stepped(*arguments, **keywords):
        done.append(1)
        if len(done) == request.get("stop_at") and world.rank == request["stop_rank"]:
            os.kill(os.getpid(), signal.SIGTERM)
        short = world.rank == request.get("short_rank") and len(done) == request["short_at"]
        if short and not artifacts.read_json(Path(request["output"]) / "sft" / "decisions.json")["rescues"]:
            raise loop.OutOfMemory("as if", items=max(map(len, keywords["mine"])), tokens=100)
        within.append(1)
        try:
            return TRAIN_STEP(*arguments, **keywords)
        finally:
            within.pop()

    def counted(name, function):
        def call(*arguments, **keywords):
            if within:
                tensors = [each for each in (*arguments, *keywords.values()) if isinstance(each, torch.Tensor)]
                moved[name] += max(tensor.nbytes for tensor in tensors)
            return function(*arguments, **keywords)

        return call

    def passed(*arguments, **keywords):
        moved["passes"] += 1
        return BEFORE_PASS(*arguments, **keywords)

    loop.train_step, sharding.before_pass = stepped, passed
    for name, function in COLLECTIVES.items():
        setattr(dist, name, counted("gathered" if name == GATHER else "summed", function))
    inputs = {name: Path(path) for name, path in request["inputs"].items()}
    try:
        run(load_config(sets=request["sets"])[0], inputs, Path(request["output"]))
    except Interrupted as error:
        print(f"rank {world.rank} of {world.size}: {error}", flush=True)
    if world.first:
        print(json.dumps({"output": Path(request["output"]).name, "steps": len(done), **moved}), flush=True)


if __name__ == "__main__":
    with distributed.together() as world:
        for request in json.loads(sys.argv[1]):
            train(request, world)
