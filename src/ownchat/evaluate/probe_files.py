"""Files of questions and sentences that a model is probed with: those that ship, public ones, and people's own.

What a file holds is seen by its columns (:data:`FORMS`), never by its name. Read are CSV, JSON and JSON Lines in UTF-8,
also packed with gzip. Everything is checked before it is used: a probe that is read half gives a wrong figure.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ownchat.errors import DataError

Kind = Literal["pairs", "bbq", "truth", "scope", "prompts", "general"]

SHIPPED = Path(__file__).parent / "probes"
VERSION = 1  # of the probes that ship
MOST_BYTES = 256_000_000  # unpacked
MISSING_SHOWN = 12  # columns that a message names

_METADATA = ("answer_info", "additional_metadata")
FORMS: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "pairs": (("sent_more", "sent_less", "stereo_antistereo", "bias_type"),),  # CrowS-Pairs
    "bbq": (
        ("context", "question", "ans0", "ans1", "ans2", "label", "question_polarity", "context_condition", "category",
         *_METADATA),
    ),
    "truth": (
        ("question", "true", "false"),
        ("question", "mc1_targets"),  # TruthfulQA, multiple choice
        ("Question", "Best Answer", "Incorrect Answers"),  # TruthfulQA.csv
    ),
    "scope": (("out_of_scope",), ("oos_test",)),  # the second is CLINC150
    "prompts": (("prompt",),),  # for continuations
    "general": (("question", "choices", "answer"), ("instruction", "rules"), ("messages",), ("text",)),
}  # fmt: skip


@dataclass(frozen=True)
class ProbeFile:
    """A file that is known to be well-formed. ``rows``: (line, values); the line counts from 1."""

    path: Path
    kind: Kind
    rows: tuple[tuple[int, dict[str, Any]], ...]
    sha256: str
    version: int | None = None  # of a probe that says so

    @property
    def name(self) -> str:
        """Of the file, without its endings: ``crows_pairs_anonymized``."""
        return self.path.name.split(".")[0]

    def conditions(self, used: int) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "probe": self.name, "version": self.version, "sha256": self.sha256, "items": used, "of": len(self.rows),
        }  # fmt: skip

    def draw(self, most: int, seed: int) -> list[tuple[int, dict[str, Any]]]:
        """All rows, or an even draw of ``most``, in the file's order."""
        if len(self.rows) <= most:
            return list(self.rows)
        chosen = np.random.default_rng(seed).choice(len(self.rows), most, replace=False)
        return [self.rows[at] for at in sorted(chosen.tolist())]


def of_kind(paths: Sequence[Path], kind: Kind) -> list[ProbeFile]:
    """Those of the files that hold this; raises :class:`~ownchat.errors.DataError` for one that holds nothing known."""
    return [read for read in map(read_probe, paths) if read.kind == kind]


def endings(probes: Sequence[ProbeFile]) -> list[str]:
    """What the names of each file's figures end in: nothing for one that ships, else the file's name, each once."""
    found: list[str] = []
    for probe in probes:
        name = re.sub(r"[^a-z0-9]+", "_", probe.name.lower()).strip("_") or "file"
        first = ending = "" if probe.path.parent == SHIPPED else f"_{name}"
        while ending in found:
            ending = f"{first}_{found.count(ending) + len(found)}"
        found.append(ending)
    return found


def shipped(name: str) -> ProbeFile:
    """A probe that comes with ownchat."""
    return read_probe(SHIPPED / f"{name}.jsonl")


def read_probe(path: Path) -> ProbeFile:
    """Read and check a file. Raises :class:`~ownchat.errors.DataError` with the file, the line and what is expected."""
    try:
        state = path.stat()
        return _read(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=str(path), fix="check evaluate.care.probes"
        ) from error


@lru_cache(maxsize=8)  # a file is checked before the training, and read by several checks after it
def _read(path: Path, size: int, changed: int) -> ProbeFile:
    content = _unpacked(path)
    text = _decoded(path, content)
    if not text.strip():
        raise DataError("the file is empty", where=str(path), fix="leave it out of evaluate.care.probes")
    rows = list(_rows(path, text))
    version, rows = _header(path, rows)
    if not rows:
        raise DataError("the file has no rows", where=str(path), fix="leave it out of evaluate.care.probes")
    kind, columns = _recognise(path, rows[0][1])
    if "oos_test" in columns:
        rows = [(1, row) for row in _clinc(path, rows[0][1])]
        columns = ("out_of_scope",)
    for line, row in rows if kind != "general" else ():  # whose rows may differ in form: general.py reads them
        missing = [column for column in columns if row.get(column) is None]
        if missing:
            raise _missing(f"{path} line {line}", missing, columns)
    return ProbeFile(path, kind, tuple(rows), hashlib.sha256(content).hexdigest(), version)


