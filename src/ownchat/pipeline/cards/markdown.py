"""What both cards share: their header, lists, tables, and text from elsewhere made safe to stand in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ownchat.errors import printable
from ownchat.pipeline.cards.facts import Facts
from ownchat.pipeline.cards.licences import Licence

NOT_SAID = "not said by the owner (`evaluate.card`)"
LONGEST = 300  # characters of an example


def document(header: Mapping[str, Any], parts: Sequence[str | None]) -> str:
    """A card: YAML between lines of dashes, then paragraphs; empty parts fall away."""
    head = yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True, width=10**6)
    return "\n\n".join([f"---\n{head}---", *(part for part in parts if part)]) + "\n"


def licence_fields(found: Licence | None) -> dict[str, str]:
    """``license`` as the hub wants it: a name that it knows, or ``other`` with the name beside."""
    if found is None:
        return {}
    if found.hub is not None:
        return {"license": found.hub}
    return {"license": "other", "license_name": "-".join(found.name.lower().split())}


def section(title: str, *parts: str | None) -> str | None:
    """A heading and what stands under it; None where that is nothing."""
    told = [part for part in parts if part]
    return "\n\n".join([f"## {title}", *told]) if told else None


def listed(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def pairs(facts: Sequence[tuple[str, str]]) -> str:
    return listed([f"{name}: {value}" for name, value in facts])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def plain(text: str, longest: int = LONGEST) -> str:
    """A text from elsewhere on one line of Markdown: no marks of HTML or of a table, no control characters.

    >>> plain("a | b\\n<script>")
    'a \\\\| b &lt;script&gt;'
    """
    text = " ".join(printable(text).split())
    text = text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
    for mark, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'"), ("](", "] (")):
        text = text.replace(mark, instead)
    return text


def licences(facts: Facts) -> str:
    """Of base and data as they were given, and what has to be looked at."""
    base, data = facts.base_licence, facts.data_licences
    of_base = "none: it was made from nothing" if facts.from_nothing else plain(base.name) if base else "not known"
    of_data = ", ".join(plain(one.name) for one in data) if data else "not known"
    lines = [f"Base: {of_base}", f"Data: {of_data}"]
    found = facts.conflicts
    found = [f"**{plain(text, 1000)}**" for text in found] or ["No conflict is known between these."]
    return listed(lines + found) + "\n\nA table of known licences says so; it is no legal advice."


def report_problems(facts: Facts) -> str:
    contact, owner = facts.card.get("contact"), facts.card.get("owner")
    if contact is None:
        return "The owner named nobody to write to (`evaluate.card`: contact)."
    return (
        f"Write to {plain(contact)}"
        + (f" ({plain(owner)})" if owner else "")
        + " and say what you asked, what it "
        + ("answered, and what is wrong with it.")
    )


def provenance(facts: Facts, *, only: Sequence[str] = ()) -> str | None:
    """The chain of hashes; ``only``: of these links."""
    found = facts.provenance
    if found is None or not found["links"]:
        return None
    rows = [[one["what"], f"`{plain(one['file'])}`", f"`{one['sha256']}`"] for one in found["links"]
            if not only or one["what"] in only]  # fmt: skip
    return (
        "What was made from what, top to bottom, with the SHA-256 of each file (`sha256sum FILE` gives it).\n\n"
        + table(["what", "file", "SHA-256"], rows)
        + f"\n\nAll files of the model card together: `{found['chain']}`"
    )
