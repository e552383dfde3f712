"""What `generate.policy` costs: the same answers through the filter with nothing on, and with each setting.

    python benchmarks/filter.py [--answers N] [--characters N]

No model runs: pieces of four characters, about what a token is, come as fast as they are taken, so what is measured is
the filter alone. Process time, not the clock on the wall, so that other programs count little; the fastest of three
runs. Half of the answers hold private data, none is abusive or denied: all of each answer goes out. Prints a table and,
last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator

from ownchat.generate.engine import Delta
from ownchat.generate.policy import Filter, Policy

PLAIN = (
    "You can return an order within thirty days, free of charge. Please write to us and give the number of your order. "
    "The parcel is sent back by post, and the money is on your account after a week. If the pump makes a noise, close "
    "the valve, wait ten minutes and open it again slowly. "
)
PRIVATE = (
    "Dear Ms Anna Berg, thank you for writing. Your card 4111 1111 1111 1111 was charged on the third of May. You can "
    "reach us under anna.berg@example.com or +44 20 7946 0958, also on Sundays. "
)
DENY = ("acme", "/inv-[0-9]+/")
POLICIES = {
    "none": Policy(),
    "deny": Policy(deny=DENY),
    "private": Policy(private=True),
    "toxicity": Policy(toxicity=True),
    "all": Policy(private=True, toxicity=True, deny=DENY),
}
RUNS = 3


def deltas(text: str) -> Iterator[Delta]:
    for number, start in enumerate(range(0, len(text), 4)):
        yield Delta(text[start : start + 4], (number,), (-1.0,))
    yield Delta("", (9,), (-1.0,), "stop")


def seconds(policy: Policy, texts: list[str]) -> float:
    """Of process time, for all of these answers."""
    found = Filter(policy)
    start = time.process_time()
    for text in texts:
        for _ in found.filtered(deltas(text)):
            pass
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--answers", type=int, default=10)
    parser.add_argument("--characters", type=int, default=800, help="of an answer; four are a token")
    arguments = parser.parse_args()
    texts = [
        (text * (1 + arguments.characters // len(text)))[: arguments.characters]
        for number in range(arguments.answers)
        for text in [PRIVATE + PLAIN if number % 2 else PLAIN]
    ]
    tokens = sum(len(range(0, len(text), 4)) for text in texts)
    results = {}
    for name, policy in POLICIES.items():
        seconds(policy, texts[:2])  # lists and the tagger are loaded once
        best = min(seconds(policy, texts) for _ in range(RUNS))
        results[name] = {
            "microseconds_a_token": round(1e6 * best / tokens, 1),
            "tokens_per_second": round(tokens / best),
        }
    print(f"{tokens:,} tokens in {len(texts)} answers\n")
    print("| policy | microseconds a token | tokens a second |\n|---|---|---|")
    for name, found in results.items():
        print(f"| {name} | {found['microseconds_a_token']:,.0f} | {found['tokens_per_second']:,} |")
    conditions = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"results": results, "tokens": tokens, "answers": len(texts)} | conditions))


if __name__ == "__main__":
    main()
