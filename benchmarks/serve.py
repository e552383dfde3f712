"""What serving costs, beside transformers, llama.cpp's own server and vLLM: speed, the gateway's share, and load.

    python benchmarks/serve.py                                  all parts; the mixed load takes ten minutes
    python benchmarks/serve.py --only single gateway streams    speed alone, a few minutes
    python benchmarks/serve.py --only soak --minutes 60
    python benchmarks/serve.py --vllm-python ~/vllm/bin/python  vLLM too, from an environment of its own

Run it alone on the machine. Each side is a process as its users start it, with the same model and the same number of
threads; sides answer in turn, each its first round uncounted, and the median of the others counts. Greedy; questions
differ from round to round, so that no prompt is found in a cache. Parts:

    single    one answer: ownchat serve with 8-bit and float16 weights, generate, the peers' servers
    gateway   ownchat serve beside its own engine without a gateway, round by round
    streams   eight answers at once against one
    burst     1,000 requests at once: what there is no room for has to be 429
    soak      minutes of mixed load with floods and clients that vanish; memory of the process over that time
    vanish    how long until the slot of a client that hung up is free

Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from serve_peers.client import Round
from serve_peers.load import burst, soak, vanish
from serve_peers.sides import Failed, Served, llama_server, ownchat, transformers_serve, vllm, worker

PARTS = ("single", "gateway", "streams", "burst", "soak", "vanish")
STORY = "Tell me a long story about a ship that sails around the world."
BROKEN = (Failed, RuntimeError, OSError)  # what a side that cannot go on raises
FLOAT16 = "starter-float16"  # the name of the model's copy that is served in float16
PEERS = ("generate, float32", "generate, bfloat16", "llama.cpp's server", "transformers serve", "vLLM")


class Bench:
    """What all parts share: a home with the model, and how each side is started."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        from ownchat.generate.exports.weights import Weights
        from ownchat.generate.gguf_cache import on_grid
        from ownchat.model.load import resolve_base

        self.given, self.folder, self.home = given, folder, folder / "home"
        base = resolve_base(given.model)
        self.model = self.home / "models" / "starter"
        shutil.copytree(base, self.model, copy_function=_link)
        (self.model / ".complete").touch()
        self.config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        self.on_grid = on_grid(Weights(base))
        apart = folder / "home-float16" / "models" / FLOAT16  # two servers do not share a home
        self.float16 = off_grid(self.model, apart) if self.on_grid else self.model
        self.bias = dict.fromkeys(map(str, _end_ids(base)), -100)
        self.long = ("The ship sails on. " * 220)[: min(4000, self.config.get("max_position_embeddings", 2048) // 2)]

    @property
    def kind(self) -> str:
        """Of the weights that the model is served in."""
        return "8-bit" if self.on_grid else "float16"

    def ownchat(self, slots: int, model: Path | None = None) -> AbstractContextManager[Served]:
        model = self.model if model is None else model
        return ownchat(self.folder, model.parents[1], model.name, self.bias, self.given.threads, slots)

    def engine(self, slots: int) -> AbstractContextManager[Any]:
        return worker("engine", self.folder, self.home, model=self.model, threads=self.given.threads, slots=slots)

    def peer(self, name: str, slots: int) -> AbstractContextManager[Any]:
        threads = self.given.threads
        if name.startswith("generate"):
            dtype = name.partition(", ")[2]
            return worker("generate", self.folder, self.home, model=self.model, threads=threads, dtype=dtype)
        if name == "transformers serve":
            return transformers_serve(self.folder, self.model, threads)
        if name == "vLLM":
            return vllm(self.folder, self.given.vllm_python, self.model, self.bias, threads)
        context = min(2048, self.config.get("max_position_embeddings", 2048))
        task = {"model": self.model, "threads": threads, "slots": slots, "context": context}
        return llama_server(self.folder, self.home, self.bias, **task)


def main() -> None:
    given = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the sides are ended, too
    with tempfile.TemporaryDirectory(prefix="ownchat-serve-", dir=given.folder) as folder:
        bench = Bench(given, Path(folder))
        found: dict[str, Any] = {}
        for part in PARTS:
            if part in given.only:
                note(part)
                try:
                    found[part] = globals()[f"measure_{part}"](bench)
                except BROKEN as error:  # what was measured before is not lost
                    found[part] = {"failed": str(error)}
                print(table(part, found[part]), flush=True)
    from ownchat.evaluate.report import conditions

    facts = {
        "benchmark": "serve", "model": given.model, "weights": bench.kind, "threads": given.threads,
        "tokens": given.tokens, "rounds": given.rounds, "streams": given.streams,
    }  # fmt: skip
    print(json.dumps({**facts, "ratios": ratios(found), "parts": found, "conditions": conditions()}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="starter", help="starter, a run, or a directory")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=128, help="of each measured answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=8, help="answers at once")
    parser.add_argument("--slots", type=int, default=4, help="of the server under load")
    parser.add_argument("--minutes", type=float, default=10.0, help="of mixed load")
    parser.add_argument("--requests", type=int, default=1000, help="at once")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--vllm-python", type=Path, help="Python of an environment with vLLM for processors")
    parser.add_argument("--folder", type=Path, help="for what is kept meanwhile: the model's size three times")
    given = parser.parse_args()
    if min(given.rounds, given.tokens, given.streams, given.slots, given.threads) < 1 or given.minutes <= 0:
        parser.error("--rounds, --tokens, --streams, --slots, --threads and --minutes have to be above 0")
    return given


# --------------------------------------------------------------------------------------------------------- parts


def measure_single(bench: Bench) -> dict[str, Any]:
    """One answer at a time."""
    sides = {f"ownchat serve, {bench.kind}": bench.ownchat(1)}
    if bench.on_grid:
        sides["ownchat serve, float16"] = bench.ownchat(1, bench.float16)
    sides |= {name: bench.peer(name, 1) for name in bench.given.peers}
    return compared(sides, bench, (1,))


def measure_gateway(bench: Bench) -> dict[str, Any]:
    """The server and its engine alone: each round's difference."""
    slots, found = bench.given.streams, dict[str, Any]()
    with ExitStack() as stack:
        sides = {"engine": stack.enter_context(bench.engine(slots)),
                 "served": stack.enter_context(bench.ownchat(slots))}  # fmt: skip
        for streams in (1, slots):
            rounds = in_turn(sides, bench, streams)
            if len(rounds) < len(sides):
                raise Failed(f"only {', '.join(rounds) or 'nobody'} answered {streams} at once")
            costs = [
                1 - served.speed / bare.speed for bare, served in zip(rounds["engine"], rounds["served"], strict=True)
            ]
            found[str(streams)] = {
                "engine": round(statistics.median(one.speed for one in rounds["engine"]), 2),
                "served": round(statistics.median(one.speed for one in rounds["served"]), 2),
                "cost": round(statistics.median(costs), 4),
                "costs": [round(cost, 4) for cost in costs],
            }
    return found


def measure_streams(bench: Bench) -> dict[str, Any]:
    """Many at once against one, on the same server."""
    slots = bench.given.streams
    sides = {f"ownchat serve, {bench.kind}": bench.ownchat(slots)}
    sides |= {name: bench.peer(name, slots) for name in bench.given.peers if name != "generate, float32"}
    return compared(sides, bench, (1, slots))


def measure_burst(bench: Bench) -> dict[str, Any]:
    """Far more than there is room for."""
    with bench.ownchat(bench.given.slots) as served:
        served.round([STORY], 4)
        return burst(served, bench.given.requests, waves=4, tokens=8)


def measure_soak(bench: Bench) -> dict[str, Any]:
    """All that clients do, for a while."""
    with bench.ownchat(bench.given.slots) as served:
        served.round([STORY], 4)
        return soak(served, bench.given.minutes, clients=3 * bench.given.slots, flood=100, long=bench.long)


def measure_vanish(bench: Bench) -> dict[str, Any]:
    """Clients that hang up."""
    with bench.ownchat(bench.given.slots) as served:
        served.round([STORY], 4)
        return vanish(served, bench.given.rounds, bench.long)


def compared(
    sides: Mapping[str, AbstractContextManager[Any]], bench: Bench, streams: tuple[int, ...]
) -> dict[str, Any]:
    """Tokens per second of each side with each number of answers at once, all sides open, in turn."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        running = {}
        for name, side in sides.items():
            try:
                running[name] = stack.enter_context(side)
                running[name].round([f"hello, {STORY}"], 4)  # loads what is loaded late
            except BROKEN as error:
                note(f"{name}: {error}")
                found[name] = {"failed": str(error)}
                running.pop(name, None)
        for number in streams:
            for name, rounds in in_turn(running, bench, number).items():
                firsts = [one.first for one in rounds if one.first is not None]
                found.setdefault(name, {})[str(number)] = {
                    "tokens_per_second": round(statistics.median(one.speed for one in rounds), 2),
                    "first_ms": round(statistics.median(firsts) * 1000) if firsts else None,
                    "all": [round(one.speed, 2) for one in rounds],
                }
    return found


def in_turn(sides: Mapping[str, Any], bench: Bench, streams: int) -> dict[str, list[Round]]:
    """Rounds of all sides in turn, forwards and backwards, without the first of each and without sides that break."""
    rounds: dict[str, list[Round]] = {name: [] for name in sides}
    for number in range(bench.given.rounds + 1):
        texts = [f"Story {number} of {streams}, part {one}. {STORY}" for one in range(streams)]
        names = list(sides)
        for name in names if number % 2 else reversed(names):
            if name not in rounds:
                continue
            try:
                rounds[name].append(sides[name].round(texts, bench.given.tokens))
            except BROKEN as error:
                note(f"{name} with {streams} at once: {error}")
                del rounds[name]
    return {name: kept[1:] for name, kept in rounds.items()}


# ------------------------------------------------------------------------------------------------------- figures


def ratios(found: Mapping[str, Any]) -> dict[str, float | bool | None]:
    """What the parts come to; None for what was not measured."""
    found = {part: rows for part, rows in found.items() if "failed" not in rows}
    single, streams = found.get("single", {}), found.get("streams", {})

    def speed(part: Mapping[str, Any], side: str, number: str = "1") -> float | None:
        value = part.get(side, {}).get(number, {}).get("tokens_per_second")
        return None if value is None else float(value)

    def over(one: float | None, other: float | None) -> float | None:
        return None if not one or not other else round(one / other, 2)

    told: dict[str, float | bool | None] = {}
    for kind in ("8-bit", "float16"):
        for peer in ("generate, float32", "generate, bfloat16", "llama.cpp's server"):
            told[f"{kind} to {peer}"] = over(speed(single, f"ownchat serve, {kind}"), speed(single, peer))
    for side, rows in streams.items():
        most = max((row for row in rows if row.isdigit()), key=int, default="1")
        told[f"{most} at once to one: {side}"] = over(speed(streams, side, most), speed(streams, side))
    for number, row in found.get("gateway", {}).items():
        told[f"gateway's cost, {number} at once"] = row["cost"]
    return told


def table(part: str, found: Mapping[str, Any]) -> str:
    """A part for people."""
    lines = [f"\n{part}"]
    if "failed" in found:
        lines.append(found["failed"])
    elif part in ("single", "streams"):
        for name, row in found.items():
            if "failed" in row:
                lines.append(f"{name:28}  {row['failed']}")
            for number, one in row.items() if "failed" not in row else ():
                first = "" if one["first_ms"] is None else f"{one['first_ms']:>8,} ms to the first"
                lines.append(f"{name:28}{number:>3} at once{one['tokens_per_second']:>9.1f} tokens/s{first}")
    elif part == "gateway":
        for number, row in found.items():
            lines.append(
                f"{number:>3} at once: engine {row['engine']:.1f}, served {row['served']:.1f} tokens/s: "
                f"the gateway costs {row['cost']:.1%}"
            )
    elif part == "vanish":
        for kind, row in found.items():
            lines.append(f"{kind:8} free after {row['median']:.3f} s, at most {row['longest']:.3f} s")
    else:
        lines += [f"{name:18} {value}" for name, value in found.items()]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------- inside


def off_grid(model: Path, target: Path) -> Path:
    """A copy that differs in one weight, which no grid of four bits has: it is served in float16."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, target, copy_function=_link)
    changed = False
    for file in sorted(target.glob("*.safetensors")):
        weights = load_file(file)
        name = next((name for name in weights if "layers.0" in name and weights[name].dim() == 2), None)
        if name is not None and not changed:
            weights[name].view(-1)[0] += 0.0123
            file.unlink()  # a link, maybe: the other must stay
            save_file(weights, file, metadata={"format": "pt"})
            changed = True
    return target


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target


def _end_ids(model: Path) -> list[int]:
    from ownchat.generate.backend import end_ids_of, parts_of
    from ownchat.generate.locate import Located
    from ownchat.model.load import load_tokenizer

    return end_ids_of(parts_of(Located(model)), load_tokenizer(model))


def note(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
