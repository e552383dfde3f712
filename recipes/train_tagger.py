"""Rebuild the tagger that finds private data: ``python recipes/train_tagger.py`` (up to twenty minutes, 2.5 GB).

Reads the labelled sets under ``OWNCHAT_DATASETS`` (see ``tagger_data.py`` for what is held back), makes up more text
(``tagger_templates.py``, ``tagger_registers.py``), and writes ``src/ownchat/clean/private/tagger.npz``
and its numbers in the card. The same data and seed give the same file. ``--without airline``
leaves a domain of MultiDoGO out, for the benchmark.

The objective is the likelihood of what the labels allow, by AdaGrad over mini-batches; for the gradient the
probabilities come from the tagger's own forward-backward pass, once free and once held to the labels.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
from tagger_data import (
    DOMAINS,
    Example,
    channel,
    declarations,
    given_names,
    multidogo,
    named,
    pii_syn,
    plain_texts,
    presidio,
    questions,
    reviews,
    sgd,
    sums,
    web,
)  # fmt: skip
from tagger_fillers import SPOKEN_TITLES, TITLES, Fillers, made_up
from tagger_lexicon import build_lexicon, is_common

from ownchat.clean.private.features import (
    AFTER,
    BEFORE,
    GROUPS,
    NUM_BUCKETS,
    SHIFTS,
    Lexicon,
    Tokens,
    Words,
    joint_buckets,
    pad_sequences,
)  # fmt: skip
from ownchat.clean.private.tagger import FILE, LABELS, passes, window_sums

SEED = 0
EPOCHS, BATCH, RATE, DECAY, WORD_DROPOUT = 3, 800, 0.16, 2e-6, 0.15
LEAST_TEXTS = 4  # a feature that stands in fewer training texts is not kept
NEVER = -1e9
NUMBERS = {label: number for number, label in enumerate(LABELS)}


# ------------------------------------------------------------------------------------------------------------- texts


def lower_case(example: Example) -> Example:
    text, spans = example
    lowered = text.lower()
    return (lowered, spans) if len(lowered) == len(text) else example


def strip_marks(example: Example) -> Example:
    """Lower case and without punctuation, as speech is written down; the marks inside words go without a trace."""
    text, spans = lower_case(example)
    keep = [character.isalnum() or character.isspace() for character in text]
    # "o'neil" -> "oneil", but "12/05" -> "12 05" half of the time would be another noise; spaces stay as they are
    position = np.cumsum([0, *keep]).tolist()
    kept = "".join(character for character, is_kept in zip(text, keep, strict=True) if is_kept)
    return kept, [(position[a], position[b], labels) for a, b, labels in spans if position[b] > position[a]]


def capitals(example: Example) -> Example:
    text, spans = example
    raised = text.upper()
    return (raised, spans) if len(raised) == len(text) else example


def noisy(
    examples: list[Example], rng: random.Random, *, lower: float, bare: float, upper: float = 0.02
) -> list[Example]:
    """The examples, and copies of some in lower case, without marks, or in capitals."""
    more = []
    for example in examples:
        if rng.random() < lower:
            more.append(lower_case(example))
        if rng.random() < bare:
            more.append(strip_marks(example))
        if rng.random() < upper:
            more.append(capitals(example))
    return examples + more


def training_texts(root: Path, lexicon: Lexicon, without: str = "", made: int = 45_000) -> list[Example]:
    rng = random.Random(SEED)
    chat = [row for domain in DOMAINS if domain != without for row in multidogo(root, "train", domain)]
    seen = Counter[str]()
    unique = []
    for text, spans in chat:  # "hi" stands there a thousand times
        seen[text] += 1
        if seen[text] <= 3:
            unique.append((text, spans))
    # Chat that was written with capitals: names as people type them on a better day.
    titled = [(text.title() if rng.random() < 0.5 else text[:1].upper() + text[1:] + ".", spans) for text, spans in unique if rng.random() < 0.12]  # fmt: skip  # noqa: E501
    research = list(presidio(root, held_back=False))
    tweets = list(named(root, "wnut-train")) + list(named(root, "btc"))
    formal = list(named(root, "wikigold-train"))
    people = [text[a:b] for text, spans in research for a, b, labels in spans if labels == ("person",)]
    lasts = sorted({name.split()[-1] for name in people if len(name.split()) > 1 and name[0].isupper()})
    firsts = given_names(root) + sorted(
        {name.split()[0] for name in people if len(name.split()) > 1 and name[0].isupper()}
    )
    places = sorted({
        text[a:b].title() for text, spans in research + tweets + formal
        for a, b, labels in spans if labels == ("place",) and b - a > 3 and text[a:b].replace(" ", "").isalpha()
    })  # fmt: skip
    fillers = Fillers(rng, firsts, lasts, places)
    invented: list[Example] = [
        (
            text,
            [
                (a, b, ("person", "O") if text[a:b].lower().strip(".") in TITLE_WORDS else (label,))
                for a, b, label in spans
            ],
        )
        for text, spans in made_up(made, fillers)
    ]
    rows = unique + titled
    rows += noisy(research, rng, lower=0.5, bare=0.5) + noisy(tweets, rng, lower=0.25, bare=0.15)
    rows += noisy(formal, rng, lower=0.25, bare=0.15) * 2 + noisy(invented, rng, lower=0.35, bare=0.3)
    rows += noisy(list(pii_syn(root, held_back=False)), rng, lower=0.5, bare=0.5) * 3
    rows += noisy(list(sgd(root, 30))[::5], rng, lower=0.3, bare=0.3) + noisy(
        list(questions(root)), rng, lower=0.3, bare=0.3
    )
    rows += noisy(list(web(root, lambda word: is_common(lexicon, word))), rng, lower=0.1, bare=0.05)
    rows += list(channel(root)) + list(reviews(root)) + list(sums(root))
    rows += noisy(list(declarations(root)), rng, lower=0.5, bare=0.3)
    rows += labels(root, rng, {name.lower() for name in firsts + lasts})
    rng.shuffle(rows)
    return rows


def labels(root: Path, rng: random.Random, names: set[str], count: int = 6_000) -> list[Example]:
    """Words alone and words joined to labels ("card_arrival"), as data sets answer with: nobody."""
    seen = Counter(word for text in plain_texts(root) for word in re.findall(r"\b[a-z]{3,12}\b", text))
    words = [word for word, _ in seen.most_common(8_000)[100:] if word not in names]
    rows: list[Example] = []
    for _ in range(count):
        some = rng.choices(words, k=rng.choice([1, 1, 2, 2, 3, 4]))
        if rng.random() < 0.3:
            some = [word.title() for word in some]
        text = rng.choice(["_", "_", "-", " ", " ", ""]).join(some) if len(some) > 1 else some[0]
        rows.append((text + rng.choice(["", "", "", "."]), []))
    return rows


TITLE_WORDS = {title.lower().strip(".") for title in TITLES + SPOKEN_TITLES}


def allowed_labels(tokens: Tokens, examples: list[Example]) -> np.ndarray:
    """0 where a label is allowed for a token, else a large negative number: (num_tokens, labels)."""
    allowed = np.full((len(tokens), len(LABELS)), NEVER, np.float32)
    allowed[:, 0] = 0
    first = np.searchsorted(tokens.texts, np.arange(len(examples) + 1))
    for number, (_, spans) in enumerate(examples):
        low, high = first[number], first[number + 1]
        for start, end, labels in spans:
            hit = low + np.flatnonzero((tokens.starts[low:high] < end) & (tokens.ends[low:high] > start))
            allowed[hit] = NEVER
            for label in labels:
                allowed[hit, NUMBERS[label]] = 0
    return allowed


# ---------------------------------------------------------------------------------------------------------- training


class Corpus:
    """Training texts as arrays, with the buckets that are used numbered from 1."""

    def __init__(self, examples: list[Example], lexicon: Lexicon) -> None:
        import torch

        self.words = Words(lexicon)
        self.tokens = Tokens([text for text, _ in examples], self.words)
        self.allowed = allowed_labels(self.tokens, examples)
        self.padded, self.places = pad_sequences(self.tokens, self.words)
        self.joint = joint_buckets(self.tokens, self.words, self.padded, self.places)
        features = self.words.features
        self.lists = {group: [np.array(f[group], np.int64) for f in features] for group in GROUPS}
        counts = np.zeros(NUM_BUCKETS, np.int64)
        frequency = np.bincount(self.tokens.ids, minlength=self.words.count)
        for group in GROUPS:
            lengths = np.fromiter(map(len, self.lists[group]), np.int64)
            np.add.at(counts, np.concatenate(self.lists[group]), np.repeat(np.maximum(frequency, 1), lengths))
        np.add.at(counts, self.joint.ravel(), 1)
        kept = np.flatnonzero(counts >= LEAST_TEXTS)
        self.buckets = kept
        number = np.zeros(NUM_BUCKETS, np.int64)
        number[kept] = np.arange(1, len(kept) + 1)
        self.joint = number[self.joint]
        self.flat, self.offsets = {}, {}
        for group in GROUPS:
            lists = self.lists[group]
            self.offsets[group] = np.concatenate([[0], np.cumsum(np.fromiter(map(len, lists), np.int64))])
            self.flat[group] = number[np.concatenate(lists)]
        self.torch = torch


def train(examples: list[Example], lexicon: Lexicon, epochs: int = EPOCHS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Buckets (n,), rows (n, labels) and transitions (labels, labels)."""
    import torch

    corpus = Corpus(examples, lexicon)
    tokens, size = corpus.tokens, len(LABELS)
    print(
        f"{len(examples)} texts, {len(tokens)} tokens, {corpus.words.count} words, {len(corpus.buckets)} features",
        flush=True,
    )
    rows = torch.zeros(len(corpus.buckets) + 1, size)
    squares = torch.full_like(rows, 0.1)
    transitions, transition_squares = np.zeros((size, size), np.float32), np.full((size, size), 0.1, np.float32)
    borders = np.searchsorted(tokens.sequences, np.arange(int(tokens.sequences[-1]) + 2))
    rng = np.random.default_rng(SEED)
    marked, position = np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
    average, averaged = torch.zeros_like(rows), 0
    for epoch in range(epochs):
        start, loss = time.monotonic(), 0.0
        order = rng.permutation(len(borders) - 1)
        for low in range(0, len(order), BATCH):
            chosen = np.sort(order[low : low + BATCH])
            at = np.concatenate([np.arange(borders[s], borders[s + 1]) for s in chosen])
            lengths = borders[chosen + 1] - borders[chosen]
            sequences = np.repeat(np.arange(len(chosen)), lengths)
            scores, parts = torch.zeros(len(at), size), []
            for group in GROUPS:
                shift = SHIFTS.get(group, 0)
                ids = corpus.padded[corpus.places[at] + shift]
                unique, inverse = np.unique(ids, return_inverse=True)
                begin, end = corpus.offsets[group][unique], corpus.offsets[group][unique + 1]
                each = end - begin
                flat = corpus.flat[group][np.repeat(begin - np.cumsum(each) + each, each) + np.arange(each.sum())]
                keep = np.ones(len(flat), bool)
                if group == "0":  # sometimes a word is known by its surroundings alone
                    keep = rng.random(len(flat)) >= WORD_DROPOUT
                    keep &= np.repeat(rng.random(len(unique)) >= WORD_DROPOUT, each)
                owner = torch.from_numpy(np.repeat(np.arange(len(unique)), each)[keep])
                used = torch.from_numpy(flat[keep])
                table = torch.zeros(len(unique), size).index_add_(0, owner, rows[used])
                scored = table[torch.from_numpy(inverse)]
                if group == "before":
                    scored = torch.from_numpy(window_sums(scored.numpy(), sequences, -BEFORE, 0))
                elif group == "after":
                    scored = torch.from_numpy(window_sums(scored.numpy(), sequences, 1, AFTER + 1))
                scores += scored
                parts.append((group, used, owner, inverse, len(unique)))
            joint = torch.from_numpy(corpus.joint[at])
            dropped = torch.from_numpy(rng.random(joint.shape) < WORD_DROPOUT)
            joint = joint.masked_fill(dropped, 0)
            scores += torch.nn.functional.embedding_bag(joint, rows, mode="sum")
            plain = scores.numpy()
            free, pairs = expectations(plain, sequences, transitions)
            allowed = corpus.allowed[at]
            held, held_pairs = expectations(plain + allowed, sequences, transitions)
            difference = torch.from_numpy(free - held)
            loss -= float(np.log(np.maximum((free * (allowed == 0)).sum(axis=1), 1e-9)).sum())
            everything = np.concatenate([joint.numpy().ravel(), *(used.numpy() for _, used, *_ in parts)])
            marked[everything] = True
            touched = np.flatnonzero(marked)  # a tenth of the features: the others stay as they are
            marked[touched] = False
            position[touched] = np.arange(len(touched))
            locals_ = torch.from_numpy(position[everything])
            gradient = torch.zeros(len(touched), size)
            gradient.index_add_(0, locals_[: joint.numel()], difference.repeat_interleave(joint.shape[1], dim=0))
            at_local = joint.numel()
            for group, used, owner, inverse, count in parts:
                pushed = difference
                if group == "before":
                    pushed = torch.from_numpy(window_sums(difference.numpy(), sequences, 1, BEFORE + 1))
                elif group == "after":
                    pushed = torch.from_numpy(window_sums(difference.numpy(), sequences, -AFTER, 0))
                table = torch.zeros(count, size).index_add_(0, torch.from_numpy(inverse), pushed)
                gradient.index_add_(0, locals_[at_local : at_local + len(used)], table[owner])
                at_local += len(used)
            chosen_rows = torch.from_numpy(touched)
            values = rows[chosen_rows]
            gradient += DECAY * len(at) * values
            if touched[0] == 0:  # the row of features that are not kept
                gradient[0] = 0
            sums = squares[chosen_rows].addcmul_(gradient, gradient)
            squares[chosen_rows] = sums
            rows[chosen_rows] = values.addcdiv_(gradient, sums.sqrt_(), value=-RATE)
            _step_transitions(transitions, transition_squares, pairs - held_pairs)
            if epoch >= epochs - 2 and low // BATCH % 8 == 7:
                average += rows
                averaged += 1
        print(f"epoch {epoch + 1}: {loss / len(tokens):.4f} nats a token, {time.monotonic() - start:.0f} s", flush=True)
    return corpus.buckets, (average / averaged).numpy()[1:], transitions


