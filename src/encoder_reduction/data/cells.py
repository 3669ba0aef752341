"""The texts and labels of one file; a cell is text as it stands, and what a file does not say plainly is refused."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from ..errors import UserError, reading
from . import labels

_ROWS_AT_ONCE = 10_000
_LONGEST_CELL = 2**31 - 1


@dataclass(frozen=True)
class Table:
    """What a file has.

    Attributes:
        text: strings, one an example.
        labels: as they stand in the file.
        names: of the classes, where the file has them.
    """

    text: pa.ChunkedArray
    labels: list[Any]
    names: list[str] | None = None


def read(file: Path, text: str, label: str) -> Table:
    """The two columns of a csv, tsv, json, jsonl or parquet file.

    Raises:
        UserError: it is damaged, has no such columns, a row does not fit the header or has no text.
    """
    with reading(str(file)):
        return _READERS[file.suffix.lower()](file, text, label)


def _parquet(file: Path, text: str, label: str) -> Table:
    schema = pq.read_schema(file)
    _check_columns(file, schema.names, text, label)
    table = pq.read_table(file, columns=[text, label], partitioning=None)
    texts = _decoded(table[text])
    if not _is_text(texts.type):
        raise UserError(f"The column {text} of {file} has {texts.type} where text is needed.")
    if texts.null_count:
        raise UserError(f"The column {text} of {file} has no text in {texts.null_count} examples; each needs one.")
    names = labels.of_features(Features.from_arrow_schema(schema), label)
    return Table(texts.cast(pa.string()), _decoded(table[label]).to_pylist(), names)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _json(file: Path, text: str, label: str) -> Table:
    def pairs() -> Iterator[tuple[Any, Any]]:
        for number, row in enumerate(_objects(file), start=1):
            if not isinstance(row, dict):
                raise UserError(f"Example {number} of {file} is no JSON object with {text} and {label}.")
            _check_columns(file, row, text, label)
            if not isinstance(row[text], str):
                raise UserError(f"Example {number} of {file} has {json.dumps(row[text])[:40]} where text is needed.")
            yield row[text], row[label]

    return _table(pairs())


def _objects(file: Path) -> Iterator[Any]:
    """Of one list, or one a line."""
    with file.open(encoding="utf-8-sig") as stream:
        if stream.read(1) == "[":
            stream.seek(0)
            yield from json.load(stream)
            return
        stream.seek(0)
        for number, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"Line {number} of {file} is no JSON ({error.msg}): the file could not be read; give one object"
                        " a line, or one list of objects."
                    ) from error


def _separated(delimiter: str) -> Callable[[Path, str, str], Table]:
    def read_rows(file: Path, text: str, label: str) -> Table:
        return _table(_cells(file, delimiter, text, label))

    return read_rows


def _cells(file: Path, delimiter: str, text: str, label: str) -> Iterator[tuple[str, str]]:
    csv.field_size_limit(_LONGEST_CELL)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows, line = csv.reader(stream, delimiter=delimiter, strict=True), 0
        try:
            header = next(rows, [])
            _check_columns(file, header, text, label)
            text_at, label_at = header.index(text), header.index(label)
            line = rows.line_num
            for row in rows:
                first, line = line + 1, rows.line_num
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(
                        f"Line {first} of {file} has {len(row)} cells where its header has {len(header)}: put quotes"
                        " around a text that has the separator in it."
                    )
                if line > first and _swallowed(row, label_at, delimiter):
                    raise UserError(
                        f"Line {first} of {file} opens a quote that ends at line {line}, with what looks like rows of"
                        " their own between: close it, and write quotes within a text twice."
                    )
                if not row[text_at]:
                    raise UserError(f"Line {first} of {file} has no text in its column {text}; each example needs one.")
                yield row[text_at], row[label_at]
        except csv.Error as error:
            raise UserError(
                f"The row that begins at line {line + 1} of {file} is not well formed ({error}): close each quote that"
                " opens a text, and write quotes within a text twice."
            ) from error


def _swallowed(row: Sequence[str], label_at: int, delimiter: str) -> bool:
    """Whether a line within a cell is a row: as many cells, with a label in its place."""
    for at, cell in enumerate(row):
        lines = cell.splitlines()
        inner = lines if at == len(row) - 1 else lines[:-1]
        for number, line in enumerate(inner if len(lines) > 1 else ()):
            before = at if number == 0 else 0
            cells = next(csv.reader([line], delimiter=delimiter), [])
            place = label_at - before
            if place >= 0 and len(cells) == len(row) - before and labels.is_label(cells[place]):
                return True
    return False


def _table(pairs: Iterator[tuple[str, Any]]) -> Table:
    """Texts go to Arrow a few thousand at a time, so that they are not held twice."""
    texts, found = [], []
    while rows := list(islice(pairs, _ROWS_AT_ONCE)):
        texts.append(pa.array([text for text, _ in rows], pa.string()))
        found += [label for _, label in rows]
    return Table(pa.chunked_array(texts, pa.string()), found)


def _check_columns(file: Path, there: Sequence[str] | dict[str, Any], text: str, label: str) -> None:
    if missing := [column for column in (text, label) if column not in there]:
        raise UserError(
            f"{file} lacks the column {' and '.join(missing)}; it has {', '.join(there)}: name them with"
            " text_column and label_column."
        )
    if text == label or [*there].count(text) + [*there].count(label) > 2:
        raise UserError(f"{file} needs one column of texts and another of labels; {text} and {label} are not that.")


_READERS = {
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".json": _json,
    ".jsonl": _json,
    ".parquet": _parquet,
}
