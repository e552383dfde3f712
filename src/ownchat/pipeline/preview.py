"""``ownchat import PATH --preview``: the tree of files as understood, and what exactly would be trained."""

from __future__ import annotations

import shlex
from collections import Counter
from itertools import groupby
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text
from rich.tree import Tree

from ownchat.config import Config
from ownchat.data.remote import Remote, Source
from ownchat.errors import DataError, printable

TRAINED, CONTEXT = "black on green", "dim"
MAX_TOKENS_SHOWN = 400
MAX_CHARS_SHOWN = 1_500
MAX_FILES_SHOWN = 50  # of one folder


def show_preview(config: Config, source: Source, console: Console, *, rows: int = 3) -> None:
    """Print the tree of files, then the first records of each format as tokens with the trained ones marked.

    In a terminal trained tokens are coloured; where there is no colour they stand between ``[[`` and ``]]``.
    """
    from ownchat.data.preview import preview

    files = preview(config, source, rows)
    console.print(_tree(source, files))
    console.print(_totals(files))
    first: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for file in files:
        for record in file.get("records", []):
            kept = first.setdefault(file["format"], [])
            if len(kept) < rows:
                kept.append((f"{record['source']['file']} line {record['source']['line']}", record))
    if first:
        _show_records(config, first, console)
        again = shlex.quote(printable(str(source)))
        console.print(f"Nothing was written. To train on this: ownchat train {again}", markup=False, soft_wrap=True)


def _show_records(config: Config, first: dict[str, list[tuple[str, dict[str, Any]]]], console: Console) -> None:
    from ownchat.model.load import is_here, resolve_base
    from ownchat.tokenizer.stage import load_tokenizer
    from ownchat.tokenizer.tokens import render_record

    plain = not console.is_terminal
    tokenizer = load_tokenizer(resolve_base(config.model.base)) if is_here(config.model.base) else None
    trained = total = 0
    for format, records in first.items():
        for place, record in records:
            title = f"{format}: {place}"
            if record["kind"] == "preference":
                console.print(_preference(title, record))
            elif tokenizer is None:
                console.print(_messages(record, title, plain=plain))
            else:
                try:
                    rendered = render_record(tokenizer, record)
                except DataError as error:
                    console.print(f"not trainable: {error}", style="red", markup=False)
                    continue
                trained, total = trained + sum(rendered.weights), total + len(rendered.ids)
                console.print(_tokens(tokenizer, rendered.ids, rendered.weights, title, plain=plain))
    if tokenizer is None:
        console.print(
            "As tokens, with the chat template, once the base model is on this machine (after a first training)."
        )
    if total:
        console.print(f"In these records {trained:,} of {total:,} tokens are trained ({trained / total:.0%}).")


def _tree(source: Source, files: list[dict[str, Any]]) -> Tree:
    name = str(source) if isinstance(source, Remote) else source.resolve().name
    root = Tree(Text(printable(name + ("/" if source.is_dir() else "")), style="bold"))
    folders: dict[str, Tree] = {"": root}
    shown: Counter[str] = Counter()
    for file in files:
        if file.get("rule") in ("hidden", "media"):
            continue
        parts = file["file"].split("/")
        above = ""
        for part in parts[:-1]:
            folder = f"{above}/{part}" if above else part
            if folder not in folders:
                folders[folder] = folders[above].add(Text(printable(f"{part}/"), style="bold"))
            above = folder
        shown[above] += 1
        if shown[above] <= MAX_FILES_SHOWN:
            _add_file(folders[above], parts[-1], file)
    for folder, count in shown.items():
        if count > MAX_FILES_SHOWN:
            folders[folder].add(f"and {count - MAX_FILES_SHOWN:,} more files")
    for rule in ("hidden", "media"):
        if count := sum(file.get("rule") == rule for file in files):
            root.add(Text(f"{count:,} {rule} file{'s' if count > 1 else ''} left out", style="dim"))
    return root


