"""What the licences of a base model and of its data ask of the model that comes of both, and where they collide.

A small table of the licences one meets, by what they ask for. It names what a person has to look at; it is no legal
advice, and whether a model is a work derived from its data is not settled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Ask = Literal["free", "notice", "share-alike", "copyleft", "no changes", "non-commercial", "own terms"]

# The names that the Hugging Face hub knows (https://huggingface.co/docs/hub/repositories-licenses), by what they ask.
_BY_ASK: dict[Ask, str] = {
    "free": "cc0-1.0 unlicense wtfpl pddl 0bsd",
    "notice": "apache-2.0 mit bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear isc zlib bsl-1.0 ms-pl ncsa postgresql "
    "afl-3.0 artistic-2.0 ecl-2.0 ofl-1.1 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 c-uda odc-by etalab-2.0 openmdw-1.0",
    "share-alike": "cc-by-sa-3.0 cc-by-sa-4.0 odbl cdla-sharing-1.0 gfdl",
    "copyleft": "gpl gpl-2.0 gpl-3.0 agpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr mpl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 "
    "osl-3.0 lppl-1.3c",
    "no changes": "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
    "non-commercial": "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "h-research intel-research apple-amlr apple-ascl fair-noncommercial-research-license deepfloyd-if-license",
    "own terms": "llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma openrail openrail++ bigscience-openrail-m "
    "creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m",
}
_ASKS: dict[str, Ask] = {name: ask for ask, names in _BY_ASK.items() for name in names.split()}
# Where nobody has to look twice (0, 1), what is made of it has to be alike, and what only some may do with it.
_STRICTNESS: dict[Ask | None, int] = {
    "free": 0, "notice": 1, "share-alike": 2, "copyleft": 2, "no changes": 3, "non-commercial": 3, "own terms": 3,
    None: 3,
}  # fmt: skip
_SPELT = {  # how people write them
    "odbl-1.0": "odbl", "odc-odbl": "odbl", "odc-by-1.0": "odc-by", "public domain": "cc0-1.0", "cc0": "cc0-1.0",
    "cc-zero": "cc0-1.0", "apache": "apache-2.0", "apache 2": "apache-2.0", "apache2": "apache-2.0",
    "gpl-3.0-only": "gpl-3.0", "gpl-3.0-or-later": "gpl-3.0", "gplv3": "gpl-3.0", "gpl-2.0-only": "gpl-2.0",
    "gpl-2.0-or-later": "gpl-2.0", "gplv2": "gpl-2.0", "agpl-3.0-only": "agpl-3.0", "agpl-3.0-or-later": "agpl-3.0",
    "lgpl-3.0-only": "lgpl-3.0", "lgpl-3.0-or-later": "lgpl-3.0", "lgpl-2.1-only": "lgpl-2.1", "llama-3": "llama3",
    "llama 3": "llama3", "llama 3.1": "llama3.1", "llama 3.2": "llama3.2", "llama 3.3": "llama3.3",
    "cc-by": "cc-by-4.0", "cc-by-sa": "cc-by-sa-4.0", "cc-by-nc": "cc-by-nc-4.0", "cc-by-nc-sa": "cc-by-nc-sa-4.0",
    "cc-by-nd": "cc-by-nd-4.0", "cc-by-nc-nd": "cc-by-nc-nd-4.0", "gnu general public 3.0": "gpl-3.0",
    "gnu general public 2.0": "gpl-2.0", "gnu affero general public 3.0": "agpl-3.0", "apache 2.0": "apache-2.0",
}  # fmt: skip


@dataclass(frozen=True)
class Licence:
    """``name``: as it was written. ``hub``: the hub's name of it, if it has one. ``ask``: None where not known."""

    name: str
    hub: str | None
    ask: Ask | None

    @property
    def share_alike(self) -> bool:
        """Whether what is made of it has to carry the same licence."""
        return self.ask in ("share-alike", "copyleft") or (self.hub is not None and "-nc-sa-" in self.hub)


_CREATIVE_COMMONS = (
    (r"\battribution\b", "by"), (r"[ -]*\bnon-? ?commercial\b", "-nc"), (r"[ -]*\bshare-? ?alike\b", "-sa"),
    (r"[ -]*\bno-? ?deriv(?:ative)?s\b", "-nd"),
)  # fmt: skip


def _forms(short: str) -> tuple[str, ...]:
    return short, short.replace(" ", "-"), re.sub(r"^cc (by\S*) ", r"cc-\1-", short)


def read(text: str) -> Licence:
    """A licence as people write it; what stands in brackets behind it, who gave it say, is for people alone.

    >>> read("CC BY-NC 4.0").hub, read("Apache-2.0 (Acme Ltd)").ask, read("our own").hub
    ('cc-by-nc-4.0', 'notice', None)
    >>> read("Apache License, Version 2.0").hub, read("Creative Commons Attribution-ShareAlike 4.0 International").hub
    ('apache-2.0', 'cc-by-sa-4.0')
    """
    name = " ".join(text.split())
    plain = name.partition(" (")[0].lower().removeprefix("the ").strip()
    short = re.sub(r"\bv(?=\d)", "", re.sub(r",|\b(?:licen[sc]e|version|international)\b", " ", plain))
    short = re.sub(r"^creative commons\b", "cc", " ".join(short.split()))
    for words, letters in _CREATIVE_COMMONS:
        short = re.sub(words, letters, short)
    for spelt in (plain, *_forms(short), plain.replace("_", "-")):
        spelt = _SPELT.get(spelt, spelt)
        if spelt in _ASKS:
            return Licence(name, spelt, _ASKS[spelt])
    return Licence(name, None, None)


