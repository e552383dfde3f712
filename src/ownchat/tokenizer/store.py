"""The token store: documents end to end, memory-mapped, with an index. It holds tokens, not blocks.

``ids.bin``      uint16 or uint32, all documents end to end
``weights.bin``  uint8, 1 where the token is trained
``offsets.npy``  int64 [documents + 1]
``index.parquet``  one row a document: the record it came from and that one's file and line, its piece, its group
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ownchat.artifacts import read_json, write_json
from ownchat.errors import RunError

INDEX = pa.schema(
    [
        ("id", pa.string()),
        ("record", pa.string()),
        ("source", pa.string()),  # file and line that the record was read from
        ("piece", pa.int32()),
        ("group", pa.string()),
        ("kind", pa.string()),
        ("desirable", pa.bool_()),
    ]
)

Document = tuple[np.ndarray, np.ndarray]  # ids, weights


class Part(NamedTuple):
    """Of a store: what came from one file as one kind."""

    kind: str  # conversation | document | preference
    file: str


@dataclass(frozen=True)
class Item:
    """What training takes as one: a document, or the documents of a preference (chosen, rejected)."""

    number: int  # in its store
    documents: tuple[Document, ...]
    desirable: tuple[bool, ...] = ()  # of a preference, for each document: the reply that was wanted?


class TokenWriter:
    """Append documents; use as a context manager. ``documents_per_item``: how many in a row belong together.

    >>> import tempfile; directory = Path(tempfile.mkdtemp())
    >>> with TokenWriter(directory, vocab_size=300) as writer:
    ...     writer.add([5, 6, 7], [0, 1, 1], id="a/0", record="a", piece=0, group=None, kind="conversation")
    >>> store = TokenStore(directory)
    >>> len(store), [part.tolist() for part in store[0]]
    (1, [[5, 6, 7], [0, 1, 1]])
    """

    def __init__(self, directory: Path, vocab_size: int, *, documents_per_item: int = 1) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._per_item = directory, documents_per_item
        self.dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
        self._ids: IO[bytes] = open(directory / "ids.bin", "wb")  # noqa: SIM115 (closed in __exit__)
        self._weights: IO[bytes] = open(directory / "weights.bin", "wb")  # noqa: SIM115
        self._lengths: list[int] = []
        self._rows: list[dict[str, Any]] = []
        self._trained = 0

    def add(self, ids: Sequence[int], weights: Sequence[int], **index: Any) -> None:
        self._ids.write(np.asarray(ids, self.dtype).tobytes())
        self._weights.write(np.asarray(weights, np.uint8).tobytes())
        self._lengths.append(len(ids))
        self._trained += sum(weights)
        self._rows.append(index)

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._ids.close()
        self._weights.close()
        np.save(self.directory / "offsets.npy", np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)]))
        pq.write_table(pa.Table.from_pylist(self._rows, schema=INDEX), self.directory / "index.parquet")
        described = {"dtype": self.dtype.name, "trained_tokens": self._trained, "documents_per_item": self._per_item}
        write_json(self.directory / "store.json", described)


class TokenStore:
    """Read access: ``store[i]`` is ``(ids, weights)`` of document ``i`` as arrays; nothing is loaded ahead."""

    def __init__(self, directory: Path) -> None:
        if not (directory / "store.json").is_file():
            raise RunError("there is no token store", where=str(directory), fix="run the stages before this one again")
        described = read_json(directory / "store.json")
        self.trained_tokens: int = described["trained_tokens"]
        self.documents_per_item: int = described.get("documents_per_item", 1)
        self.offsets: np.ndarray = np.load(directory / "offsets.npy").astype(np.int64)
        self._directory = directory
        empty = self.offsets[-1] == 0  # numpy cannot map an empty file
        self._ids = (
            np.zeros(0, described["dtype"]) if empty else np.memmap(directory / "ids.bin", described["dtype"], "r")
        )
        self._weights = np.zeros(0, np.uint8) if empty else np.memmap(directory / "weights.bin", np.uint8, "r")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.offsets[number], self.offsets[number + 1])
        return self._ids[part].astype(np.int64), self._weights[part]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [documents]: tokens of each document."""
        return np.diff(self.offsets)

    def item(self, number: int) -> Item:
        """Item ``number``, which is document ``number`` where an item is one document."""
        first = number * self.documents_per_item
        documents = tuple(self[first + place] for place in range(self.documents_per_item))
        if len(documents) == 2:
            return Item(number, documents, (True, False))
        verdict = self._verdicts[number]
        return Item(number, documents, () if verdict < 0 else (bool(verdict),))

    @cached_property
    def _verdicts(self) -> np.ndarray:
        """int8 [documents]: 1 for a desirable reply, 0 for an undesirable one, -1 where nobody judged."""
        column = pq.read_table(self._directory / "index.parquet", columns=["desirable"])["desirable"]
        return pc.fill_null(column.cast(pa.int8()), -1).to_numpy()

    @property
    def judgements(self) -> tuple[int, int]:
        """Replies of preferences that are desirable, and that are not."""
        if self.documents_per_item == 2:
            return len(self.item_lengths), len(self.item_lengths)
        return int((self._verdicts == 1).sum()), int((self._verdicts == 0).sum())

    @property
    def item_lengths(self) -> np.ndarray:
        """int64 [items]: tokens of each item."""
        return np.diff(self.offsets[:: self.documents_per_item])

    @property
    def item_trained(self) -> np.ndarray:
        """int64 [items]: trained tokens of each item."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.add.reduceat(self._weights, self.offsets[:-1][:: self.documents_per_item], dtype=np.int64)

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])

    def occurrences(self, sequence: Sequence[int]) -> list[tuple[int, int]]:
        """(document, place in it) wherever these tokens stand in a row inside one document."""
        found = np.flatnonzero(self._ids[: max(0, len(self._ids) - len(sequence) + 1)] == sequence[0])
        for at, id in enumerate(sequence[1:], 1):
            found = found[self._ids[found + at] == id]
        owners = np.searchsorted(self.offsets, found, side="right") - 1
        inside = found + len(sequence) <= self.offsets[owners + 1]
        return list(zip(owners[inside].tolist(), (found - self.offsets[owners])[inside].tolist(), strict=True))

    def groups(self) -> pa.ChunkedArray:
        """string [documents]: customer or thread of each."""
        return pq.read_table(self._directory / "index.parquet", columns=["group"])["group"]

    def parts(self) -> tuple[list[Part], np.ndarray]:
        """Kinds and files that the items came from, and int64 [items]: which of these each has."""
        table = pq.read_table(self._directory / "index.parquet", columns=["kind", "source"])
        files = pc.replace_substring_regex(pc.fill_null(table["source"], ""), r" line \d+$", "")
        joined = pc.binary_join_element_wise(pc.fill_null(table["kind"], ""), files, "\t")
        coded = joined.combine_chunks().dictionary_encode()
        known = [Part(*text.split("\t", 1)) for text in coded.dictionary.to_pylist()]
        return known, coded.indices.to_numpy().astype(np.int64)[:: self.documents_per_item]

    def index(self) -> list[dict[str, Any]]:
        """Where each document came from."""
        return pq.read_table(self._directory / "index.parquet").to_pylist()
