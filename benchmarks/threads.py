"""How well channels are taken apart, beside a simple rule, on logs whose replies people have marked.

The logs are those of Kummerfeld et al. 2019 (https://jkk.name/irc-disentanglement; CC BY 4.0), in the folder
``$OWNCHAT_DATASETS/ubuntu_irc``: every second training file fits the weights, the others and the channels of
``new-domains`` are only measured. Links are counted as its ``graph-eval.py`` counts them (a message that begins
something links to itself), exact conversations without those of one message. The simple rule: the last message of
whoever is named first, else the message before.

    OWNCHAT_DATASETS=... python benchmarks/threads.py          measure; prints a table and, last, a line of JSON
    OWNCHAT_DATASETS=... python benchmarks/threads.py --fit    fit the weights again and print them first
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ownchat.data import threads
from ownchat.data.chats import irc
from ownchat.data.files import open_file
from ownchat.data.ledger import Entry
from ownchat.data.talk import Turn
from ownchat.data.threads import FAR, FEATURES, Channel, Message

PAUSE = 6 * 3600.0
Links = dict[int, set[int]]  # line (from 0) -> lines that it answers; its own: it begins something
Log = tuple[list[Turn | Entry], Links]
Rule = Callable[[Channel, Message], Message | None]


def load(path: Path) -> Log:
    """The lines of a log, and the marked links of its annotated end."""
    items = list(irc.turns(open_file(path, path.name)))
    annotation = path.name.replace(".raw.", ".annotation.").replace(".ascii.", ".annotation.")
    gold: Links = defaultdict(set)
    for _, line in open_file(path.with_name(annotation), annotation).lines():
        lines = [int(number) for number in line.split() if number != "-"]
        if lines:
            gold[max(lines)].add(min(lines))
    return items, gold


def mentioned_or_previous(channel: Channel, message: Message) -> Message | None:
    if message.names and message.names[0] in channel.said:
        return channel.said[message.names[0]][-1]
    return channel.recent[-1] if channel.recent else None


def predict(log: Log, rule: Rule) -> Links:
    items, gold = log
    channel, places, links = Channel(PAUSE), dict[int, int](), Links()
    for place, item in enumerate(items):
        found = place
        if isinstance(item, Turn):
            message = channel.message(item)
            places[message.number] = place
            antecedent = rule(channel, message)
            list(channel.add(message, antecedent))
            found = place if antecedent is None else places[antecedent.number]
        if place in gold:
            links[place] = {found}
    return links


def conversations(links: Links) -> set[frozenset[int]]:
    above: dict[int, int] = {}

    def top(one: int) -> int:
        while above.setdefault(one, one) != one:
            one = above[one]
        return one

    for one, others in links.items():
        for other in others:
            above[top(one)] = top(other)
    held: dict[int, set[int]] = defaultdict(set)
    for one in list(above):
        held[top(one)].add(one)
    return {frozenset(lines) for lines in held.values() if len(lines) > 1}


def shares(hits: int, made: int, wanted: int) -> dict[str, float]:
    """Precision, recall and F1 in percent."""
    precision, recall = 100 * hits / max(made, 1), 100 * hits / max(wanted, 1)
    return {
        "precision": round(precision, 1),
        "recall": round(recall, 1),
        "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 1),
    }


def measure(logs: list[Log], rule: Rule) -> dict[str, dict[str, float]]:
    links, exact = np.zeros(3, int), np.zeros(3, int)
    for log in logs:
        made, gold = predict(log, rule), log[1]
        links += (
            sum(len(made[one] & gold[one]) for one in gold),
            sum(map(len, made.values())),
            sum(map(len, gold.values())),
        )
        a, b = conversations(made), conversations(gold)
        exact += (len(a & b), len(a), len(b))
    return {"links": shares(*links.tolist()), "conversations": shares(*exact.tolist())}


def fit(logs: list[Log], steps: int = 300, decay: float = 0.3) -> np.ndarray:
    """Weights under which the marked antecedents are likeliest: a softmax over the candidates of each message."""
    columns: list[int] = []  # feature of each entry of the sparse matrix, and its row (a candidate)
    rows: list[int] = []
    marked: list[bool] = []
    starts: list[int] = []
    for items, gold in logs:
        channel, by_place, places = Channel(PAUSE), dict[int, Message](), dict[int, int]()
        for place, item in enumerate(items):
            if not isinstance(item, Turn):
                continue
            message = channel.message(item)
            by_place[place], places[message.number] = message, place
            antecedent = mentioned_or_previous(channel, message) if message.names else None
            if place in gold:
                candidates = channel.candidates(message)
                right = [places[one.number] in gold[place] for one in candidates] + [place in gold[place]]
                features = [*channel.features(message, candidates), channel.beginning(message)]
                if any(right):
                    starts.append(len(marked))
                    for number, indices in enumerate(features, len(marked)):
                        columns += indices
                        rows += [number] * len(indices)
                    marked += right
                known = [by_place[line] for line in gold[place] if line != place and line in by_place]
                antecedent = max(known, key=lambda one: one.number, default=None)
            list(channel.add(message, antecedent))
    column, row, right_ones, start = np.array(columns), np.array(rows), np.array(marked), np.array(starts)
    segment = np.repeat(np.arange(len(start)), np.diff([*starts, len(marked)]))
    weights = first = second = np.zeros(FEATURES)
    for step in range(1, steps + 1):
        scores = np.bincount(row, weights[column], len(right_ones))
        likely = np.exp(scores - np.maximum.reduceat(scores, start)[segment])
        wanted = np.where(right_ones, likely, 0)
        given = likely / np.add.reduceat(likely, start)[segment] - wanted / np.add.reduceat(wanted, start)[segment]
        gradient = np.bincount(column, given[row], FEATURES) + decay * weights
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        rate = 0.1 * (1.02 - step / steps)
        weights = weights - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return weights


def speed(paths: list[Path]) -> float:
    """Megabytes of log a second: lines read, taken apart."""
    files = [open_file(path, path.name) for path in paths]
    size = sum(len(file.sample) for file in files)
    start = time.perf_counter()
    for file in files:
        for _ in threads.take_apart(irc.turns(file), PAUSE):
            pass
    return size / (time.perf_counter() - start) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the weights again and print them")
    arguments = parser.parse_args()
    folder = os.environ.get("OWNCHAT_DATASETS")
    if not folder:
        raise SystemExit("set OWNCHAT_DATASETS to the folder that holds ubuntu_irc")
    paths = sorted(Path(folder, "ubuntu_irc", "train").glob("*.raw.*"))
    fitted = [load(path) for path in paths[::2]]
    sets = {
        "fitted": fitted,
        "held out": [load(path) for path in paths[1::2]],
        "new domains": [load(path) for path in sorted(Path(folder, "ubuntu_irc", "new-domains").glob("*.ascii.*"))],
    }
    if arguments.fit:
        weights = fit(fitted)
        print(", ".join(f"{weight:.2f}" for weight in weights))
        threads.WEIGHTS = tuple(weights.tolist())
    rules: dict[str, Rule] = {"simple rule": mentioned_or_previous, "ownchat": lambda c, m: c.antecedent(m)}
    figures = {name: {rule: measure(logs, one) for rule, one in rules.items()} for name, logs in sets.items()}
    print(f"{'':14}{'':14}{'links P':>9}{'R':>7}{'F1':>7}{'exact P':>10}{'R':>7}{'F1':>7}")
    for name, by_rule in figures.items():
        for rule, one in by_rule.items():
            links, exact = one["links"].values(), one["conversations"].values()
            print(
                f"{name:14}{rule:14}"
                + "".join(f"{x:>{w}}" for x, w in zip([*links, *exact], (9, 7, 7, 10, 7, 7), strict=True))
            )
    print(json.dumps({"benchmark": "threads", "window": FAR, "mb_per_second": round(speed(paths), 2), **figures}))


if __name__ == "__main__":
    main()
