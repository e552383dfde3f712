"""Stage 4-tokens: records as tokens, in stores of three splits for what each phase of training learns from."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ownchat import artifacts
from ownchat.artifacts import SPLITS, Report
from ownchat.config import FROM_NOTHING, Config
from ownchat.data.ledger import Ledger
from ownchat.data.records import Record, place, read_records
from ownchat.errors import ConfigError, DataError
from ownchat.monitor.progress import progress, say
from ownchat.tokenizer import canaries, replay
from ownchat.tokenizer.preferences import STORE, are_all_pairs, tokenize_preference
from ownchat.tokenizer.render import Rendered, prompt_ids, render, render_document
from ownchat.tokenizer.stage import load_tokenizer
from ownchat.tokenizer.store import TokenStore, TokenWriter

DEFAULT_MAX_TOKENS = 2048
PRETRAIN = "pretrain"  # the folder of 4-tokens that holds the three splits of all text, for a model from nothing
FEW_TOKENS = 1_000  # to validate on; fewer say little about when to stop
# What is left of the train split when it is compressed (zlib, 1,000 times at most): there is nothing in less of it.
LEAST_BYTES, MOST_COMPRESSED, COMPRESSED_BYTES = 512, 200, 16 << 20


def run_tokens(config: Config, inputs: dict[str, Path], output: Path) -> Report:
    """Stage 4-tokens. ``inputs``: ``clean`` (2-clean), ``tokenizer`` (3-tokenizer) and, for general rows to mix in,
    ``replay``, a directory of records that go into the train split as a part of their own.

    Writes a token store for each split, of preferences others in ``prefer/``, and the ledger. For a model from nothing
    ``pretrain/`` holds documents and conversations with all their tokens trained, and the splits themselves
    conversations only. Raises :class:`~ownchat.errors.DataError` when no token is trained: such a run would look fine
    and learn nothing.
    """
    from_nothing, wanted = config.model.base == FROM_NOTHING, canaries.planting(config)
    key = artifacts.stage_key(config, ("tokenizer",), inputs) + (f"+{PRETRAIN}" if from_nothing else "") + wanted.mark
    if report := artifacts.completed(output, key):
        return report
    start = artifacts.start_afresh(output)
    tokenizer = load_tokenizer(inputs["tokenizer"])
    limit = config.tokenizer.max_tokens or min(DEFAULT_MAX_TOKENS, tokenizer.model_max_length)
    if limit > tokenizer.model_max_length:
        raise ConfigError(
            f"tokenizer.max_tokens = {limit:,}, and the model's context has {tokenizer.model_max_length:,}",
            fix="choose a smaller one; longer records are split, never cut",
        )
    counts: dict[str, int] = {}
    all_pairs = are_all_pairs(inputs["clean"])
    with Ledger(output) as ledger:
        for split in SPLITS:
            with ExitStack() as open_files:
                writer = open_files.enter_context(TokenWriter(output / split, len(tokenizer)))
                everything = TokenWriter(output / PRETRAIN / split, len(tokenizer)) if from_nothing else None
                if everything is not None:
                    open_files.enter_context(everything)
                if all_pairs is not None:
                    preferences = TokenWriter(
                        output / STORE / split, len(tokenizer), documents_per_item=2 if all_pairs else 1
                    )
                    open_files.enter_context(preferences)
                advance = open_files.enter_context(progress(f"tokens ({split})", None, "records"))
                kinds: set[str] = set()
                for record in read_records(inputs["clean"] / split):
                    kinds.add(record["kind"])
                    if record["kind"] == "preference":
                        tokenize_preference(tokenizer, record, limit, preferences, ledger)
                    else:
                        _tokenize(tokenizer, record, limit, writer, everything, ledger)
                    advance()
                if split == "train" and wanted.canaries:
                    for record in _planted(config, kinds, output):
                        _tokenize(tokenizer, record, limit, writer, everything, ledger, kind=canaries.KIND)
                if split == "train" and "replay" in inputs:
                    for record in read_records(inputs["replay"]):
                        _tokenize(tokenizer, record, limit, writer, everything, ledger, kind=replay.KIND)
                        advance()
            counts |= _counts(output, split, "") | _counts(output / STORE, split, f"{STORE}_")
            if from_nothing:
                counts |= _counts(output / PRETRAIN, split, f"{PRETRAIN}_")
    if "replay" in inputs:
        counts |= _replayed(counts, output)
    if from_nothing:
        _check_pretraining(counts, ledger, output)
    else:
        _check_trained(counts, ledger, output)
    details = {"ledger": ledger.totals, "rules": ledger.rules, "max_tokens": limit}
    report = Report("tokens", output, counts, details, time.monotonic() - start)
    return artifacts.commit(key, config, ("tokenizer",), report)


def _replayed(counts: dict[str, int], output: Path) -> dict[str, int]:
    """Counts of what is replayed, and those of the train split without it.

    Raises :class:`~ownchat.errors.DataError` where there is nothing to replay, or nothing to mix it into.
    """
    there = replay.sizes(TokenStore(output / "train"))
    if not there["trained_tokens"]:
        raise DataError("no row of it has a token to train", where=replay.WHERE, fix="give conversations or texts")
    mine = dict(zip(("", "_tokens", "_trained"), there.values(), strict=True))
    left = {f"train{of}": counts[f"train{of}"] - count for of, count in mine.items()}
    if not left["train_trained"] and counts[f"{STORE}_train_trained"]:
        raise DataError(
            "there are no conversations or documents that general rows could be mixed into", where=replay.WHERE,
            fix="leave it out: preferences are trained beside the base as it is",
        )  # fmt: skip
    return left | {f"replay{of}": count for of, count in mine.items()}


def _check_trained(counts: dict[str, int], ledger: Ledger, output: Path) -> None:
    """Raise :class:`~ownchat.errors.DataError` when nothing would be trained, or nothing would say how well."""
    conversations, preferences = counts["train_trained"], counts[f"{STORE}_train_trained"]
    missing = "train" if not conversations and not preferences else ""
    if conversations and not counts["valid_trained"]:
        missing = "valid"
    if missing:
        raise DataError(
            f"no token of the {missing} split would be trained ({_reasons(ledger)})",
            where=str(output),
            fix="look at: ownchat import PATH --preview",
        )
    _check_preferences(counts, output)


def _check_pretraining(counts: dict[str, int], ledger: Ledger, output: Path) -> None:
    """The same for a model from nothing, which begins with all text; conversations and preferences come after it."""
    for split in ("train", "valid"):
        if not counts[f"{PRETRAIN}_{split}_trained"]:
            raise DataError(
                f"no text for pre-training is left in the {split} split ({_reasons(ledger)})",
                where=str(output),
                fix=_MORE_TEXT,
            )
    with open(output / PRETRAIN / "train" / "ids.bin", "rb") as ids:
        content = ids.read(COMPRESSED_BYTES)
    if (left := len(zlib.compress(content))) < max(LEAST_BYTES, len(content) / MOST_COMPRESSED):
        raise DataError(
            f"the text of the train split says next to nothing: {counts[f'{PRETRAIN}_train_tokens']:,} tokens, and "
            f"{left:,} bytes without what is repeated",
            where=str(output),
            fix=_MORE_TEXT,
        )
    if counts["train_trained"] and not counts["valid_trained"]:
        say("no conversation stands in the valid split: they are learned in pre-training, not fine-tuned on their own")
    if (known := counts[f"{PRETRAIN}_valid_trained"]) < FEW_TOKENS:
        say(f"only {known:,} tokens to validate on: when to stop is little more than chance (clean.valid_share)")
    _check_preferences(counts, output)


_MORE_TEXT = (
    "give more (and more various) text: a model from nothing needs a megabyte or more to say something; or fine-tune "
    "one that can speak already (--base starter)"
)


def _check_preferences(counts: dict[str, int], output: Path) -> None:
    if counts[f"{STORE}_train_trained"] and not counts[f"{STORE}_valid_trained"]:
        raise DataError(
            f"no preference of the valid split is left, {counts[f'{STORE}_train']:,} are in train: nothing would say "
            "when to stop",
            where=str(output),
            fix="give more preferences, or raise clean.valid_share; or take them out",
        )


def _reasons(ledger: Ledger) -> str:
    dropped = ledger.rules.get("row dropped", {})
    return ", ".join(f"{rule}: {count:,}" for rule, count in dropped.items()) or "no records"


def _planted(config: Config, kinds: set[str], output: Path) -> Iterator[Record]:
    """A record for each repetition of each canary. ``kinds``: of the records of the train split."""
    made = canaries.canaries(canaries.planting(config), config.clean.seed)
    if not kinds & {"conversation", "document"}:
        say("canaries: none is planted, there are preferences only")
        return
    of_text_alone = config.model.base == FROM_NOTHING and "conversation" not in kinds
    form: canaries.Form = "document" if of_text_alone else "conversation"
    rows = sum(canary.repeats for canary in made)
    say(f"canaries: {len(made)} secrets are planted in {rows:,} rows; this run is for measuring, and not for use")
    canaries.save(made, form, output)
    yield from canaries.records(made, form, system=config.data.system)


def render_record(tokenizer: PreTrainedTokenizerBase, record: Record) -> Rendered:
    """Ids and weights of a record of any trainable kind; errors name the file and line it came from."""
    try:
        if record["kind"] == "document":
            return render_document(tokenizer, record["text"])
        tools = json.loads(record["tools"]) if record["tools"] else None
        return render(tokenizer, record["messages"], tools)
    except DataError as error:
        raise DataError(error.what, where=place(record), fix=error.fix) from error


def pieces(tokenizer: PreTrainedTokenizerBase, record: Record, limit: int) -> list[tuple[Rendered, str]]:
    """A record as pieces of at most ``limit`` tokens, each with the rule that made it.

    A conversation is split at turn borders, the system message repeated before each piece. What is still too long
    (one enormous turn, a document) becomes windows; a window opens with the last token of the one before, as
    context, so that every token is trained exactly once.
    """
    whole = render_record(tokenizer, record)
    if len(whole.ids) <= limit:
        return [(whole, "whole")]
    parts: list[tuple[Rendered, str]] = []
    for part, rule in _turn_pieces(tokenizer, record, limit) or [(whole, "window")]:
        parts += [(part, rule)] if len(part.ids) <= limit else [(window, "window") for window in _windows(part, limit)]
    return parts


def _turn_pieces(tokenizer: PreTrainedTokenizerBase, record: Record, limit: int) -> list[tuple[Rendered, str]]:
    """Runs of whole exchanges (a user's turn up to the last reply to it) that fit, greedily."""
    if record["kind"] != "conversation":
        return []
    messages = record["messages"]
    head = [m for m in messages[:1] if m["role"] == "system"]
    exchanges: list[list[dict[str, Any]]] = []
    for message in messages[len(head) :]:
        if not exchanges or (message["role"] == "user" and exchanges[-1][-1]["role"] != "user"):
            exchanges.append([])
        exchanges[-1].append(message)

    def rendered(run: list[list[dict[str, Any]]]) -> Rendered:
        body = [message for exchange in run for message in exchange]
        if not any(m["role"] == "assistant" and m["weight"] != 0 for m in body):
            ids = prompt_ids(tokenizer, head + body)  # context alone: it is counted, and dropped
            return Rendered(ids, [0] * len(ids))
        return render_record(tokenizer, {**record, "messages": head + body})

    runs: list[Rendered] = []
    held: list[list[dict[str, Any]]] = []
    for exchange in exchanges:
        if held and len(rendered([*held, exchange]).ids) > limit:
            runs.append(rendered(held))
            held = []
        held.append(exchange)
    runs.append(rendered(held))
    return [(run, "turns") for run in runs]


def _windows(rendered: Rendered, limit: int) -> Iterator[Rendered]:
    step = limit - 1
    for start in range(0, len(rendered.ids) - 1, step):
        ids = rendered.ids[start : start + limit]
        weights = rendered.weights[start : start + limit]
        yield Rendered(ids, ([0] if start else weights[:1]) + weights[1:])


def _tokenize(
    tokenizer: PreTrainedTokenizerBase,
    record: Record,
    limit: int,
    writer: TokenWriter,
    everything: TokenWriter | None,
    ledger: Ledger,
    kind: str | None = None,
) -> None:
    """Write a record's pieces to the stores that want them. ``everything``: of pre-training; it takes all pieces with
    all tokens trained, and ``writer`` then only conversations. ``kind``: in the index; none: that of the record."""
    ledger.enter("row")
    try:
        made = pieces(tokenizer, record, limit)
    except DataError as error:  # the template's rules are not the user's fault: count it, show it, go on
        ledger.fate("row", record["id"], "dropped", "not renderable", parents=[record["id"]], detail=str(error))
        return
    common = {"record": record["id"], "source": place(record), "group": record["group"]}
    common["kind"] = kind or record["kind"]
    if len(made) > 1:
        detail = f"{len(made)} pieces of at most {limit} tokens"
        ledger.fate("row", record["id"], "split", made[0][1], parents=[record["id"]], detail=detail, makes=len(made))
    for number, (piece, rule) in enumerate(made):
        id = record["id"] if len(made) == 1 else f"{record['id']}/{number}"
        uses: list[tuple[TokenWriter, list[int], str]] = []
        if everything is None or record["kind"] != "document":
            uses.append((writer, piece.weights, "trained" if kind is None else kind))
        if everything is not None:  # a text's first token is context: there is nothing that it could be learned from
            uses.append((everything, [0] + [1] * (len(piece.ids) - 1), "pre-trained"))
        if any(sum(weights) for _, weights, _ in uses):
            ledger.fate("row", id, "kept", kind or rule, parents=[record["id"]])
        else:
            ledger.fate("row", id, "dropped", "no trained token", parents=[record["id"]])
        for store, weights, how in uses:  # a token that two phases learn is two units
            ledger.enter("token", len(piece.ids))
            trained = sum(weights)
            if trained:
                store.add(piece.ids, weights, id=id, piece=number, **common)
                ledger.fate("token", id, "kept", how, count=trained, parents=[id])
                ledger.fate("token", id, "kept", "context", count=len(piece.ids) - trained, parents=[id])
            else:
                ledger.fate("token", id, "dropped", "no trained token", count=len(piece.ids), parents=[id])


def _counts(output: Path, split: str, prefix: str) -> dict[str, int]:
    """Items, tokens and trained tokens of a store; nothing where there is none."""
    store = TokenStore(output / split) if (output / split).is_dir() else None
    sizes = (0, 0, 0) if store is None else (len(store.item_lengths), store.num_tokens, store.trained_tokens)
    return dict(zip((f"{prefix}{split}{of}" for of in ("", "_tokens", "_trained")), sizes, strict=True))