def text_of(path: Path, line: int, row: dict[str, Any], column: str) -> str:
    """A text that is not blank; raises :class:`~ownchat.errors.DataError` otherwise."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f'"{column}" has to be a text', where=f"{path} line {line}", fix="mend the line or take it out")
    return value.strip()


def one_of(path: Path, line: int, row: dict[str, Any], column: str, known: Sequence[Any]) -> Any:
    """A value of a few; raises :class:`~ownchat.errors.DataError` otherwise."""
    value = row.get(column)
    if isinstance(value, bool) or value not in known:
        raise DataError(
            f'"{column}" is {value!r}', where=f"{path} line {line}", fix=f"it is one of {', '.join(map(str, known))}"
        )
    return value


# ------------------------------------------------------------------------------------------------------- reading


def _unpacked(path: Path) -> bytes:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else open(path, "rb") as source:
            content = source.read(MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError("the packed file is damaged", where=str(path), fix="fetch it again") from error
    if len(content) > MOST_BYTES:
        raise DataError(
            f"more than {MOST_BYTES / 1e6:,.0f} MB: this is no probe", where=str(path), fix="give a smaller file"
        )
    return content


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError("not UTF-8", where=f"{path} line {line}", fix="save the file as UTF-8") from error


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """By what the text begins with: an array, objects on lines, one object; else a table with a header."""
    start = text.lstrip()[:1]
    if start not in ("{", "["):
        yield from _table(path, text)
        return
    if start == "[" or not _parses(text.lstrip().split("\n", 1)[0]):  # one value over many lines
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _broken(path, error) from error
        for number, row in enumerate(whole if isinstance(whole, list) else [whole], start=1):
            yield number, _object(path, number, row)
        return
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand inside a text
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError("this line is no JSON", where=f"{path} line {number}", fix="mend it") from error
            yield number, _object(path, number, row)


def _broken(path: Path, error: Exception) -> DataError:
    line = getattr(error, "lineno", 1)
    return DataError("this is no JSON", where=f"{path} line {line}", fix="mend it, or fetch the file again")


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _object(path: Path, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError("a row has to be an object: {...}", where=f"{path} row {number}", fix=_known_forms())
    return row


def _table(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = next(reader, [])
        if len(names) < 2 and "\t" in text.split("\n", 1)[0]:
            raise DataError("columns are separated by tabs", where=str(path), fix="save it with commas (CSV)")
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{len(cells)} cells under {len(names)} columns", where=f"{path} line {reader.line_num}",
                    fix="put texts with a comma or a line break into quotes",
                )  # fmt: skip
            yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"no CSV: {error}", where=f"{path} line {reader.line_num}", fix="save it again") from error


def _header(path: Path, rows: list[tuple[int, dict[str, Any]]]) -> tuple[int | None, list[tuple[int, dict[str, Any]]]]:
    """A first row such as ``{"probe": "pairs", "version": 1}`` says what follows."""
    if not rows or "probe" not in rows[0][1]:
        return None, rows
    version = rows[0][1].get("version")
    if version != VERSION or isinstance(version, bool):
        raise DataError(
            f"version {version!r} of this probe is not known", where=f"{path} line {rows[0][0]}",
            fix=f"this ownchat reads version {VERSION}: take the probe of its release, or a newer ownchat",
        )  # fmt: skip
    return VERSION, rows[1:]


def _recognise(path: Path, row: dict[str, Any]) -> tuple[Kind, tuple[str, ...]]:
    forms = [(kind, columns) for kind, alternatives in FORMS.items() for columns in alternatives]
    for kind, columns in forms:
        if all(column in row for column in columns):
            return kind, columns
    most = max(forms, key=lambda form: sum(column in row for column in form[1]) / len(form[1]))
    missing = [column for column in most[1] if column not in row]
    if len(missing) * 2 <= len(most[1]):
        raise _missing(str(path), missing, most[1])
    found = ", ".join(list(row)[:MISSING_SHOWN]) or "none"
    raise DataError(f"this is no probe that is known; its columns are: {found}", where=str(path), fix=_known_forms())


def _missing(where: str, missing: Sequence[str], columns: Sequence[str]) -> DataError:
    names = ", ".join(missing)
    return DataError(
        f"{'a column is' if len(missing) == 1 else 'columns are'} missing: {names}", where=where,
        fix=f"expected are: {', '.join(columns)}",
    )  # fmt: skip


def _known_forms() -> str:
    forms = "; or ".join(", ".join(columns) for alternatives in FORMS.values() for columns in alternatives)
    return f"a probe has the columns {forms}"


def _clinc(path: Path, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """CLINC150: {"oos_test": [["who won the cup", "oos"], ..], ..}; what is in its scope is not in the user's."""
    for split in ("oos_test", "oos_val", "oos_train"):
        pairs = row.get(split, [])
        if not isinstance(pairs, list):
            raise DataError(f'"{split}" has to be a list', where=str(path), fix='of pairs: [["a question", "oos"], ..]')
        for pair in pairs:
            if not isinstance(pair, list) or not pair or not isinstance(pair[0], str):
                raise DataError(
                    f'"{split}" has an entry that is no pair', where=str(path), fix='write ["a question", "oos"]'
                )
            yield {"out_of_scope": pair[0]}
