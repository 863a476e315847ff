"""Records of a table in any of its formats: CSV, TSV, JSON lines, Parquet; each with the line it stands in."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flows.corpus.row import Drop
from flows.corpus.sources.files import MAX_LINE_BYTES, read_json_lines, read_text
from flows.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

# From the columns there are, and the line that says so if there is one, to those that are read; raises DataError.
Columns = Callable[[list[str], int | None], list[str]]


def records(file: Path, columns: Columns, drops: list[Drop], field: str) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """(line, record) of each record; what cannot be read as one is added to `drops`. Rows of Parquet are counted.

    Raises:
        DataError: the file is not UTF-8, no table, of an unknown kind, or lacks a column.
    """
    kind = file.suffix.lower()
    if kind in (".csv", ".tsv"):
        yield from _csv_records(file, columns, drops)
    elif kind in (".jsonl", ".ndjson"):
        for line, record in read_json_lines(file, drops):
            columns(list(record), line)
            yield line, record
    elif kind == ".parquet":
        yield from _parquet_records(file, columns)
    else:
        raise DataError(f"{field}: {file}: a table is a .csv, .tsv, .jsonl, .ndjson or .parquet file.")


def _csv_records(file: Path, columns: Columns, drops: list[Drop]) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.DictReader(io.StringIO(read_text(file)), delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
    columns(list(reader.fieldnames or []), 1)
    try:
        for record in reader:
            if None in record:  # what stands beyond the last column
                first = str(next(iter(record.values())))[:60]
                detail = f"more cells than columns; put texts with a comma in quotes: {first}"
                drops.append(Drop(file=str(file), line=reader.line_num, reason="too-many-cells", detail=detail))
                continue
            yield reader.line_num, record
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not a table: {error}.") from error


def _parquet_records(file: Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            wanted = columns(table.schema_arrow.names, None)
            number = 0
            for batch in table.iter_batches(columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error}.") from error
