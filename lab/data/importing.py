"""Importing: the released LMDB, folders of images, tar shards or another store become a store. Legend: N images found."""

import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from lab.data.from_folder import Tree, leave_out
from lab.data.from_store import Records
from lab.data.from_tars import Shards
from lab.data.jpeg import decode
from lab.data.readers.scan import images_below
from lab.data.store import is_store
from lab.data.store_writer import Record, StoreWriter, writing
from lab.errors import InputError

CHUNK = 8  # images that a thread reads at a time; a few of them wait in memory for each thread
ABSENT = "listed, but not there"
UNREADABLE = "files that cannot be read"
BROKEN = "no whole image"
UNLISTED = "in the LMDB, but not listed in keys.pkl"


class Source(Protocol):
    """What a store is imported from: `keys` (N,) bytes that grow, and for each an image and a row of the index."""

    kind: str  # what it was recognised as
    keys: np.ndarray
    labels: dict[str, np.ndarray]  # pids and vids of a released keys.pkl, (N,) int64
    skipped: dict[str, dict]  # what was not even tried: reason -> count and first names
    notes: list[str]  # sentences
    records: int | None  # of an LMDB, listed or not
    listing: int  # a checksum of all names

    def name(self, number: int) -> str: ...

    def read(self, number: int) -> bytes: ...

    def size(self) -> tuple[int, str]:
        """Bytes, and in words what has so many."""

    def tables(self, numbers: np.ndarray) -> Iterator[pa.Table]: ...


@dataclass(frozen=True)
class ImportReport:
    """What an import did. `skipped` says by reason how many things were left out, and names the first of them."""

    kind: str
    found: int
    imported: int
    bytes: int  # of the images imported
    skipped: dict[str, dict]  # reason -> {"count": 3, "first": ["a.jpg", …]}
    notes: list[str]
    already: bool = False  # the store was there, made from images of the same names


def open_source(path: str | Path, keys: str | Path | None = None) -> Source:
    """Recognise what lies at a path. Raises InputError where that is nothing to import, or not clear.

    `keys` is the keys.pkl of a released LMDB; without it, the one in the folder or beside it is used, or all keys.
    """
    path = Path(os.path.abspath(path))
    if is_store(path):
        return Records(path, keys and Path(keys))
    if keys is not None:
        raise InputError(f"{path} is no LMDB, so there is nothing that --keys could list; leave it out")
    if path.is_file() and path.suffix == ".tar":
        return Shards([path])
    if not path.is_dir():
        raise InputError(
            f"there is nothing to read at {path}; expected LUPerson's LMDB, a store, a folder of images or of tar shards"
        )
    shards = sorted(path.glob("*.tar"))
    if shards and (images := images_below(path)):
        raise InputError(
            f"{path} holds {len(shards)} tar file(s) and {len(images)} image(s); move one kind elsewhere, so that it is "
            "clear which are meant"
        )
    return Shards(shards) if shards else Tree(path)


def import_images(
    source: str | Path,
    out: str | Path,
    keys: str | Path | None = None,
    check: bool = True,
    threads: int = 0,
    without: str | Path | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> ImportReport:
    """Make a store of what lies at `source`; stopped and called again, it goes on and ends with the same bytes.

    With `check` every image is decoded once, by `threads` threads (0: one per core), and left out if it is broken.
    `without` is a CSV whose column "stored" names images to leave out, as `lab data overlap --out` writes it.
    `progress` is told how many of all images are done. Raises InputError for a source without images.
    """
    source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    found = open_source(source, keys)
    if without is not None:
        found = Remaining(found, source, Path(without))
    if not len(found.keys):
        raise InputError(f"{source} holds no image{_reasons(found.skipped)}; expected at least one: give another place")
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out} lies in {source}, which is read; give --out a folder elsewhere")
    plan = {"made by": "import", "source": str(source), "kind": found.kind, "images": len(found.keys)}
    plan |= {"keys": keys and os.path.abspath(keys), "check": check, "listing": found.listing}
    plan |= {"without": without and os.path.abspath(without)}
    with writing(out, plan) as writer:
        if writer is None:
            return replace(ImportReport(**json.loads((out / "store.json").read_text())["report"]), already=True)
        for _ in writer.write(_records(found, writer.last, check, threads or os.cpu_count() or 1, progress)):
            pass  # each batch is on disk before the next one is begun
        return _finish(writer, found, check, plan)


