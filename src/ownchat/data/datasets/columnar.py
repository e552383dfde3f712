"""Parquet and Arrow (file and stream format, Feather): the same rows as JSON lines would hold, read in batches.

The number of a row, from 1, stands for its line. Of a column whose labels are numbers the names are taken where the
file has them in its metadata (the Hugging Face ``datasets`` library writes them there).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ownchat.config import DataConfig
from ownchat.data.datasets.dialogues import dialogues, turn_list
from ownchat.data.datasets.rows import form_of
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.json_rows import read_rows
from ownchat.data.json_stream import JsonRow
from ownchat.data.reading import Reading

BATCH_ROWS = 512
_LOOK_ROWS = 20


def recognise_columnar(file: InputFile) -> float:
    """How surely a file is Parquet or Arrow."""
    return 1.0 if file.magic in ("parquet", "arrow") else 0.0


def read_columnar(file: InputFile, data: DataConfig) -> Reading:
    """The rows of a file, streamed. Raises :class:`~ownchat.data.files.UnreadableFile` for one without its end."""

    def again() -> Iterator[JsonRow]:
        return _rows(file)

    try:
        found = list(islice(again(), _LOOK_ROWS))
    except (pa.ArrowException, OSError, ValueError, EOFError, MemoryError) as error:  # a length that is damaged
        raise _damaged(file, error) from error
    first = [row.value for row in found if not row.problem]
    if found and not first:
        raise _damaged(file, ValueError(found[0].problem))
    if not first:
        raise UnreadableFile("there is no row in it", where=file.name, fix="remove it")
    lists = [row for row in first if form_of(row) is None and turn_list(row)]
    if len(lists) >= 0.5 * len(first) and not data.map.keys() - {"group"}:
        return dialogues(file.name, data, again)
    return read_rows(file.name, data, again, file.magic)


# ----------------------------------------------------------------------------------------------------------------


def _rows(file: InputFile) -> Iterator[JsonRow]:
    number = 0
    with file.open_binary() as stream:
        batches = _parquet(stream) if file.magic == "parquet" else _arrow(stream)
        mend: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError, ValueError, EOFError, MemoryError) as error:
                if number == 0:
                    raise
                yield JsonRow(number + 1, None, f"the rest is damaged: {error}")
                return
            if batch is None:
                return
            if mend is None:
                mend = _mend(batch.schema)
            for start in range(0, batch.num_rows, BATCH_ROWS):
                piece = batch.slice(start, BATCH_ROWS)
                try:
                    values = piece.to_pylist()
                except (pa.ArrowException, ValueError, OverflowError, UnicodeDecodeError):  # one value spoils them all
                    values = None
                for place in range(piece.num_rows):
                    number += 1
                    yield _row(piece, values, place, number, mend)


def _row(
    piece: pa.RecordBatch, values: list[Any] | None, place: int, number: int, mend: Callable[[dict[str, Any]], Any]
) -> JsonRow:
    try:
        value = values[place] if values is not None else piece.slice(place, 1).to_pylist()[0]
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return JsonRow(number, None, f"not readable: {error}")
    return JsonRow(number, mend(value))


def _parquet(stream: Any) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(stream, pre_buffer=False) as parquet:
        yield from parquet.iter_batches(batch_size=BATCH_ROWS)


def _arrow(stream: Any) -> Iterator[pa.RecordBatch]:
    if stream.read(6) == b"ARROW1":
        stream.seek(0)
        with pa.ipc.open_file(stream) as reader:
            for number in range(reader.num_record_batches):
                yield _checked(reader.get_batch(number))
        return
    stream.seek(0)
    with pa.ipc.open_stream(stream) as reader:
        yield from map(_checked, reader)


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose offsets lie inside its buffers: a damaged one would be read beyond their end."""
    batch.validate(full=True)
    return batch


def _mend(schema: pa.Schema) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What makes values of JSON of a row: names for numbered labels, lists for maps, texts for times and bytes."""
    labels = _labels(schema)
    odd = [field.name for field in schema if not _is_json(field.type)]

    def mend(row: dict[str, Any]) -> dict[str, Any]:
        for name in odd:
            row[name] = _value(row[name])
        for name, names in labels.items():
            value = row.get(name)
            if isinstance(value, int) and 0 <= value < len(names):
                row[name] = names[value]
        return row

    return mend


def _labels(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of label columns (``ClassLabel``) from the metadata of the ``datasets`` library."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: one["names"] for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    return {name: [str(label) for label in names] for name, names in found.items() if isinstance(names, list)}


def _is_json(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_json(kind.value_type)
    simple = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean,
        pa.types.is_null,
    )  # fmt: skip
    return any(is_kind(kind) for is_kind in simple)


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _value(item) for key, item in value.items()}
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"{len(value):,} bytes"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _damaged(file: InputFile, error: Exception) -> UnreadableFile:
    kind = "Parquet" if file.magic == "parquet" else "Arrow"
    what = f"this {kind} file is damaged or incomplete: {str(error).splitlines()[0] if str(error) else error!r}"
    return UnreadableFile(what, where=file.name, fix="copy or download it again")
