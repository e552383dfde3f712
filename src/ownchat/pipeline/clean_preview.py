"""``ownchat clean PATH --preview``: what cleaning would do, on one offline page and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ownchat.artifacts import owner_only, write_atomic
from ownchat.config import Config
from ownchat.data.remote import Source
from ownchat.errors import DataError, printable

if TYPE_CHECKING:
    from ownchat.clean.preview import Segment, StepView
    from ownchat.clean.preview_stage import StageView

RECORDS_OF_A_FILE = 2_000
MOST_RECORDS = 20_000
_NUMBER = re.compile(r"_\d+$")

# What each step does, in the words of the page.
TITLES = {
    "repair_encoding": ("Mend encoding", "Text that was decoded with the wrong encoding becomes readable again."),
    "drop_system_lines": ("System lines", "What messengers and ticket systems wrote between what people said."),
    "drop_bot_noise": ("Automatic replies", "Out-of-office notes and automated notices."),
    "cut_boilerplate": ("Boilerplate", "Signatures, disclaimers and footers that many texts of a source share."),
    "drop_cut_turns": ("Cut turns", "Replies that an export cut off in the middle of a sentence are not learned."),
    "drop_empty": ("Empty", "Messages without text, and records with nothing to learn."),
    "drop_greetings": ("Greetings only", "Conversations of nothing but hello, thanks and goodbye."),
    "filter_languages": ("Language", "Records in a language that is not to be kept; undecided ones stay."),
    "filter_length": ("Length", "Records with too few or too many words."),
    "filter_quality": ("Quality rules", "Documents that published rules take for no running text."),
    "filter_topic": ("Off topic", "Records about something else than the collection, or than your description."),
    "flag_toxic": ("Toxicity", "Records with insults, slurs, threats or obscene language."),
    "redact_private": ("Private data", "Names, addresses, numbers and keys become placeholders."),
    "decontaminate": ("Decontamination", "Records that hold text of your examination files."),
    "exact_duplicates": ("Exact duplicates", "Records whose text stands in another record; the first one stays."),
    "contradictions": ("Contradictions", "Equal questions whose answers say different things."),
    "near_duplicates": ("Near duplicates", "Records that are nearly another one; the most complete one stays."),
}


@owner_only()
def write_clean_preview(
    config: Config, source: Source, page: Path, console: Console, *, show_private: bool = False
) -> Path:
    """Clean a sample, write ``page`` and ``recipe.yaml`` beside it, print a summary; returns the recipe.

    Of each file the first 2,000 records are looked at, 20,000 in all. On the page private data is masked by type,
    whatever the settings say, unless ``show_private``. Nothing is loaded from outside, and the same data and settings
    give the same bytes. Raises :class:`~ownchat.errors.DataError` when there is no record.
    """
    from ownchat.clean.language import count_languages
    from ownchat.clean.mentions import MentionCounts
    from ownchat.clean.preview import preview_steps
    from ownchat.clean.preview_stage import preview_stage
    from ownchat.clean.recipe import check_settings, write_recipe
    from ownchat.clean.toxicity import count_toxic
    from ownchat.data.preview import preview
    from ownchat.data.records import batched

    check_settings(config)
    files = preview(config, source, RECORDS_OF_A_FILE)
    batches = list(batched(islice(_records(files), MOST_RECORDS)))
    if not batches:
        raise DataError("no record to show", where=str(source), fix="look at ownchat import PATH --preview")
    mask = _mask(config, show_private)
    steps, cleaned = preview_steps(batches, config.clean, mask)
    outcome = preview_stage(cleaned, config, mask)
    views = steps + outcome.views
    mentions = MentionCounts()
    for batch in cleaned if config.clean.mention_counts else ():
        mentions.add(batch)
    recipe = page.with_name("recipe.yaml")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, config.clean)
    facts = {
        "source": printable(source.name),
        "recipe": recipe.name,
        "records": sum(len(batch) for batch in batches),
        "complete": all(file.get("complete", True) for file in files)
        and all(sum(file.get(kind, 0) for kind in KINDS) == len(file.get("records", ())) for file in files),
        "files": sum("format" in file for file in files),
        "masked": not show_private,
        "mentions": mentions.by_source,
        "splits": outcome.splits,
        "problem": outcome.problem,
        "leaks": outcome.details.get("leaks", {}),
        "languages": count_languages(cleaned),
        "toxic": {file: counts for file, counts in count_toxic(cleaned).items() if counts[1]},
    }
    write_atomic(page, render_page(views, facts))
    console.print(summary_table(views))
    console.print(_splits_line(outcome), markup=False)
    what = "all" if facts["complete"] else "the first"
    console.print(f"Looked at {what} {facts['records']:,} records; nothing was changed.", markup=False)
    console.print(
        f"Examples: {page}\nTo accept: ownchat clean {source} --recipe {recipe}", markup=False, soft_wrap=True
    )
    return recipe


KINDS = ("conversations", "documents", "preferences")


def render_page(views: Sequence[StepView], facts: dict[str, Any]) -> str:
    """The page. All text of the data is escaped by the template engine and nothing is loaded from outside."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ownchat.pipeline", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": printable, "groups": groups}
    types = sorted({text for parts in _all_parts(views) for kind, text in parts if kind == "private"})
    return environment.get_template("clean_preview.html.j2").render(
        views=views, facts=facts, titles=TITLES, types={name: place % 8 for place, name in enumerate(types)},
        touched=touched,
    )  # fmt: skip


