"""Writing a store: in the order of its keys, so that a writer that was killed goes on and ends with the same bytes.

An LMDB file depends on the transactions that wrote it. Here each one begins with a freshly opened file and takes the next
records up to a fixed size, so what it does follows from what is on disk alone, whoever was killed before. Legend: N crops.
"""

import json
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from lab.data.store import SHARD, UNFINISHED
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
        about = {"format": 1, "images": len(keys), "bytes": total, "source": source, "report": report}
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
                f"cannot write {self.lmdb} ({error}); make room on the disk and run the command again"
            ) from error
        self.last, self.count = batch[-1][0], self.count + len(batch)

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
        """All keys, (N,) bytes, and the size of all images together; of these only the lengths are looked at."""
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


@contextmanager
def holding(folder: str | Path, plan: dict, last: str = "store.json") -> Iterator[bool]:
    """Keep other processes from a folder while something is written to it; yields whether it is there already.

    `plan` (plain JSON) is what the content follows from, and `last` the file that is written last, which holds the plan as
    "source". Raises InputError if the folder holds anything else, or something of another plan, or if another process is
    writing it. When the block raises, what was written is kept for the next time.
    """
    folder, plan = Path(folder), json.loads(json.dumps(plan))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another process is writing {folder}; wait for it, or give --out another folder") from error
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); give --out a writable place") from error
    try:
        finished = _begin(folder, plan, last)
        yield finished
        (folder / UNFINISHED).unlink(missing_ok=True)
    finally:
        if not (folder / UNFINISHED).exists():
            (folder / ".lock").unlink(missing_ok=True)  # who still waits for it finds everything done
        lock.release()


def _begin(folder: Path, plan: dict, last: str) -> bool:
    """Whether all is done; checks that what is there follows from the plan."""
    if (folder / last).is_file():
        _refuse_other_plan(_read(folder / last).get("source", {}), plan, folder)
        return True
    if (folder / UNFINISHED).is_file():
        _refuse_other_plan(_read(folder / UNFINISHED), plan, folder)
    # shards may lie in the folder that they are merged into
    elif all(entry.name.startswith(".") or entry.match(SHARD) for entry in folder.iterdir()):
        write_json(folder / UNFINISHED, plan)
    else:
        raise InputError(f"{folder} already holds something that is not a store; give --out a new folder")
    for leftover in folder.glob(".*.*"):  # of `replacing`, in a process that was killed
        leftover.unlink()
    return False


def _refuse_other_plan(before: dict, plan: dict, folder: Path) -> None:
    for key in {**before, **plan}:
        if before.get(key) != plan.get(key):
            raise InputError(
                f"{folder} holds a store that is made otherwise ({_difference(key, before.get(key), plan.get(key))}); "
                "give --out a new folder, or the same settings"
            )


def _difference(name: str, before, now) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(key for key in {**before, **now} if before.get(key) != now.get(key))
        before, now = before.get(name), now.get(name)
    return f"{name} was {before!r}, now {now!r}"


def _read(file: Path) -> dict:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete {file.parent} and start again") from error


def _batch(records: Iterator[Record]) -> list[Record]:
    """The next records, up to BATCH_BYTES."""
    batch, size = [], 0
    for record in records:
        batch.append(record)
        size += len(record[1])
        if size >= BATCH_BYTES:
            break
    return batch
