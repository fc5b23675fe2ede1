"""Rows from files and tables: JSON, JSON lines, CSV and Parquet; data frames, columns of values and data sets.

What a file is called decides how it is read, in upper or lower case:

| suffix | content |
| --- | --- |
| `.jsonl`, `.ndjson` | one JSON object per line |
| `.json` | a list of objects, one object per line, an object of columns, or an object with one list of objects |
| `.csv`, `.tsv` | a header line, then one row per record; a `.csv` file may separate by commas, semicolons or tabs |
| `.parquet` | a table |

Each may be compressed with gzip. Text is UTF-8, or UTF-16 or UTF-32 as `json.detect_encoding` recognises them, with or
without a byte order mark. Other encodings, such as cp1252, are refused: nothing in such a file names its encoding, and
a wrong guess would change its text.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dpc_interp.errors import DPCInterpError

FILE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Suffixes of the files that `read_file` reads, each also with `.gz` behind it."""
SUFFIX_LIST = f"{', '.join(FILE_SUFFIXES[:-1])} or {FILE_SUFFIXES[-1]}"
QUESTION_COLUMNS = ("question", "problem")
"""Columns of which every row has one."""
GZIP_MAGIC = b"\x1f\x8b"
JSON_SPACE = re.compile("[\ufeff \t\r\n]*")

PlacedRow = tuple[str, object]
"""The place of a row, for error messages, and the row."""


def file_suffix(path: str | Path) -> str:
    """Read from the name of a file what it holds.

    Args:
        path: the path of a file; it need not exist.

    Returns:
        The suffix in lower case, without `.gz`: `.jsonl` for `mine.JSONL.gz`. Empty if the name has none.
    """
    path = Path(path)
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def file_stem(path: Path) -> str:
    """The name of a file without its suffix.

    Args:
        path: the path of a file.

    Returns:
        `mine` for `data/mine.jsonl.gz`.
    """
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def read_file(path: Path) -> Iterator[PlacedRow]:
    """Read the rows of a file.

    Args:
        path: a file with one of `FILE_SUFFIXES`.

    Yields:
        Each row with its place, such as `data/mine.jsonl, line 3,`.

    Raises:
        DPCInterpError: the file is missing, is a folder, cannot be read or is not of its format.
    """
    suffix = file_suffix(path)
    if path.is_dir():
        files = ", ".join(sorted(file.name for file in path.iterdir() if file_suffix(file) in FILE_SUFFIXES)[:3])
        raise DPCInterpError(f"{path} is a folder; give the path of one of its files ({files or f'{SUFFIX_LIST}'})")
    if suffix not in FILE_SUFFIXES:
        raise DPCInterpError(f"{path} is not a {SUFFIX_LIST} file; write the problems into one of these")
    if not path.is_file():
        raise DPCInterpError(f"{path} is not a file; give the path of a {suffix} file of problems")
    content = _read_bytes(path)
    if suffix == ".parquet":
        yield from _numbered(_parquet_rows(content, path), path)
    elif suffix in (".csv", ".tsv"):
        yield from _numbered(_csv_rows(_decode(content, path), path, suffix), path)
    else:
        yield from _json_rows(_decode(content, path), path, suffix)


def rows_of(source: object, place: str) -> Iterable[object]:
    """Find the rows of a table, whichever form it has.

    Args:
        source: a list or another iterable of rows; a pandas or polars data frame, a table of pyarrow, a
            `datasets.Dataset`; one row; columns (`df.to_dict()`, `df.to_dict("list")`); the forms `index`, `split` and
            `table` of `df.to_json`; or an object with one list of rows, such as `{"data": [...]}`.
        place: where the rows come from, for the error messages.

    Returns:
        The rows.

    Raises:
        DPCInterpError: it is no table, has several lists of rows, or columns of different lengths.
    """
    for method, arguments in (("to_pylist", ()), ("to_dicts", ()), ("to_dict", ("records",))):
        # pyarrow, polars, pandas; a `datasets.Dataset` has `to_dict` too, but iterates over rows by itself
        if hasattr(source, method) and hasattr(source, "columns"):
            rows: list[object] = getattr(source, method)(*arguments)
            return rows
    if isinstance(source, Mapping):
        return _rows_of_mapping(source, place)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes):
        return source
    raise DPCInterpError(f"{place} is of type {type(source).__name__}; give a list of dicts, a data frame or a path")


def _rows_of_mapping(source: Mapping[str, object], place: str) -> Iterable[object]:
    values = list(source.values())
    has_question = any(column in source for column in QUESTION_COLUMNS)
    if values and has_question and all(isinstance(value, Mapping) for value in values):
        columns: Any = source
        first = next(columns[column] for column in QUESTION_COLUMNS if column in columns)
        return [{column: cells.get(key) for column, cells in columns.items()} for key in first]
    if values and has_question and all(_is_column(value) for value in values):
        lengths = {column: len(cells) for column, cells in source.items()}  # type: ignore[arg-type]
        if len(set(lengths.values())) > 1:
            described = ", ".join(f"{column}: {length}" for column, length in lengths.items())
            raise DPCInterpError(f"{place} has columns of different lengths ({described}); give every row each column")
        return [dict(zip(source, row, strict=True)) for row in zip(*values, strict=True)]
    if has_question:
        return [source]
    names, records = source.get("columns"), source.get("data")
    if isinstance(names, list) and isinstance(records, list) and all(isinstance(record, list) for record in records):
        return [dict(zip(names, record, strict=False)) for record in records]
    if values and all(isinstance(value, Mapping) and _is_row(value) for value in values):
        return values
    lists = {name: value for name, value in source.items() if _is_list_of_rows(value)}
    if len(lists) > 1:
        raise DPCInterpError(f"{place} has several lists of rows ({', '.join(map(str, lists))}); give one of them")
    return rows_of(next(iter(lists.values())), place) if lists else [source] if source else []