def touched(view: StepView) -> str:
    """What a step did in a few words: "3 records changed, 1 message dropped".

    >>> from ownchat.clean.preview import StepView
    >>> touched(StepView("x", "y", True, rules={"row dropped: too short": 2, "message dropped: x": 1}))
    '2 records dropped'
    """
    counts: dict[str, int] = {}
    for key, count in view.rules.items():
        what = key.split(":")[0]
        counts[what] = counts.get(what, 0) + count
    lost = view.messages[0] - view.messages[1]
    parts = [
        f"{count:,} {'record' if count == 1 else 'records'} {what.removeprefix('row ')}"
        for what, count in sorted(counts.items())
        if what.startswith("row ")
    ]
    if lost and "row dropped" not in counts:
        parts.append(f"{lost:,} {'message' if lost == 1 else 'messages'} dropped")
    if not parts and view.is_on and not view.records[0]:
        return "not run"
    return ", ".join(parts) or ("nothing" if view.is_on else "off")


def summary_table(views: Sequence[StepView]) -> Table:
    """One line a step: the switch, what came in, what was left, what was done."""
    table = Table(
        title="What cleaning would do",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
        pad_edge=False,
    )
    for name, right in (("step", False), ("switch", False), ("records", True), ("messages", True), ("done", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=name == "switch")  # to be copied from here
    for view in views:
        on = view.is_on
        table.add_row(
            TITLES.get(view.name, (view.name, ""))[0],
            Text(f"clean.{view.switch}" if view.switch else "always"),
            _before_after(view.records) if on else "",
            _before_after(view.messages) if on and view.messages[0] else "",
            Text(touched(view)),
            style=None if on else "dim",
        )
    return table


def _splits_line(outcome: StageView) -> str:
    if outcome.problem:
        return f"No splits: {outcome.problem}"
    sizes = (f"{name} {size['records']:,} in {groups(size['groups'])}" for name, size in outcome.splits.items())
    return f"Splits: {', '.join(sizes)}."


def groups(count: int) -> str:
    """``1 group``, ``2 groups``."""
    return f"{count:,} {'group' if count == 1 else 'groups'}"


def _before_after(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,}" if counts[0] == counts[1] else f"{counts[0]:,} → {counts[1]:,}"


def _records(files: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for file in files:
        yield from file.get("records", ())


def _all_parts(views: Sequence[StepView]) -> Iterator[list[Segment]]:
    for view in views:
        for example in view.changed + view.dropped:
            yield from (parts for _, parts in example.texts)
        for pair in view.pairs:
            yield from (parts for _, *both in pair.texts for parts in both)


def _mask(config: Config, show_private: bool) -> Callable[[Sequence[str]], list[str]]:
    """What stands for the texts of a record: private data becomes its type, even where the settings would leave it."""
    from ownchat.clean.preview import CLOSE, OPEN
    from ownchat.clean.private.finder import PLACEHOLDER, Finder
    from ownchat.clean.private.spans import DEFAULT

    clean = config.clean

    def coloured(text: str) -> str:
        """[PERSON_1], which an earlier step wrote, like what is masked here."""
        return PLACEHOLDER.sub(lambda match: f"{OPEN}{_NUMBER.sub('', match[0][1:-1])}{CLOSE}", text)

    if show_private:
        return lambda texts: [coloured(text) for text in texts]
    types = clean.private_types or DEFAULT
    finder = Finder(types=types, deny=clean.private_deny, threshold=clean.private_threshold)

    def mask(texts: Sequence[str]) -> list[str]:
        shown = []
        for text, spans in zip(texts, finder.find([texts])[0], strict=True):
            pieces, end = [], 0
            for span in spans:
                pieces += [coloured(text[end : span.start]), f"{OPEN}{span.type.upper()}{CLOSE}"]
                end = span.end
            shown.append("".join([*pieces, coloured(text[end:])]))
        return shown

    return mask
