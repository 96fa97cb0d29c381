"""Exporting: the crops of a store as image files with the bytes that were put in, or as tar shards."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote

import numpy as np

from lab.data.from_folder import NAMED
from lab.data.from_store import Records
from lab.data.jpeg import image_suffix
from lab.data.keys import parse_key
from lab.data.tars import write_tars
from lab.errors import InputError

SHARD_BYTES = 500_000_000
PLAIN = " !#$&'()+,;=@[]{}^~"  # of keys that are file names, kept beside letters, digits and _.-
TEMPORARY = ".export.part"  # a file that is being written, beside its place
STEP = 1000  # images from one call of `progress` to the next
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote: image files, or images in so many shards. `left_out` are keys that could not be read."""

    images: int
    bytes: int
    there: int = 0  # of the image files, those that were there already with the same bytes
    shards: int = 0
    left_out: tuple[str, ...] = ()


def export_jpegs(
    store: str | Path, out: str | Path, keys: str | Path | None = None, progress: Progress = lambda done, total: None
) -> ExportReport:
    """Write each crop as the file that it was: where it lay before import, else CC/cc/vvvv/KEY.jpg by its key's numbers.

    `store` may also be a released LMDB, with its `keys`. The index of a store goes beside the images as index.parquet.
    Stopped and called again, it goes on. Raises InputError for a file that is there with other content, for a path that
    leads out of the folder, and for what cannot be written.
    """
    found, out = Records(Path(store), keys and Path(keys)), _outside(Path(store), Path(out))
    images = there = total = 0
    left_out: list[str] = []
    folders: set[Path] = set()
    for key, record, row in _crops(found, progress, left_out, ["path"]):
        file = out / _place(key, record, row.get("path"))
        with _said(file):
            if file.parent not in folders:
                file.parent.mkdir(parents=True, exist_ok=True)
                folders.add(file.parent)
            there += not _put(file, record)
        images, total = images + 1, total + len(record)
    if found.store.about:
        with _said(out / "index.parquet"):
            _put(out / "index.parquet", (found.store.path / "index.parquet").read_bytes())
    return ExportReport(images, total, there, left_out=tuple(left_out))


def export_tars(
    store: str | Path,
    out: str | Path,
    keys: str | Path | None = None,
    max_bytes: int = SHARD_BYTES,
    progress: Progress = lambda done, total: None,
) -> ExportReport:
    """Write the crops as WebDataset shards: KEY.jpg, and KEY.json with their row of the index. Raises InputError."""
    found, out = Records(Path(store), keys and Path(keys)), _outside(Path(store), Path(out))
    left_out: list[str] = []
    with _said(out):
        wrote = write_tars(_crops(found, progress, left_out), out, max_bytes)
    return ExportReport(wrote["images"], wrote["bytes"], shards=wrote["shards"], left_out=tuple(left_out))


def _outside(store: Path, out: Path) -> Path:
    """Refuse to write among what is read."""
    if out.resolve().is_relative_to(store.resolve()):
        raise InputError(f"{out} lies in {store}, which is read; give --out a folder elsewhere")
    return out


def describe_export(report: ExportReport) -> str:
    """What was written, in sentences."""
    size = f"{report.images:,} images ({report.bytes / 1e6:,.1f} MB)"
    if report.shards:
        lines = [f"exported {size[:-1]} with what is known of them) in {report.shards:,} tar shard(s)"]
    else:
        lines = [f"exported {size}" + (f"; {report.there:,} were there already" if report.there else "")]
    if report.left_out:
        named = ", ".join(report.left_out[:NAMED]) + (", …" if len(report.left_out) > NAMED else "")
        lines.append(f"left out: {len(report.left_out):,} that could not be read ({named})")
    return "\n".join(lines)


def _crops(
    found: Records, progress: Progress, left_out: list[str], columns: list[str] | None = None
) -> Iterator[tuple[str, bytes, dict]]:
    """Key, image file and row of the index (of some columns, or all but the key) of every crop that can be read."""
    number, total = 0, len(found.keys)
    for table in found.tables(np.arange(total)):
        names = [name for name in table.column_names if (name != "key" if columns is None else name in columns)]
        for row in table.select(names).to_pylist() if names else ({},) * len(table):
            key, number = found.name(number), number + 1
            try:
                record = found.read(number - 1)
            except OSError:
                left_out.append(key)
            else:
                yield key, record, row
            if number % STEP == 0 or number == total:
                progress(number, total)


def _place(key: str, record: bytes, path: str | None) -> str:
    """Where a crop's file goes, relative to the folder; it cannot lie outside, whatever the store says."""
    if path:
        parts = path.split("/")
        if "\0" in path or any(part in ("", ".", "..") for part in parts) or PurePath(path).is_absolute():
            raise InputError(
                f"the index says that crop {key} was the file {path!r}, which leads out of the folder; expected a path "
                "relative to it: get the store from a source that you trust"
            )
        return path
    suffix = image_suffix(record)
    if parse_key(key):
        return "/".join([*key.split("_")[:-1], key + suffix])
    name = quote(key, safe=PLAIN)
    return (f"%2E{name[1:]}" if name.startswith(".") else name) + suffix  # a leading dot would hide it


def _put(file: Path, content: bytes) -> bool:
    """Write a file so that it is whole or not there; returns False if it was there. Raises InputError if it is another."""
    if os.path.lexists(file):
        if file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content:
            return False
        raise InputError(f"{file} is there already with other content; give --out a new folder, or move it away")
    temporary = file.with_name(TEMPORARY)
    temporary.write_bytes(content)  # by one process, so a stopped one leaves a single such file, and the next takes it
    temporary.replace(file)
    return True


@contextmanager
def _said(place: Path) -> Iterator[None]:
    """Say in a sentence what the system refuses."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {place} ({error.strerror or error}); give --out a place that can be written, or make room"
        ) from error
