"""Writing a store: in the order of its keys, so that a writer that was killed goes on and ends with the same bytes.

An LMDB file depends on the transactions that wrote it. Here each one begins with a freshly opened file and takes the next
records up to a fixed size, so what it does follows from what is on disk alone, whoever was killed before. Legend: N crops.
"""

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lab.data.holding import holding
from lab.data.store import FORMAT
from lab.errors import InputError
from lab.files import replacing, write_json

BATCH_BYTES = 32 * 2**20  # of images in one transaction: what a kill loses, and the memory that writing takes
MAP_STEP = 2**28  # bytes; LMDB reserves room in steps of this
Record = tuple[bytes, bytes]  # key, image file


class StoreWriter:
    """Fills a store. `last` is the key that was written last, None at the beginning; `count` how many are there.

    Use it in `writing(folder, plan)`. Call `write` with records of growing keys after `last`, then `finish`.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.lmdb = self.folder / "lmdb"
        self.lmdb.mkdir(exist_ok=True)
        self._look()
        self.written: list[tuple[np.ndarray, int]] = []  # keys of each batch of this writer, and bytes of its images

    def write(self, records: Iterable[Record]) -> Iterator[int]:
        """Store records in batches; yields the number of crops that are safely on disk after each.

        Raises InputError for a key that does not come after the one before, and for a disk that is full.
        """
        records = iter(records)
        while batch := _batch(records):
            self._write(batch)
            yield self.count

    def finish(self, tables: Iterable, source: dict, report: dict, labels: dict | None = None) -> None:
        """Write the lists beside the LMDB, and store.json, which says that the store is whole.

        `tables` are pyarrow Tables, whose rows together are the index in the order of the keys; `labels` go into keys.pkl.
        """
        keys, total = self.survey()
        with replacing(self.folder / "keys.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, keys)
        with replacing(self.folder / "keys.pkl") as temporary, open(temporary, "wb") as stream:
            pickle.dump({"keys": [key.decode("ascii") for key in keys]} | (labels or {}), stream, protocol=4)
        self._write_index(tables, keys)
        about = {"format": FORMAT, "images": len(keys), "bytes": total, "source": source, "report": report}
        write_json(self.folder / "store.json", about)

    def _look(self) -> None:
        """Find out what is there."""
        with self._open(MAP_STEP) as environment, environment.begin() as transaction:
            cursor = transaction.cursor()
            self.last = cursor.key() if cursor.last() else None
            self.count = transaction.stat()["entries"]
            self.pages = environment.info()["last_pgno"] + 1
            self.page = environment.stat()["psize"]  # bytes

    def _write(self, batch: list[Record]) -> None:
        import lmdb

        for (key, _), before in zip(batch, [self.last, *(key for key, _ in batch)], strict=False):
            if before is not None and key <= before:
                raise InputError(
                    f"key {key!r} comes after {before!r}; expected keys that grow: give each image its own"
                )
        try:
            with self._open(self._room(batch)) as environment:
                with environment.begin(write=True) as transaction:
                    for key, record in batch:
                        transaction.put(key, record, append=True)
                self.pages = environment.info()["last_pgno"] + 1
        except lmdb.Error as error:
            raise InputError(
                f"cannot write {self.lmdb} ({error}; maybe the disk is full); mend that and run the command again"
            ) from error
        self.last, self.count = batch[-1][0], self.count + len(batch)
        self.written.append(
            (np.array([key for key, _ in batch], dtype=np.bytes_), sum(len(record) for _, record in batch))
        )

    def _room(self, batch: list[Record]) -> int:
        """Bytes to reserve for what is there and a batch. It is noted in the file, so it follows from what was committed."""
        pages = self.pages + sum(3 + len(record) // self.page for _, record in batch) + 64
        return -(-pages * self.page // MAP_STEP) * MAP_STEP

    @contextmanager
    def _open(self, size: int):
        import lmdb

        # the lock is that of `writing`: LMDB's own would leave a file that differs from run to run
        with lmdb.open(str(self.lmdb), map_size=size, lock=False, readahead=False) as environment:
            yield environment

    def survey(self) -> tuple[np.ndarray, int]:
        """All keys, (N,) bytes, and the size of all images together.

        What this writer did not write itself is read from disk, and the LMDB library reads the images with the keys.
        """
        if sum(len(keys) for keys, _ in self.written) == self.count > 0:
            return np.concatenate([keys for keys, _ in self.written]), sum(size for _, size in self.written)
        with self._open(MAP_STEP) as environment, environment.begin(buffers=True) as transaction:
            width = max((len(key) for key in transaction.cursor().iternext(values=False)), default=1)
            keys, total = np.zeros(self.count, dtype=f"S{width}"), 0
            for number, (key, record) in enumerate(transaction.cursor()):
                keys[number] = bytes(key)
                total += len(record)
        return keys, total

    def _write_index(self, tables: Iterable, keys: np.ndarray) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with replacing(self.folder / "index.parquet") as temporary:
            writer, row = None, 0
            for table in tables:
                found = np.array(table.column("key").to_pylist(), dtype=np.bytes_)
                if not np.array_equal(found, keys[row : row + len(found)]):
                    raise ValueError(f"rows {row} to {row + len(found)} of the index are not those of the crops")
                writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
                writer.write_table(table)
                row += len(found)
            if writer is None:
                writer = pq.ParquetWriter(temporary, pa.schema([("key", pa.string())]))
            writer.close()
            if row != len(keys):
                raise ValueError(f"the index has {row} rows and the store {len(keys)} crops")


@contextmanager
def writing(folder: str | Path, plan: dict) -> Iterator[StoreWriter | None]:
    """`holding` for a store: yields its writer, or None if the store is there already, made by the same plan."""
    with holding(folder, plan) as finished:
        yield None if finished else StoreWriter(Path(folder))


def _batch(records: Iterator[Record]) -> list[Record]:
    """The next records, up to BATCH_BYTES."""
    batch, size = [], 0
    for record in records:
        batch.append(record)
        size += len(record[1])
        if size >= BATCH_BYTES:
            break
    return batch
