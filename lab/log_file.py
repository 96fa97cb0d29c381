"""log.csv: rows that are whole or not there, whatever happens while one is written.

A killed process leaves a torn line, and a torn number reads as another number: only lines with an end count.
"""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lab.errors import InputError
from lab.files import replacing


def read_log(file: Path) -> pd.DataFrame:
    """The log as a table, empty if there is none. A line that a killed process did not finish is left out."""
    lines = _whole_lines(file)
    return pd.read_csv(io.BytesIO(b"".join(lines))) if lines else pd.DataFrame()


def append_row(file: Path, row: dict) -> None:
    """Add one row and sync it to disk, whole or not at all; the first row fixes the columns.

    A later one may bring more of them, which are empty in the rows before. The text of a float says its last bit. Raises
    InputError if the file cannot be written, as on a full disk.
    """
    try:
        with open(file, "a+b", buffering=0) as stream:
            end = _end_of_whole_lines(stream)
            stream.truncate(end)
            stream.seek(0)
            columns = _fields(stream.readline()) if end else list(row)
        if not set(columns) <= set(row):
            raise ValueError(f"log row has columns {list(row)}, the file has {columns}")
        if len(columns) < len(row):
            columns = _widen(file, [name for name in row if name not in columns])
        with open(file, "ab", buffering=0) as stream:
            end = stream.seek(0, os.SEEK_END)
            try:
                _write_all(stream, b"" if end else _csv_line(row), _csv_line(row[name] for name in columns))
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)
                raise
    except OSError as error:
        raise _cannot_log(file, error) from error


def _widen(file: Path, new: list[str]) -> list[str]:
    """Columns that are empty so far, at the end of the others; returns all."""
    header, *lines = _whole_lines(file)
    columns = _fields(header) + new
    with replacing(file) as temporary:
        temporary.write_bytes(
            _csv_line(columns) + b"".join(line.rstrip(b"\r\n") + b"," * len(new) + b"\n" for line in lines)
        )
    return columns


def trim_rows(file: Path, step: int) -> None:
    """Drop the rows after `step`; the others stay as they are, byte for byte.

    A log of which no row is left is deleted: the next run may log other columns.
    """
    lines = _whole_lines(file)
    columns = _fields(lines[0]) if lines else ["step"]
    if "step" not in columns:
        raise InputError(f"{file} has no column 'step'; restore its first line or move it away")
    numbers = [_number(line, columns.index("step")) for line in lines[1:]]
    kept = [line for line, number in zip(lines[1:], numbers, strict=True) if number is not None and number <= step]
    try:
        if not kept:
            file.unlink(missing_ok=True)
        elif (text := b"".join(lines[:1] + kept)) != file.read_bytes():
            with replacing(file) as temporary:
                temporary.write_bytes(text)
    except OSError as error:
        raise _cannot_log(file, error) from error


def _cannot_log(file: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write {file} ({error.strerror or error}); free space there or mend that, and run the same command to go on"
    )


def _whole_lines(file: Path) -> list[bytes]:
    """Lines of a text file with their ends; [] without the file. One without an end was torn, and its numbers may be."""
    lines = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
    return [line for line in lines if line.endswith(b"\n")]


def _end_of_whole_lines(stream: io.FileIO) -> int:
    """Where the last whole line ends."""
    end = stream.seek(0, os.SEEK_END)
    if end:
        stream.seek(end - 1)
        if stream.read(1) != b"\n":
            stream.seek(0)
            return stream.readall().rfind(b"\n") + 1
    return end


def _csv_line(values: Iterable) -> bytes:
    """One line of a CSV file; csv writes floats as repr does, which says their last bit."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode()


def _fields(line: bytes) -> list[str]:
    return next(csv.reader([line.decode(errors="replace")]), [])


def _number(line: bytes, position: int) -> float | None:
    """The number in a field of a CSV line; None if there is none."""
    try:
        return float(_fields(line)[position])
    except (IndexError, ValueError):
        return None


def _write_all(stream: io.FileIO, *parts: bytes) -> None:
    """One call, or the rest in further ones until the error is known that kept it from being written at once."""
    rest = b"".join(parts)
    while rest:
        rest = rest[stream.write(rest) :]