def read_all(text: str | None) -> tuple[Licence, ...]:
    """Of several sources: separated by semicolons, commas or "and" outside of brackets.

    >>> [one.hub for one in read_all("CC-BY-4.0, MIT and ODbL-1.0")]
    ['cc-by-4.0', 'mit', 'odbl']
    """
    return tuple(
        read(part)
        for part in re.split(r"(?i:[;\n]|,(?!\s*v(?:ersion\b|\.?\s*\d))|\band\b)(?![^()]*\))", text or "")
        if part.strip()
    )


def of_model(base: Licence | None, data: Iterable[Licence], *, from_nothing: bool = False) -> Licence | None:
    """Under which a model stands, for the header of its card: the base's, unless one of the data asks for more; then a
    name that says both. ``from_nothing``: what the data ask. None where nothing is known to say.

    >>> of_model(read("mit"), [read("cc-by-4.0")]).hub, of_model(read("mit"), [read("cc-by-nc-4.0")]).name
    ('mit', 'mit with data under cc-by-nc-4.0')
    """
    named = {one.hub or one.name: one for one in data}
    if base is None and not from_nothing:
        return None
    most = max((_STRICTNESS[one.ask] for one in named.values()), default=-1)
    strict = {name: one for name, one in named.items() if _STRICTNESS[one.ask] == most}
    if base is None:
        strict = strict if most > 1 else dict(list(strict.items())[:1])
        return (
            None
            if not strict
            else strict.popitem()[1]
            if len(strict) == 1
            else Licence(" and ".join(strict), None, None)
        )
    own = _STRICTNESS[base.ask]
    others = [name for name in strict if name != (base.hub or base.name)] if most > 1 and most >= own else []
    if not others:
        return base
    return Licence(f"{base.hub or base.name} with data under {' and '.join(others)}", None, None)


def conflicts(base: Licence | None, data: Iterable[Licence], *, from_nothing: bool = False) -> list[str]:
    """What has to be looked at before the model is given to others, in sentences; nothing where nothing collides.

    ``base`` None: not known, or, ``from_nothing``, there is none.

    >>> conflicts(read("apache-2.0"), [read("cc-by-4.0")])
    []
    >>> conflicts(read("apache-2.0"), [read("cc-by-nc-4.0")])[0].split(":")[0]
    'The data are for non-commercial use (cc-by-nc-4.0)'
    """
    data = tuple(data)
    found = []
    for one in data:
        found += _of_data(one, base)
    if not data:
        found.append(
            "The licence of the data is not known: only who may use them as they like may give the model away."
        )
    if base is None and not from_nothing:
        found.append("The licence of the base is not known: look it up before you publish.")
    elif base is not None:
        found += _of_base(base)
    alike = {one.hub or one.name: one for one in (*data, *([base] if base else [])) if one.share_alike}
    if len(alike) > 1:
        found.append(f"{' and '.join(sorted(alike))} each ask that what is made of them carries their own licence: not "
                     "both can be met.")  # fmt: skip
    return found


def _of_data(data: Licence, base: Licence | None) -> list[str]:
    name = data.hub or data.name
    match data.ask:
        case None:
            return [f'What the licence of the data ("{data.name}") asks is not known here: read it.']
        case "non-commercial":
            more = f" It must not be offered as {base.name} without saying so." if base and _is_open(base) else ""
            return [f"The data are for non-commercial use ({name}): a model trained on them is not for commerce.{more}"]
        case "no changes":
            more = " They are for non-commercial use, and so is the model." if "-nc-" in name else ""
            return [f"The data may be passed on unchanged only ({name}): whether a model may be made of them and given "
                    f"to others has to be asked of their owner.{more}"]  # fmt: skip
        case "share-alike" | "copyleft" if base is not None and base.ask in ("own terms", "non-commercial"):
            return [f"The data ({name}) ask for the same licence on what is made of them, and the base ({base.name}) "
                    "does not allow another one than its own: the two collide if a model counts as such."]  # fmt: skip
        case "share-alike" | "copyleft":
            return [f"The data ({name}) ask that what is made of them carries their licence; whether a model is, is "
                    "not settled. The safe way is to publish it under that licence."]  # fmt: skip
        case "own terms":
            return [f"The data stand under terms of their own ({name}): read them, and pass them on."]
        case "notice" if name.startswith(("cc-by", "odc-by", "etalab")):
            return []  # named in the card: attribution
    return []


def _of_base(base: Licence) -> list[str]:
    name = base.hub or base.name
    if name.startswith("llama"):
        return [f"The base stands under Meta's licence ({name}): pass it on with the model, show \"Built with "
                f"{'Meta ' if name == 'llama3' else ''}Llama\", let the model's name begin with \"Llama\" (from Llama "
                "3 on), and keep to its acceptable use policy."]  # fmt: skip
    if name == "gemma":
        return ["The base stands under the Gemma terms of use: pass them and their use restrictions on with the model."]
    match base.ask:
        case "own terms":
            return [f"The base stands under terms with use restrictions ({name}): pass them on with the model."]
        case "non-commercial":
            return [f"The base is for non-commercial use ({name}), and so is this model."]
        case "no changes":
            more = " It is for non-commercial use, and so is this model." if "-nc-" in name else ""
            return [f"The base may be passed on unchanged only ({name}): this model may not be given to others.{more}"]
        case "share-alike" | "copyleft":
            return [f"The base asks that what is made of it carries its licence ({name}): so does this model."]
        case None:
            return [f'What the licence of the base ("{base.name}") asks is not known here: read it.']
    return []


def _is_open(licence: Licence) -> bool:
    return licence.ask in ("free", "notice")
