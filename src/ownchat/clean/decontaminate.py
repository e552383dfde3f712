"""Records that hold text of an examination: they are taken out, so that a model is not examined on what it learned.

A message of the examination is found by the runs of 13 words in it (Brown et al. 2020), a short one of 8 to 12 words by
its runs of 8. A run that stands in one of a hundred records is a form of words ("Choose the best answer from the ...")
and no evidence. Records are looked at as they came in, before private data is masked, and as they are written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.shingles import Folded, count_words, fold, ngrams, part, pieces, word_hashes
from ownchat.config import Config
from ownchat.data import stage as importing
from ownchat.data.records import read_batches
from ownchat.data.remote import existing
from ownchat.errors import DataError

LONG_RUN, SHORT_RUN = 13, 8  # words
FORM_SHARE = 0.01  # of the records in which a run must stand to be a form of words, and in ten at least


@dataclass(frozen=True)
class Examination:
    """The runs of words to look for, and where each stands."""

    runs: np.ndarray  # (n,) uint64, sorted
    places: np.ndarray  # (n,) index into names
    names: list[str]  # "file, line 7"
    files: list[dict[str, int | str]]  # what was read, for the report

    def find(self, texts: Folded) -> tuple[np.ndarray, np.ndarray]:
        """Texts that hold a run, and the run (its index); a pair is told once."""
        rows, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start, end in pieces(texts) if len(self.runs) else ():
            hashes, starts = word_hashes(part(texts, start, end))
            for size in (LONG_RUN, SHORT_RUN):
                keys, firsts = _sized(hashes, starts, size)
                places = np.minimum(np.searchsorted(self.runs, keys), len(self.runs) - 1)
                hits = np.flatnonzero(self.runs[places] == keys)
                rows.append(np.searchsorted(firsts, hits, side="right") - 1 + start)
                found.append(places[hits])
        pairs = np.unique(np.stack([np.concatenate(rows), np.concatenate(found)], axis=1), axis=0)
        return pairs[:, 0], pairs[:, 1]

    def save(self, folder: Path) -> None:
        np.savez(folder / "runs.npz", runs=self.runs, places=self.places)
        (folder / "names.json").write_text(json.dumps([self.names, self.files]))

    @staticmethod
    def load(folder: Path) -> Examination:
        with np.load(folder / "runs.npz") as stored:
            return Examination(stored["runs"], stored["places"], *json.loads((folder / "names.json").read_text()))


def read_examination(paths: Sequence[str], config: Config, room: Path) -> Examination:
    """Read any files that can be imported; ``room`` is a folder for the import's work.

    A path may be a URL of storage. Raises :class:`~ownchat.errors.DataError` for one that does not exist and for a
    file without a usable text.
    """
    plain = config.model_copy(update={"data": config.data.model_copy(update={"map": {}, "system": None})})
    runs: list[np.ndarray] = [np.empty(0, np.uint64)]
    places: list[np.ndarray] = [np.empty(0, np.int64)]
    names: list[str] = []
    files: list[dict[str, int | str]] = []
    for number, path in enumerate(paths):
        report = importing.run(plain, {"source": existing(path)}, room / str(number))
        before = sum(map(len, runs))
        for batch in read_batches(room / str(number), 512):
            texts, rows = _messages(batch)
            source = batch.column("source").to_pylist()
            first = len(names)
            names += [f"{one['file']}, line {one['line']}" for one in source]
            folded = fold(texts)
            words = count_words(folded)
            hashes, starts = word_hashes(folded)
            for size, least, most in ((LONG_RUN, LONG_RUN, np.inf), (SHORT_RUN, SHORT_RUN, LONG_RUN - 1)):
                keys, firsts = _sized(hashes, starts, size)
                text = np.searchsorted(firsts, np.arange(len(keys)), side="right") - 1
                wanted = (words[text] >= least) & (words[text] <= most)
                runs.append(keys[wanted])
                places.append(first + rows[text[wanted]])
        count = sum(map(len, runs)) - before
        if not count:
            raise DataError(
                f"no text of {SHORT_RUN} words or more to look for",
                where=path,
                fix="leave it out of clean.decontaminate",
            )
        files.append({"file": str(path), "records": report.counts["records"], "runs": count})
    keys, first_places = np.unique(np.concatenate(runs), return_index=True)
    return Examination(keys, np.concatenate(places)[first_places], names, files)


def contaminated(rows: np.ndarray, runs: np.ndarray, count: int) -> dict[int, int]:
    """Of ``count`` records those that hold a run that is no form of words: ``{record: run}``."""
    records = np.bincount(runs)
    telling = records[runs] <= max(10, FORM_SHARE * count) if len(runs) else np.empty(0, bool)
    found, first = np.unique(rows[telling], return_index=True)
    return dict(zip(found.tolist(), runs[telling][first].tolist(), strict=True))


# ---------------------------------------------------------------------------------------------------------------------


def _sized(hashes: np.ndarray, starts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of ``size`` words; those of another size have other keys."""
    keys, firsts = ngrams(hashes, starts, size)
    return keys ^ np.uint64(size), firsts


def _messages(batch: pa.RecordBatch) -> tuple[pa.Array, np.ndarray]:
    """Every text of a batch, system prompts aside, and its record."""
    texts, rows = [pc.fill_null(batch.column("text"), "")], [np.arange(len(batch))]
    for name in ("messages", "chosen", "rejected"):
        lists = batch.column(name)
        flat = lists.flatten()
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        said = pc.fill_null(pc.not_equal(flat.field("role"), "system"), True)
        texts.append(pc.fill_null(flat.field("content"), "").filter(said))
        rows.append(np.repeat(np.arange(len(batch)), lengths)[said.to_numpy(zero_copy_only=False)])
    order = np.argsort(np.concatenate(rows), kind="stable")
    return pa.concat_arrays(texts).take(pa.array(order)), np.concatenate(rows)[order]