class Remaining:
    """A source without some of its images: those that the column "stored" of a CSV names, by key or path."""

    def __init__(self, source: Source, place: Path, listed: Path):
        try:
            unwanted = set(pd.read_csv(listed, usecols=["stored"], dtype=str)["stored"].dropna())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{listed} cannot be read ({error}); expected a CSV with a column 'stored', as `lab data overlap --out` writes"
            ) from error
        names = [source.name(number) for number in range(len(source.keys))]
        kept = [name not in unwanted and str(place / name) not in unwanted for name in names]
        if len(unwanted) != kept.count(False):
            raise InputError(
                f"{listed} names {len(unwanted)} images, of which {kept.count(False)} are at {place}; expected all of them: "
                "give the list that was made of this source"
            )
        self.source, self.numbers = source, np.flatnonzero(kept)
        self.kind, self.notes, self.records = source.kind, source.notes, None
        self.keys = source.keys[self.numbers]
        self.labels = {name: values[self.numbers] for name, values in source.labels.items()}
        self.skipped = source.skipped | {f"named in {listed.name}": {"count": len(unwanted), "first": []}}
        self.listing = zlib.crc32(self.keys.tobytes(), source.listing)

    def name(self, number: int) -> str:
        return self.source.name(int(self.numbers[number]))

    def read(self, number: int) -> bytes:
        return self.source.read(int(self.numbers[number]))

    def size(self) -> tuple[int, str]:
        return self.source.size()

    def tables(self, numbers: np.ndarray) -> Iterator[pa.Table]:
        return self.source.tables(self.numbers[numbers])


def describe_import(report: ImportReport) -> str:
    """What was imported and what was left out, in sentences."""
    counts = f"{report.imported:,} of {report.found:,} images ({report.bytes / 1e6:,.1f} MB)"
    there = f"there already, from images of the same names: {counts}"
    lines = [there if report.already else f"imported {counts} of a {report.kind}"]
    lines += [f"left out: {line}" for line in say_skipped(report.skipped)]
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _records(found: Source, last: bytes | None, check: bool, threads: int, progress: Callable) -> Iterator[Record]:
    """The images that can be used, in the order of their keys, after the key `last`."""
    total = len(found.keys)
    start = 0 if last is None else int(np.searchsorted(found.keys, last, side="right"))
    progress(start, total)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()  # a few chunks ahead, so that memory stays bounded
        try:
            for first in range(start, total, CHUNK):
                numbers = range(first, min(first + CHUNK, total))
                waiting.append((numbers, pool.submit(_examine_all, found, numbers, check)))
                if len(waiting) > 2 * threads:
                    yield from _usable(found, *waiting.popleft(), progress)
            while waiting:
                yield from _usable(found, *waiting.popleft(), progress)
        finally:
            for _, future in waiting:
                future.cancel()


def _usable(found: Source, numbers: range, future, progress: Callable) -> Iterator[Record]:
    for number, (record, reason) in zip(numbers, future.result(), strict=True):
        if reason is None:
            yield bytes(found.keys[number]), record
    progress(numbers.stop, len(found.keys))


def _examine_all(found: Source, numbers: range, check: bool) -> list[tuple[bytes, str | None]]:
    return [_examine(found, number, check) for number in numbers]


def _examine(found: Source, number: int, check: bool) -> tuple[bytes, str | None]:
    """An image file, and why it cannot be used, if so."""
    try:
        record = found.read(number)
    except FileNotFoundError:
        return b"", ABSENT
    except OSError:
        return b"", UNREADABLE
    if not record:
        return b"", BROKEN
    if check:
        try:
            decode(record)
        except OSError:
            return b"", BROKEN
    return record, None


def _finish(writer: StoreWriter, found: Source, check: bool, plan: dict) -> ImportReport:
    """Write the lists beside the LMDB. All follows from what is in it, also if another process wrote the first part."""
    stored, total = writer.survey()
    kept = np.isin(found.keys, stored, assume_unique=True)
    skipped = json.loads(json.dumps(found.skipped))
    for number in np.flatnonzero(~kept):
        _, reason = _examine(found, number, check)
        leave_out(skipped, reason or UNREADABLE, found.name(number))  # a file that was mended in between
    if not len(stored):
        raise InputError(f"no image of {plan['source']} can be used{_reasons(skipped)}; give another source")
    if found.records is not None:
        unlisted = found.records - (len(found.keys) - skipped.get(ABSENT, {"count": 0})["count"])
        if unlisted > 0:
            skipped[UNLISTED] = {"count": unlisted, "first": []}
    report = ImportReport(found.kind, len(found.keys), len(stored), total, skipped, found.notes)
    labels = {name: values[kept].tolist() for name, values in found.labels.items()}
    facts = {name: value for name, value in asdict(report).items() if name != "already"}
    writer.finish(found.tables(np.flatnonzero(kept)), plan, facts, labels)
    return report


def say_skipped(skipped: dict[str, dict]) -> list[str]:
    """For each reason, how much was left out, and the first names."""
    lines = []
    for reason, what in skipped.items():
        named = ", ".join(what["first"]) + (", …" if what["count"] > len(what["first"]) else "")
        lines.append(f"{reason}: {what['count']:,}" + (f" ({named})" if what["first"] else ""))
    return lines


def _reasons(skipped: dict[str, dict]) -> str:
    """What was left out, for a sentence."""
    return f" ({'; '.join(say_skipped(skipped))})" if skipped else ""
