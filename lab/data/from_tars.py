"""Tar shards as what a store is made of: keys from the members' names, the index from the .json beside each image.

Legend: N images, ordered by their keys.
"""

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lab.data.from_folder import ROWS, leave_out
from lab.data.keys import make_key, widths_for
from lab.data.pickles import LONGEST_KEY
from lab.data.readers.scan import is_image
from lab.data.tars import Tars
from lab.errors import InputError

# columns of a store keep their types, whatever JSON makes of them
TYPES = {name: pa.string() for name in ("country", "city", "video", "path")}
TYPES |= {name: pa.int32() for name in ("frame", "track", "pid", "camid")}
TYPES |= {name: pa.float32() for name in ("x", "y", "width", "height", "score")}
TYPES |= {name: pa.int16() for name in ("crop_height", "crop_width")}


class Shards:
    """Images in tar shards. A member is called KEY.jpg; where keys are alike or none, images are numbered by shard."""

    kind = "folder of tar shards"

    def __init__(self, shards: list[Path]):
        self.images = Tars(shards)
        self.skipped, self.notes, self.labels, self.records = {}, [], {}, None
        names, self.rows = [], []
        for shard in self.images.shards:
            self._read_names(shard, names)
        if len(names) != len(self.images):
            raise InputError(f"{shards[0].parent} changed while it was read; run the command again")
        self.rows = np.array(self.rows, dtype=np.int64)  # (N, 2) start and size of the .json beside each image
        self.keys, self.order = self._own_keys(names) or self._numbered_keys()
        self.listing = zlib.crc32("\n".join(names).encode("utf-8", "surrogateescape"))
        self.columns = self._find_columns()

    def name(self, number: int) -> str:
        """Shard and member of image `number`."""
        return self.images.name(int(self.order[number]))

    def read(self, number: int) -> bytes:
        """Bytes of image `number`."""
        return self.images.read(int(self.order[number]))

    def size(self) -> tuple[int, str]:
        """Bytes of all images."""
        return int(self.images.places[:, 2].sum()), "image files"

    def tables(self, numbers: np.ndarray) -> Iterator[pa.Table]:
        """Rows of the index for these images: key, and what the .json members say."""
        for start in range(0, len(numbers), ROWS):
            piece = numbers[start : start + ROWS]
            rows = [self._row(number) or {} for number in piece]
            columns = {"key": pa.array([key.decode("ascii") for key in self.keys[piece].tolist()], pa.string())}
            for name, kind in self.columns.items():
                columns[name] = pa.array([_fit(row.get(name), kind) for row in rows], kind)
            yield pa.table(columns)

    def _read_names(self, shard: Path, names: list[str]) -> None:
        """Add the names of the images of a shard, and where in it their rows of the index lie."""
        images, rows = [], {}
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                base = member.name.rpartition("/")[2]
                if member.isreg() and is_image(base):
                    images.append(_key(member.name))
                elif member.isreg() and base.endswith(".json"):
                    rows[_key(member.name)] = (member.offset_data, member.size)
                elif not member.isdir():
                    leave_out(self.skipped, "no image files", f"{shard.name}/{member.name}")
                archive.members = []  # tarfile would keep them all
        names += images
        self.rows += [rows.get(key, (0, 0)) for key in images]

    def _own_keys(self, names: list[str]) -> tuple[np.ndarray, np.ndarray] | None:
        """The keys that the members' names are, and the order that sorts them; None if they are to be numbered."""
        if not all(name.isascii() and "\0" not in name and 0 < len(name) <= LONGEST_KEY for name in names):
            self.notes.append("not all names of images are keys as LMDB takes them: all images are numbered anew")
            return None
        keys = np.array(names, dtype=np.bytes_)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if alike := int((keys[1:] == keys[:-1]).sum()):
            self.notes.append(f"{alike:,} images have the name of another one: all images are numbered anew")
            return None
        return keys, order

    def _numbered_keys(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys that count the images of each shard from 0: the shard is the video."""
        counts = np.diff(self.images.ends, prepend=0)
        widths = widths_for([(0, 0, len(counts))], int(counts.max()))
        keys = [make_key(0, 0, shard, image, widths) for shard, count in enumerate(counts) for image in range(count)]
        return np.array(keys, dtype=np.bytes_), np.arange(len(keys))

    def _row(self, number: int) -> dict | None:
        """What the .json beside an image says, {} if there is none; None if it cannot be read."""
        file = int(self.order[number])
        start, size = self.rows[file].tolist()
        if not size:
            return {}
        with open(
            self.images.shards[np.searchsorted(self.images.ends, file, side="right")], "rb", buffering=0
        ) as shard:
            shard.seek(start)
            try:
                row = json.loads(shard.read(size))
            except (ValueError, RecursionError):
                return None
        return row if isinstance(row, dict) else None

    def _find_columns(self) -> dict[str, pa.DataType]:
        """Columns of the index and their types, from a look at all rows: later pieces must not surprise."""
        seen: dict[str, dict[type, tuple]] = {}  # by column and kind of value: the smallest and largest
        for number in range(len(self.keys)):
            row = self._row(number)
            if row is None:
                leave_out(self.skipped, ".json that cannot be read (its image is kept)", self.keys[number].decode())
                continue
            for name, value in row.items():
                kinds = seen.setdefault(name, {})
                if isinstance(value, int | float):
                    low, high = kinds.get(type(value), (value, value))
                    kinds[type(value)] = min(low, value), max(high, value)
                elif value is not None:
                    kinds[type(value)] = ()
        return {name: _type(name, seen[name]) for name in sorted(seen) if name != "key" and _text(name) == name}


def _key(member: str) -> str:
    """What WebDataset takes for the key of a member: its name up to the first dot of the file name."""
    folder, slash, base = member.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _type(name: str, kinds: dict[type, tuple]) -> pa.DataType:
    """The type of a column with values of these kinds (and for numbers their range)."""
    usual = TYPES.get(name, pa.null())
    if set(kinds) == {bool}:
        return pa.bool_()
    if pa.types.is_string(usual) or not set(kinds) <= {int, float}:
        return pa.string()
    if int in kinds and not _fits(kinds[int], np.int64):
        return pa.string()
    if float in kinds or pa.types.is_floating(usual):
        return usual if pa.types.is_floating(usual) else pa.float64()
    if pa.types.is_integer(usual) and (not kinds or _fits(kinds[int], usual.to_pandas_dtype())):
        return usual
    return pa.int64() if kinds else pa.string()


def _fits(range_: tuple[int, int], kind: type) -> bool:
    return np.iinfo(kind).min <= range_[0] and range_[1] <= np.iinfo(kind).max


def _fit(value, kind: pa.DataType):
    """A value of a row as its column takes it; in columns of fractions, what is not known is NaN."""
    if pa.types.is_floating(kind):
        return float("nan") if value is None else float(value)
    if pa.types.is_string(kind) and value is not None:
        return _text(value if isinstance(value, str) else json.dumps(value))
    return value


def _text(value: str) -> str:
    """Text that can be written: JSON may hold halves of characters, which are replaced."""
    return value.encode("utf-8", "replace").decode()