def _add_file(folder: Tree, name: str, file: dict[str, Any]) -> None:
    line = Text(printable(name))
    if "format" not in file:
        line.append(f"  not read: {printable(file['problem'])}", style="yellow")
        branch = folder.add(line)
        if file.get("fix"):
            branch.add(Text(printable(file["fix"]), style="dim"))
        return
    if file["files"] > 1:
        line.append(f" and {file['files'] - 1:,} more")
    details = [f"{file['confidence']:.0%} sure"]
    details += [file["encoding"]] if file["encoding"] not in (None, "utf-8") else []
    details += [file["compression"]] if file["compression"] else []
    line.append(f"  {file['format']}", style="green")
    line.append(f" ({', '.join(details)})", style="dim")
    line.append(f"  {_counts(file)}")
    branch = folder.add(line)
    if file["understood"]:
        branch.add(Text(printable(file["understood"]), style="dim"))
    for note in file["notes"]:
        branch.add(Text(printable(note)))
    if file["set_aside"]:
        aside = ", ".join(f"{rule} {count:,}" for rule, count in file["set_aside"].items())
        branch.add(Text(printable(f"not used: {aside}"), style="yellow"))
    for problem in file["problems"]:
        branch.add(Text(printable(problem), style="red"))


def _counts(file: dict[str, Any]) -> str:
    parts = []
    for key in ("conversations", "documents", "preferences"):
        if count := file[key]:
            parts.append(f"{count:,} {key if count > 1 else key[:-1]}")
    if file["messages"]:
        parts.append(f"{file['messages']:,} messages")
    text = ", ".join(parts) or "no records"
    return text if file["complete"] else f"at least {text}"


def _totals(files: list[dict[str, Any]]) -> Text:
    read = [file for file in files if "format" in file]
    total = {key: sum(file[key] for file in read) for key in ("conversations", "documents", "preferences", "messages")}
    complete = all(file["complete"] for file in read)
    text = _counts({**total, "complete": complete})
    not_read = sum("format" not in file and file.get("rule") not in ("hidden", "media") for file in files)
    return Text(f"in all {text}" + (f"; {not_read:,} not read" if not_read else ""), style="bold")


def _preference(title: str, record: dict[str, Any]) -> Panel:
    text = Text()
    for name in ("messages", "chosen", "rejected"):
        for turn in record[name] or ():
            text.append(f"{turn['role'] if name == 'messages' else name}: ", style="bold")
            text.append(printable(turn["content"])[:600] + "\n")
    if record["desirable"] is not None:
        text.append("desirable" if record["desirable"] else "not desirable", style="italic")
    return Panel(text, title=Text(printable(title)), title_align="left")


def _tokens(tokenizer: Any, ids: list[int], weights: list[int], title: str, *, plain: bool) -> Group | Panel:
    text = Text()
    shown = zip(ids[:MAX_TOKENS_SHOWN], weights, strict=False)
    for weight, run in groupby(shown, key=lambda pair: bool(pair[1])):  # a character may take several tokens
        _append(text, printable(tokenizer.decode([id for id, _ in run])), trained=weight, plain=plain)
    if len(ids) > MAX_TOKENS_SHOWN:
        text.append(f" ... ({len(ids) - MAX_TOKENS_SHOWN:,} more tokens)", style="italic")
    return _panel(text, title, plain=plain)


def _messages(record: dict[str, Any], title: str, *, plain: bool) -> Panel:
    """A record without a tokenizer: who says what, and what of it is trained."""
    text = Text()
    if record["kind"] == "document":
        _append(text, printable(record["text"])[:MAX_CHARS_SHOWN], trained=True, plain=plain)
    for turn in record["messages"] or ():
        text.append(f"{turn['role']}: ", style="bold")
        trained = turn["role"] == "assistant" and turn["weight"] != 0
        _append(text, printable(turn["content"])[:MAX_CHARS_SHOWN], trained=trained, plain=plain)
        text.append("\n")
    return _panel(text, title, plain=plain)


def _append(text: Text, content: str, *, trained: bool, plain: bool) -> None:
    marked = f"[[{content}]]" if plain and trained else content
    text.append(marked, style=TRAINED if trained else CONTEXT)


def _panel(text: Text, title: str, *, plain: bool) -> Panel:
    legend = "what is trained is between [[ and ]]" if plain else "green: trained"
    return Panel(text, title=Text(printable(title)), subtitle=legend, title_align="left", subtitle_align="left")
