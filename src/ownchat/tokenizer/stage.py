"""Stages 3-tokenizer and 4-tokens: the tokenizer that the run uses, and its records as tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ownchat import artifacts
from ownchat.artifacts import SPLITS, Report
from ownchat.config import Config
from ownchat.data.ledger import Ledger
from ownchat.data.records import Record, place, read_records
from ownchat.errors import ConfigError, DataError, ModelError
from ownchat.monitor.progress import progress
from ownchat.tokenizer.preferences import STORE, are_all_pairs, tokenize_preference
from ownchat.tokenizer.render import PLAIN_TEMPLATE, Rendered, prompt_ids, render, render_document
from ownchat.tokenizer.store import TokenStore, TokenWriter

DEFAULT_MAX_TOKENS = 2048


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory; one without a chat template gets :data:`~ownchat.tokenizer.render.PLAIN_TEMPLATE`.

    Raises :class:`~ownchat.errors.ModelError` when there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"no tokenizer can be loaded: {str(error).splitlines()[0]}",
            where=str(directory),
            fix="the directory must hold tokenizer.json and tokenizer_config.json",
        ) from error
    if not tokenizer.chat_template:
        if tokenizer.eos_token is None:
            raise ModelError("no chat template and no end-of-text token", where=str(directory))
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def run_tokenizer(config: Config, inputs: dict[str, Path], output: Path) -> Report:
    """Stage 3-tokenizer. ``inputs``: ``base``, a model directory. The tokenizer is copied, template included."""
    files = {file.name: file for file in inputs["base"].glob("*token*")} | {
        file.name: file for file in inputs["base"].glob("*.jinja")
    }
    if (inputs["base"] / "config.json").is_file():
        files["config.json"] = inputs["base"] / "config.json"
    key = artifacts.stage_key(config, ("tokenizer",), files)
    if report := artifacts.completed(output, key):
        return report
    start = artifacts.start_afresh(output)
    tokenizer = load_tokenizer(inputs["base"])
    tokenizer.model_max_length = min(tokenizer.model_max_length, context_tokens(inputs["base"]))
    tokenizer.save_pretrained(output)
    details = {"vocab_size": len(tokenizer), "chat_template": tokenizer.chat_template}
    report = Report("tokenizer", output, {"vocab": len(tokenizer)}, details, time.monotonic() - start)
    return artifacts.commit(key, config, ("tokenizer",), report)


def context_tokens(base: Path) -> int:
    """Tokens that the model of a directory can attend to, from its ``config.json``; very many when it does not say."""
    config = artifacts.read_json(base / "config.json") if (base / "config.json").is_file() else {}
    known = [config.get(name) for name in ("max_position_embeddings", "n_positions")]
    return min((value for value in known if isinstance(value, int)), default=10**30)


def run_tokens(config: Config, inputs: dict[str, Path], output: Path) -> Report:
    """Stage 4-tokens. ``inputs``: ``clean`` (2-clean) and ``tokenizer`` (3-tokenizer).

    Writes a token store for each split, of preferences others in ``prefer/``, and the ledger. Raises
    :class:`~ownchat.errors.DataError` when no token is
    trained: such a run would look fine and learn nothing.
    """
    key = artifacts.stage_key(config, ("tokenizer",), inputs)
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
                if all_pairs is not None:
                    preferences = TokenWriter(
                        output / STORE / split, len(tokenizer), documents_per_item=2 if all_pairs else 1
                    )
                    open_files.enter_context(preferences)
                advance = open_files.enter_context(progress(f"tokens ({split})", None, "records"))
                for record in read_records(inputs["clean"] / split):
                    if record["kind"] == "preference":
                        tokenize_preference(tokenizer, record, limit, preferences, ledger)
                    else:
                        _tokenize(tokenizer, record, limit, writer, ledger)
                    advance()
            counts |= _counts(output, split, "") | _counts(output / STORE, split, f"{STORE}_")
    _check_trained(counts, ledger, output)
    details = {"ledger": ledger.totals, "rules": ledger.rules, "max_tokens": limit}
    report = Report("tokens", output, counts, details, time.monotonic() - start)
    return artifacts.commit(key, config, ("tokenizer",), report)


def _check_trained(counts: dict[str, int], ledger: Ledger, output: Path) -> None:
    """Raise :class:`~ownchat.errors.DataError` when nothing would be trained, or nothing would say how well."""
    conversations, preferences = counts["train_trained"], counts[f"{STORE}_train_trained"]
    missing = "train" if not conversations and not preferences else ""
    if conversations and not counts["valid_trained"]:
        missing = "valid"
    if missing:
        reasons = ", ".join(f"{rule}: {count:,}" for rule, count in ledger.rules.get("row dropped", {}).items())
        raise DataError(
            f"no token of the {missing} split would be trained ({reasons or 'no records'})",
            where=str(output),
            fix="look at: ownchat import PATH --preview",
        )
    if preferences and not counts[f"{STORE}_valid_trained"]:
        raise DataError(
            f"no preference of the valid split is left, {counts[f'{STORE}_train']:,} are in train: nothing would say "
            "when to stop",
            where=str(output),
            fix="give more preferences, or raise clean.valid_share; or take them out",
        )


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
    tokenizer: PreTrainedTokenizerBase, record: Record, limit: int, writer: TokenWriter, ledger: Ledger
) -> None:
    ledger.enter("row")
    try:
        made = pieces(tokenizer, record, limit)
    except DataError as error:  # the template's rules are not the user's fault: count it, show it, go on
        ledger.fate("row", record["id"], "dropped", "not renderable", parents=[record["id"]], detail=str(error))
        return
    common = {"record": record["id"], "source": place(record), "group": record["group"], "kind": record["kind"]}
    if len(made) > 1:
        detail = f"{len(made)} pieces of at most {limit} tokens"
        ledger.fate("row", record["id"], "split", made[0][1], parents=[record["id"]], detail=detail, makes=len(made))
    for number, (piece, rule) in enumerate(made):
        id = record["id"] if len(made) == 1 else f"{record['id']}/{number}"
        ledger.enter("token", len(piece.ids))
        trained = sum(piece.weights)
        if trained:
            ledger.fate("row", id, "kept", rule, parents=[record["id"]])
            writer.add(piece.ids, piece.weights, id=id, piece=number, **common)
            ledger.fate("token", id, "kept", "trained", count=trained, parents=[id])
            ledger.fate("token", id, "kept", "context", count=len(piece.ids) - trained, parents=[id])
        else:
            ledger.fate("row", id, "dropped", "no trained token", parents=[record["id"]])
            ledger.fate("token", id, "dropped", "no trained token", count=len(piece.ids), parents=[id])


def _counts(output: Path, split: str, prefix: str) -> dict[str, int]:
    """Items, tokens and trained tokens of a store; nothing where there is none."""
    store = TokenStore(output / split) if (output / split).is_dir() else None
    sizes = (0, 0, 0) if store is None else (len(store.item_lengths), store.num_tokens, store.trained_tokens)
    return dict(zip((f"{prefix}{split}{of}" for of in ("", "_tokens", "_trained")), sizes, strict=True))
