"""LUPerson's LMDB, or a finished store, as what a store is made of. Legend: N images, ordered by their keys."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lab.data.from_folder import ROWS, leave_out
from lab.data.keys import parse_key
from lab.data.pickles import read_keys
from lab.data.store import Store
from lab.errors import InputError


class Records:
    """The records of an LMDB that its keys.pkl lists, each once; `records` is how many there are, listed or not."""

    def __init__(self, path: Path, keys: Path | None):
        self.store = Store(path, keys)
        if self.store.about and keys is not None:
            raise InputError(f"{path} is a store with keys of its own; leave --keys out, it is for LUPerson's LMDB")
        self.kind = "store" if self.store.about else "released LMDB"
        self.skipped, self.notes = {}, []
        self.records = self.store.count_records()  # less those whose keys no store takes
        self.keys, self.order = self._sorted()
        self.labels = self._labels()
        self.listing = zlib.crc32(self.keys)

    def name(self, number: int) -> str:
        """Key of image `number`."""
        return self.store.name(int(self.order[number]))

    def read(self, number: int) -> bytes:
        """Bytes of image `number`. Raises FileNotFoundError if the LMDB has no such record, OSError if it is damaged."""
        return self.store.read(int(self.order[number]))

    def size(self) -> tuple[int, str]:
        """Bytes of all images where the store says so, else of the LMDB."""
        if self.store.about:
            return self.store.about["bytes"], "image files"
        lmdb = self.store.lmdb
        return (lmdb / "data.mdb" if lmdb.is_dir() else lmdb).stat().st_size, "the LMDB file"

    def tables(self, numbers: np.ndarray) -> Iterator[pa.Table]:
        """Rows of the index for these images: those of the store, or what the keys and labels of an LMDB say."""
        return self._rows_of_index(numbers) if self.store.about else self._rows_of_keys(numbers)

    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """All different keys in their order, and where they stand in the list."""
        listed = np.asarray(self.store.keys)
        order = np.arange(len(listed))
        if not (listed[1:] > listed[:-1]).all():
            order = np.argsort(listed, kind="stable")
            listed = listed[order]
            again = np.r_[False, listed[1:] == listed[:-1]]
            self._leave_out("listed more than once", listed[again])
            listed, order = listed[~again], order[~again]
        letters = np.ascontiguousarray(listed).view(np.uint8).reshape(len(listed), -1)
        strange = (letters > 127).any(axis=1) | (listed == b"")
        self._leave_out("keys that are not ASCII", listed[strange])
        self.records -= sum(self.store.has(key) for key in listed[strange].tolist())
        return listed[~strange], order[~strange]

    def _leave_out(self, reason: str, keys: np.ndarray) -> None:
        for key in keys.tolist():
            leave_out(self.skipped, reason, key.decode("ascii", "backslashreplace"))

    def _labels(self) -> dict[str, np.ndarray]:
        labels = self.store.labels
        if self.store.about and (self.store.path / "keys.pkl").is_file():
            _, labels = read_keys(self.store.path / "keys.pkl")
        return {name: values[self.order] for name, values in labels.items()}

    def _rows_of_keys(self, numbers: np.ndarray) -> Iterator[pa.Table]:
        for start in range(0, len(numbers), ROWS):
            piece = numbers[start : start + ROWS]
            keys = [key.decode("ascii") for key in self.keys[piece].tolist()]
            columns = {"key": pa.array(keys, pa.string())}
            places = [parse_key(key) or ("", "", "") for key in keys]
            for level, name in enumerate(("country", "city", "video")):
                columns[name] = pa.array([str(place[level]) for place in places], pa.string())
            yield pa.table(columns | {name: values[piece] for name, values in self.labels.items()})

    def _rows_of_index(self, numbers: np.ndarray) -> Iterator[pa.Table]:
        wanted = np.zeros(len(self.store), dtype=bool)
        wanted[self.order[numbers]] = True
        row, index = 0, self.store.open_index()
        try:
            for batch in index.iter_batches(batch_size=ROWS):
                table = pa.Table.from_batches([batch]).filter(pa.array(wanted[row : row + len(batch)]))
                row += len(batch)
                if len(table):
                    yield table
        except (OSError, ValueError) as error:
            raise InputError(
                f"the index of {self.store.path} cannot be read ({error}); build or import the store again"
            ) from error
