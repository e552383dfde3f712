"""What licences of a base and of data ask of the model, pair by pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownchat.pipeline.cards import licences
from ownchat.pipeline.cards.facts import license_of


@pytest.mark.parametrize(
    ("base", "data", "said"),
    [
        ("apache-2.0", "cc-by-4.0", []),
        ("apache-2.0", "CC0", []),
        ("apache-2.0", "CC-BY-NC-4.0", ["not for commerce"]),
        ("apache-2.0", "cc-by-nd-4.0", ["unchanged only"]),
        ("apache-2.0", "CC BY-SA 4.0", ["under that licence"]),
        ("apache-2.0", "GPL-3.0-or-later", ["under that licence"]),
        ("llama3.2", "mit", ["Built with Llama"]),
        ("gemma", "mit", ["Gemma terms"]),
        ("gemma", "odbl", ["collide", "Gemma terms"]),
        ("cc-by-nc-4.0", "mit", ["so is this model"]),
        ("cc-by-sa-4.0", "gpl-3.0", ["not both can be met"]),
        ("apache-2.0", "", ["The licence of the data is not known"]),
        ("apache-2.0", "our own terms", ["is not known here: read it"]),
        ("house licence", "mit", ["is not known here: read it"]),
        (None, "mit", ["The licence of the base is not known"]),
    ],
)
def test_pairs_of_licences(base: str | None, data: str, said: list[str]) -> None:
    found = licences.conflicts(None if base is None else licences.read(base), licences.read_all(data))
    assert bool(found) == bool(said), found
    for part in said:
        assert any(part in " ".join(text.split()) for text in found), found


@pytest.mark.parametrize(
    ("written", "hub"),
    [
        ("Apache License 2.0", "apache-2.0"), ("Apache License, Version 2.0", "apache-2.0"),
        ("The MIT License", "mit"), ("Apache v2.0", "apache-2.0"), ("CC BY NC ND 4.0", "cc-by-nc-nd-4.0"),
        ("Creative Commons Attribution 4.0 International", "cc-by-4.0"), ("CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0", "cc-by-nc-sa-4.0"),
        ("GNU General Public License v3.0", "gpl-3.0"), ("fair-noncommercial-research-license",) * 2,
    ],
)  # fmt: skip
def test_licences_as_people_write_them(written: str, hub: str | None) -> None:
    (found,) = licences.read_all(written)
    assert found.hub == hub and found.name == written
    assert [one.hub for one in licences.read_all(f"{written}, MIT")] == [hub, "mit"]


def test_what_may_not_be_changed_may_be_non_commercial_too() -> None:
    nd, mit = licences.read("cc-by-nc-nd-4.0"), licences.read("mit")
    assert "non-commercial" in licences.conflicts(mit, [nd])[0] and "non-commercial" in licences.conflicts(nd, [mit])[0]
    assert "non-commercial" not in licences.conflicts(mit, [licences.read("cc-by-nd-4.0")])[0]


@pytest.mark.parametrize(
    ("base", "data", "expected"),
    [
        ("apache-2.0", "", "apache-2.0"), ("apache-2.0", "MIT, CC-BY-4.0", "apache-2.0"),
        ("apache-2.0", "cc-by-nc-4.0", "apache-2.0 with data under cc-by-nc-4.0"),
        ("apache-2.0", "our own", "apache-2.0 with data under our own"),
        ("cc-by-nc-4.0", "CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("gpl-3.0", "cc-by-sa-4.0", "gpl-3.0 with data under cc-by-sa-4.0"), ("gemma", "odbl", "gemma"),
        (None, "cc-by-sa-4.0, mit", "cc-by-sa-4.0"), (None, "", None), (None, "mit", "mit"),
        (None, "cc-by-nc-4.0, cc-by-nd-4.0", "cc-by-nc-4.0 and cc-by-nd-4.0"),
    ],
)  # fmt: skip
def test_the_header_names_the_stricter_licence(base: str | None, data: str, expected: str | None) -> None:
    own = None if base is None else licences.read(base)
    found = licences.of_model(own, licences.read_all(data), from_nothing=base is None)
    assert (None if found is None else found.hub or found.name) == expected
    if base is None:
        assert licences.of_model(None, licences.read_all(data)) is None


def test_a_base_under_another_licence_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: acme-research\n---\n# Small\n")
    assert license_of(tmp_path) == "acme-research"


def test_several_licences_each_with_its_giver() -> None:
    found = licences.read_all("CC-BY-4.0 (Acme, Berlin and Rome), MIT; our own")
    assert [(one.hub, one.name) for one in found] == [
        ("cc-by-4.0", "CC-BY-4.0 (Acme, Berlin and Rome)"), ("mit", "MIT"), (None, "our own"),
    ]  # fmt: skip
    assert licences.read_all(None) == () and licences.read_all(" , ") == ()