def _is_row(row: object) -> bool:
    return isinstance(row, Mapping) and any(column in row for column in QUESTION_COLUMNS)


def _is_column(value: object) -> bool:
    """Whether a value is a list, a tuple, an array or a series, and not a text."""
    return hasattr(value, "__len__") and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _is_list_of_rows(value: object) -> bool:
    """Whether a value is a list of rows, or a data set with a question column."""
    columns = getattr(value, "column_names", None)
    return (isinstance(value, list) and bool(value) and _is_row(value[0])) or (
        isinstance(columns, list) and any(column in columns for column in QUESTION_COLUMNS)
    )


def _numbered(rows: Iterable[object], path: Path) -> Iterator[PlacedRow]:
    return ((f"{path}, row {number},", row) for number, row in enumerate(rows, start=1))


def _read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DPCInterpError(f"{path} is not a complete gzip file; compress or fetch it again") from error
    except OSError as error:
        raise DPCInterpError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _decode(content: bytes, path: Path) -> str:
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DPCInterpError(
            f"{path}, line {line}, is not {encoding} text; save the file as UTF-8 (from the encoding "
            "of Windows: iconv -f cp1252 -t utf-8)"
        ) from error


def _parquet_rows(content: bytes, path: Path) -> list[object]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows: list[object] = parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except pyarrow.ArrowException as error:
        raise DPCInterpError(f"{path} is not a parquet file; write it again") from error
    return rows


def _csv_rows(text: str, path: Path, suffix: str) -> Iterator[object]:
    header = text.removeprefix("\ufeff").lstrip().partition("\n")[0].lower()
    separators = "\t" if suffix == ".tsv" else ",;\t"
    # The separator is the one that leaves a question column in the header.
    separator = next(
        (s for s in separators if {name.strip(' "\r') for name in header.split(s)} & {*QUESTION_COLUMNS}), separators[0]
    )
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff").lstrip(), newline=""), delimiter=separator)
    try:
        for row in reader:
            if None in row:
                raise DPCInterpError(
                    f"{path}, line {reader.line_num}, has more fields than the header; quote fields that contain "
                    f"{'a tab' if separator == chr(9) else repr(separator)}"
                )
            yield {str(name).strip(): value for name, value in row.items()}
    except csv.Error as error:
        raise DPCInterpError(f"{path}, line {reader.line_num}, is not CSV ({error}); write it again") from error


def _json_rows(text: str, path: Path, suffix: str) -> Iterator[PlacedRow]:
    """The rows of a text that is one JSON value, one value per line, or several values one after the other."""
    # Not splitlines: it also splits at characters such as U+2028, which JSON allows inside a string.
    lines = [(number, line.strip("\ufeff \t\r")) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        return
    expected = "a list of JSON objects" if suffix == ".json" else "one JSON object per line"
    content, whole_error = _parse_json(text.strip("\ufeff \t\r\n"))
    if whole_error is None:
        rows = content if isinstance(content, list) else list(rows_of(content, str(path)))
        is_line = suffix != ".json" and len(rows) == 1 and rows[0] is content
        yield from [(f"{path}, line {lines[0][0]},", content)] if is_line else _numbered(rows, path)
        return
    _, first_error = _parse_json(lines[0][1])
    if first_error is not None:
        rows = _concatenated_values(text)
        if not rows:
            place, error = (path, whole_error) if suffix == ".json" else (f"{path}, line {lines[0][0]},", first_error)
            raise DPCInterpError(f"{place} is not JSON ({error.msg}); write {expected}") from error
        yield from _numbered(rows, path)
        return
    for number, line in lines:
        row, line_error = _parse_json(line)
        if line_error is not None:
            raise DPCInterpError(
                f"{path}, line {number}, is not JSON ({line_error.msg}); write one JSON object per line"
            ) from line_error
        yield f"{path}, line {number},", row


def _parse_json(text: str) -> tuple[object, json.JSONDecodeError | None]:
    """The value of a text, and the error if it is not JSON."""
    try:
        return json.loads(text), None
    except json.JSONDecodeError as error:
        return None, error


def _concatenated_values(text: str) -> list[object]:
    """The values of a text such as `{...} {...}`, over any number of lines; empty if it is anything else."""
    decoder, values, start = json.JSONDecoder(), [], 0
    text = text.strip("\ufeff \t\r\n")
    while start < len(text):
        try:
            value, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            return []
        values.append(value)
        start = JSON_SPACE.match(text, end).end()  # type: ignore[union-attr]
    return values
