"""``ownchat import PATH --preview``: the tree of files as understood, and what exactly would be trained."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text
from rich.tree import Tree

from ownchat.config import Config
from ownchat.errors import DataError, printable

TRAINED, CONTEXT = "black on green", "dim"
MAX_TOKENS_SHOWN = 400
MAX_FILES_SHOWN = 50  # of one folder


def show_preview(config: Config, source: Path, console: Console, *, rows: int = 3) -> None:
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
        console.print("Nothing was written. To train on this: ownchat train", str(source), markup=False)


def _show_records(config: Config, first: dict[str, list[tuple[str, dict[str, Any]]]], console: Console) -> None:
    from ownchat.model.load import resolve_base
    from ownchat.tokenizer.stage import load_tokenizer, render_record

    tokenizer = load_tokenizer(resolve_base(config.model.base))
    trained = total = 0
    for format, records in first.items():
        for place, record in records:
            if record["kind"] == "preference":
                console.print(_preference(place, record))
                continue
            try:
                rendered = render_record(tokenizer, record)
            except DataError as error:
                console.print(f"not trainable: {error}", style="red", markup=False)
                continue
            trained, total = trained + sum(rendered.weights), total + len(rendered.ids)
            title = f"{format}: {place}"
            console.print(_tokens(tokenizer, rendered.ids, rendered.weights, title, plain=not console.is_terminal))
    if total:
        console.print(f"In these records {trained:,} of {total:,} tokens are trained ({trained / total:.0%}).")


def _tree(source: Path, files: list[dict[str, Any]]) -> Tree:
    root = Tree(Text(printable(source.resolve().name + ("/" if source.is_dir() else "")), style="bold"))
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
        aside = ", ".join(f"{count:,} {rule}" for rule, count in file["set_aside"].items())
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


def _preference(place: str, record: dict[str, Any]) -> Panel:
    text = Text()
    for name in ("messages", "chosen", "rejected"):
        for turn in record[name] or ():
            text.append(f"{turn['role'] if name == 'messages' else name}: ", style="bold")
            text.append(printable(turn["content"])[:600] + "\n")
    if record["desirable"] is not None:
        text.append("desirable" if record["desirable"] else "not desirable", style="italic")
    return Panel(text, title=Text(printable(f"{record['source']['format']}: {place}")), title_align="left")


def _tokens(tokenizer: Any, ids: list[int], weights: list[int], title: str, *, plain: bool) -> Group | Panel:
    text = Text()
    open_mark = False
    for id, weight in zip(ids[:MAX_TOKENS_SHOWN], weights, strict=False):
        if plain and bool(weight) != open_mark:
            text.append("[[" if weight else "]]")
            open_mark = bool(weight)
        text.append(printable(tokenizer.decode([id])), style=TRAINED if weight else CONTEXT)
    if plain and open_mark:
        text.append("]]")
    if len(ids) > MAX_TOKENS_SHOWN:
        text.append(f" ... ({len(ids) - MAX_TOKENS_SHOWN:,} more tokens)", style="italic")
    legend = "trained tokens are between [[ and ]]" if plain else "green: trained"
    return Panel(text, title=Text(printable(title)), subtitle=legend, title_align="left", subtitle_align="left")