def _step_transitions(transitions: np.ndarray, squares: np.ndarray, gradient: np.ndarray) -> None:
    squares += gradient**2
    transitions -= RATE * gradient / np.sqrt(squares)


def expectations(scores: np.ndarray, sequences: np.ndarray, transitions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each label at each token, and the expected number of each pair of neighbouring labels."""
    factors, forward, backward = passes(scores, sequences, transitions)
    product = forward * backward
    product /= product.sum(axis=1, keepdims=True)
    second = np.flatnonzero(np.diff(sequences) == 0) + 1
    after, matrix = factors[second] * backward[second], np.exp(transitions)
    total = ((forward[second - 1] @ matrix) * after).sum(axis=1, keepdims=True)
    return product, matrix * (forward[second - 1].T @ (after / total))


def save(
    path: Path, buckets: np.ndarray, rows: np.ndarray, transitions: np.ndarray, lexicon: Lexicon, most: int
) -> None:
    """Keep the ``most`` weightiest features, one byte a weight. Numbers are stored as steps: they pack better."""
    weight = np.abs(rows).max(axis=1)
    kept = np.sort(np.argsort(-weight, kind="stable")[:most])
    limit = np.quantile(weight[kept], 0.999)
    scale = np.float32(limit / 127)
    small = np.clip(np.rint(rows[kept] / scale), -127, 127).astype(np.int8)
    np.savez_compressed(
        path,
        bucket_steps=np.diff(buckets[kept], prepend=0).astype(np.uint32),
        rows=small.T.ravel(),
        scale=scale,
        transitions=transitions.astype(np.float16),
        lexicon_steps=np.diff(lexicon.hashes.astype(np.int64), prepend=0).astype(np.uint32),
        lexicon_codes=lexicon.codes,
    )


def update_card(model: Path) -> None:
    """Set the numbers of the file in its card: bytes, hash, how many weights and words."""
    card = model.with_suffix(".md")
    with np.load(model) as file:
        features, words = len(file["bucket_steps"]), len(file["lexicon_codes"])
    text = card.read_text(encoding="utf-8")
    digest = sha256(model.read_bytes()).hexdigest()
    for pattern, value in (
        (r"\d+ bytes, sha256 `\w+`", f"{model.stat().st_size} bytes, sha256 `{digest}`"),
        (r"one byte for [\d,]+ of", f"one byte for {features:,} of"),
        (r"and [\d,]+ hashes", f"and {words:,} hashes"),
    ):
        text, count = re.subn(pattern, value, text, count=1)
        assert count == 1, f"{card} has no place for {value}"
    card.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, default=Path(os.environ.get("OWNCHAT_DATASETS", "../shared/datasets")))
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--without", default="", choices=("", *DOMAINS), help="domain of MultiDoGO that is left out")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--made", type=int, default=45_000, help="texts made up from templates")
    parser.add_argument("--most", type=int, default=170_000, help="features kept")
    arguments = parser.parse_args()
    lexicon = Lexicon(*build_lexicon(arguments.datasets))
    print(f"lexicon: {len(lexicon.hashes)} words", flush=True)
    examples = training_texts(arguments.datasets, lexicon, arguments.without, arguments.made)
    buckets, rows, transitions = train(examples, lexicon, arguments.epochs)
    save(arguments.output, buckets, rows, transitions, lexicon, arguments.most)
    if arguments.output == FILE:
        update_card(FILE)
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
