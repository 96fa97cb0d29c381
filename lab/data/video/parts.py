"""The crops of one video, on their own until all videos are done: what several processes and machines can write at once.

    parts/00_00_0000.jpegs     the JPEG files, one after the other
    parts/00_00_0000.parquet   one row per crop: frame, box, score, tracklet, size
    parts/00_00_0000.json      what became of the video and its boxes; written last, so a part without it is not there

Legend: N crops of the video.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lab.data.keys import Place, make_key
from lab.data.video.cut import Crop
from lab.errors import InputError
from lab.files import replacing, write_json

ROWS = 20_000  # of a table that are collected before they become compact
SCHEMA = pa.schema(
    [("frame", pa.int32())]
    + [(name, pa.float32()) for name in ("x", "y", "width", "height", "score")]
    + [("track", pa.int32()), ("crop_height", pa.int16()), ("crop_width", pa.int16()), ("size", pa.int32())]
)
PLACES = ("country", "city", "video")


class Part:
    """The files of one video's crops. `number` is its country, city and video, `widths` the digits of keys."""

    def __init__(self, folder: Path, number: tuple[int, int, int], widths: tuple[int, int, int, int]):
        self.number, self.widths = number, widths
        self.name = make_key(*number, 0, widths).rsplit("_", 1)[0]
        self.jpegs, self.table, self.note = (folder / f"{self.name}.{kind}" for kind in ("jpegs", "parquet", "json"))
        self.begun = folder / f"{self.name}.begun"  # there while a build that has one process cuts the video in it

    def read_note(self) -> dict | None:
        """What became of the video; None if the part is not whole."""
        try:
            note = json.loads(self.note.read_text())
        except (OSError, ValueError):
            return None
        return note if isinstance(note, dict) and "kept" in note else None

    def keys(self, count: int) -> list[bytes]:
        """The keys of the video's crops, which are numbered from 0."""
        return [make_key(*self.number, image, self.widths).encode("ascii") for image in range(count)]

    def records(self, after: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Key and JPEG file of each crop, those up to key `after` left out."""
        sizes = pq.read_table(self.table, columns=["size"]).column(0).to_numpy()
        start = np.cumsum(sizes, dtype=np.int64) - sizes
        keys = self.keys(len(sizes))
        first = 0 if after is None else int(np.searchsorted(keys, after, side="right"))
        if first == len(keys):
            return
        with open(self.jpegs, "rb") as stream:
            stream.seek(int(start[first]))
            for key, size in zip(keys[first:], sizes[first:].tolist(), strict=True):
                yield key, stream.read(size)

    def rows(self, place: Place) -> pa.Table:
        """The part of the store's index: key and names of the place, then what the part's table says."""
        table = pq.read_table(self.table).drop_columns(["size"])
        keys = pa.array([key.decode("ascii") for key in self.keys(len(table))], pa.string())
        for position, (column, name) in enumerate(zip(PLACES, place, strict=True)):
            table = table.add_column(position, column, pa.array([name] * len(keys), pa.string()))
        return table.add_column(0, "key", keys)

    def tracks(self) -> np.ndarray:
        """The tracklet of each crop, (N,) int32, -1 unknown."""
        return pq.read_table(self.table, columns=["track"]).column(0).to_numpy()

    def verify(self) -> None:
        """Raise InputError if the files are not those that the note was written for."""
        note = self.read_note()
        if note is None:
            raise InputError(f"{self.note} is missing or broken; run the build of this shard again")
        if note["kept"] and digest(self.jpegs, self.table) != note["sha256"]:
            raise InputError(
                f"{self.jpegs} or its table is not what was written; delete {self.note} and run the build of this shard again"
            )

    @contextmanager
    def writing(self, note: dict) -> Iterator["PartWriter"]:
        """Collect crops; when the block ends well the part appears, with `note` as it is then and its checksum."""
        self.note.unlink(missing_ok=True)
        with replacing(self.jpegs) as temporary, replacing(self.table) as table, open(temporary, "wb") as stream:
            writer = PartWriter(stream)
            yield writer
            pq.write_table(writer.table(), table, compression="zstd")
            stream.flush()
            note["sha256"] = digest(temporary, table)
        if not note["kept"]:
            self.jpegs.unlink()
            self.table.unlink()
            del note["sha256"]
        write_json(self.note, note)


class PartWriter:
    """Takes crops, and starts over when they turn out to be wrong."""

    def __init__(self, stream):
        self.stream = stream
        self.clear()

    def clear(self) -> None:
        """Forget all crops."""
        self.stream.seek(0)
        self.stream.truncate()
        self.tables: list[pa.Table] = []
        self.waiting: list[tuple] = []

    def add(self, crop: Crop) -> None:
        self.stream.write(crop.jpeg)
        sides = (crop.height, crop.width, len(crop.jpeg))
        self.waiting.append((crop.frame, *crop.box, crop.score, crop.track, *sides))
        if len(self.waiting) == ROWS:
            self._pack()

    def table(self) -> pa.Table:
        self._pack()
        return pa.concat_tables(self.tables)

    def _pack(self) -> None:
        columns = zip(*self.waiting, strict=True) if self.waiting else [()] * len(SCHEMA)
        self.tables.append(
            pa.table(
                [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
            )
        )
        self.waiting = []


def grouped(tables: Iterable[pa.Table], rows: int = 50_000) -> Iterator[pa.Table]:
    """Tables put together until they have that many rows: a file of many small pieces is slow to read."""
    waiting, count = [], 0
    for table in tables:
        waiting.append(table)
        count += len(table)
        if count >= rows:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, count = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def digest(*files: Path) -> str:
    """One SHA-256 of several files."""
    found = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()
