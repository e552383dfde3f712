"""The facts that cards are made of: manifests, ledgers, the report and the owner's own words; and the chain of hashes.

``6-report/provenance.json`` holds the SHA-256 of what the model came from and of the model, in the order in which one
made the next. Its ``chain`` is the SHA-256 of these lines together: one number that changes with any of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ownchat.artifacts import (
    CLEAN,
    IMPORT,
    MANIFEST,
    MODEL,
    REPORT,
    TOKENIZER,
    TOKENS,
    TRAIN,
    fingerprint,
    read_json,
    write_json,
)
from ownchat.config import FROM_NOTHING
from ownchat.pipeline import replay
from ownchat.pipeline.cards import licences
from ownchat.pipeline.cards.licences import Licence
from ownchat.pipeline.export_files import base_name

if TYPE_CHECKING:
    from ownchat.pipeline.export import Source

PROVENANCE = "provenance.json"
LEAST_SHARE = 0.05  # of the records: a language below it is not named in a card's header

# What made what: a name for people, and the files in the run.
LINKS = (
    ("records as imported", IMPORT, (MANIFEST, "ledger.parquet", "[0-9]*.parquet")),
    (
        "records after cleaning",
        CLEAN,
        (MANIFEST, "ledger.parquet", "train/*.parquet", "valid/*.parquet", "test/*.parquet"),
    ),
    ("general rows", replay.STAGE, (MANIFEST, "ledger.parquet", f"{replay.RECORDS}/*.parquet")),
    ("tokenizer", TOKENIZER, (MANIFEST, "tokenizer.json")),
    ("training tokens", TOKENS, (MANIFEST, "train/ids.bin", "train/weights.bin")),
    ("untrained model", MODEL, (MANIFEST, "*.safetensors")),
    ("base model", "base", ("*.safetensors",)),
    ("training", TRAIN, (MANIFEST,)),
    ("adapter", f"{TRAIN}/adapter", ("*.safetensors",)),
    ("model", f"{TRAIN}/model", ("config.json", "tokenizer.json", "*.safetensors")),
)


@dataclass(frozen=True)
class Facts:
    """Of a finished model; what is not known is None or empty. ``card``: the owner's own words."""

    source: Source

    @property
    def run(self) -> Path | None:
        return self.source.run

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def card(self) -> Mapping[str, str]:
        """``evaluate.card`` without what is blank."""
        return {key: text.strip() for key, text in self.source.config.evaluate.card.items() if text.strip()}

    @property
    def from_nothing(self) -> bool:
        return self.source.config.model.base == FROM_NOTHING

    @property
    def base(self) -> str | None:
        """The hub's id of the base."""
        return base_name(self.source.located.base)

    @property
    def base_licence(self) -> Licence | None:
        found = license_of(self.source.located.base)
        return None if found is None else licences.read(found)

    @property
    def data_licences(self) -> tuple[Licence, ...]:
        return licences.read_all(self.card.get("data_licence"))

    @property
    def licence(self) -> Licence | None:
        """Under which the model itself may stand, as far as a table tells."""
        return licences.of_model(self.base_licence, self.data_licences, from_nothing=self.from_nothing)

    @property
    def conflicts(self) -> list[str]:
        return licences.conflicts(self.base_licence, self.data_licences, from_nothing=self.from_nothing)

    @cached_property
    def report(self) -> dict[str, Any] | None:
        """``report.json``."""
        path = None if self.run is None else self.run / REPORT / "report.json"
        return read_json(path) if path is not None and path.is_file() else None

    @cached_property
    def ladder(self) -> dict[str, Any] | None:
        """``ladder.json``, where it is of this very training."""
        path = None if self.run is None else self.run / REPORT / "ladder.json"
        if self.run is None or path is None or not path.is_file():
            return None
        found: dict[str, Any] = read_json(path)
        return found if found.get("of_training") == fingerprint(self.run / TRAIN) else None

    @property
    def _outside_base(self) -> Path | None:
        """The base, unless it was made in this run and stands among its stages."""
        base = self.source.located.base
        inside = base is not None and self.run is not None and base.resolve().is_relative_to(self.run.resolve())
        return None if inside else base

    def manifest(self, stage: str) -> dict[str, Any]:
        """Of a stage; empty where there is none, or it was removed with the raw text."""
        path = None if self.run is None else self.run / stage / MANIFEST
        return read_json(path) if path is not None and path.is_file() else {}

    def done(self, stage: str) -> dict[str, Any]:
        """``{counts, details, seconds}`` of a stage, as far as it has them."""
        found: dict[str, Any] = self.manifest(stage).get("report") or {}
        return {"counts": {}, "details": {}} | found

    @cached_property
    def records(self) -> Records:
        """What the train split holds."""
        return Records.of(None if self.run is None else self.run / CLEAN / "train")

    def replayed(self, *, for_others: bool = False) -> str | None:
        """The general rows that were mixed in, in a line; none where there were none. ``for_others``: names no file."""
        found = self.done(replay.STAGE)
        rows, source = found["counts"].get("records"), found["details"].get("source")
        if not rows:
            return None
        phases = self.done(TRAIN)["details"].get("phases", {}).values()
        share = next((phase["replay"]["share"] for phase in phases if phase.get("replay")), None)
        taken = "" if share is None else f", {100 * share:.0f} % of the trained tokens"
        if source is None:
            return f"{rows:,} general questions with the base's own answers{taken}"
        named = "a file of the owner's" if for_others else str(source).rstrip("/").rpartition("/")[2]
        return f"{rows:,} general rows of {named}{taken}; their licence is not known here"

    @cached_property
    def has_canaries(self) -> bool:
        from ownchat.tokenizer import canaries

        return self.run is not None and (self.run / TOKENS / canaries.NAME).is_file()

    @cached_property
    def provenance(self) -> dict[str, Any] | None:
        """``{"links": [...], "chain": sha256}``; files whose size and time did not change are not read again."""
        if self.run is None:
            return None
        path = self.run / REPORT / PROVENANCE
        before = read_json(path)["links"] if path.is_file() else []
        known = {(one["file"], one["bytes"], one["mtime_ns"]): one["sha256"] for one in before}
        links = []
        for what, folder, patterns in LINKS:
            place = self._outside_base if folder == "base" else self.run / folder
            if place is None:
                continue
            for file in _files(place, patterns):
                name, stat = f"{folder}/{file.relative_to(place).as_posix()}", file.stat()
                key = (name, stat.st_size, stat.st_mtime_ns)
                links.append({"what": what, "file": name, "sha256": known.get(key) or fingerprint(file),
                              "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns})  # fmt: skip
        lines = "".join(f"{one['sha256']}  {one['file']}\n" for one in links)
        found = {"links": links, "chain": hashlib.sha256(lines.encode()).hexdigest()}
        if path.parent.is_dir() and links != before:
            write_json(path, found)
        return found


@dataclass(frozen=True)
class Records:
    """Of a split: how many of each kind, how many a machine wrote, in which languages, from which files."""

    kinds: dict[str, int]
    synthetic: int
    languages: dict[str, int]
    files: dict[str, int]

    @classmethod
    def of(cls, split: Path | None) -> Records:
        """Reads three small columns."""
        import pyarrow.parquet as pq

        kinds: Counter[str] = Counter()
        languages: Counter[str] = Counter()
        files: Counter[str] = Counter()
        synthetic = 0
        for shard in () if split is None else sorted(split.glob("[0-9]*.parquet")):
            table = pq.read_table(shard, columns=["kind", "synthetic", "language", "source"])
            kinds.update(table["kind"].to_pylist())
            languages.update(filter(None, table["language"].to_pylist()))
            files.update(source["file"] for source in table["source"].to_pylist())
            synthetic += sum(map(bool, table["synthetic"].to_pylist()))
        return cls(dict(kinds), synthetic, dict(languages.most_common()), dict(files.most_common()))

    @property
    def total(self) -> int:
        return sum(self.kinds.values())

    @property
    def main_languages(self) -> list[str]:
        """Codes of two or three letters, as the hub wants them, of what is no exception in the data."""
        least = LEAST_SHARE * max(1, sum(self.languages.values()))
        return [
            code for code, count in self.languages.items() if count >= least and code.isalpha() and len(code) in (2, 3)
        ]


def license_of(base: Path | None) -> str | None:
    """The licence that a base model's directory names: in our own note, or in the header of its card."""
    if base is None:
        return None
    if (base / MANIFEST).is_file() and isinstance(found := read_json(base / MANIFEST).get("license"), str):
        return found
    card = base / "README.md"
    if card.is_file() and (text := card.read_text(encoding="utf-8", errors="replace")).startswith("---\n"):
        try:
            header = yaml.safe_load(text.split("---\n", 2)[1])
        except (yaml.YAMLError, IndexError):
            return None
        if not isinstance(header, dict) or not header.get("license"):
            return None
        named = header.get("license_name") if header["license"] == "other" else None
        return str(named or header["license"])
    return None


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()]
