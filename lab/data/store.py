"""The store of unlabelled crops: an LMDB with LUPerson's keys, and what is known of each crop beside it.

    STORE/
      lmdb/data.mdb   key -> the bytes of an image file, as LUPerson is released
      keys.npy        (N,) sorted keys as fixed-length bytes: opened in no time, shared by all processes
      keys.pkl        {"keys": [...]}, which the published pre-training reads
      index.parquet   one row per crop in the order of keys: place, frame, box, score, tracklet (`Store.index`)
      store.json      counts, where it comes from, the report of what was kept; written last

The released data, an LMDB folder and a keys.pkl, opens as it is. Legend: N crops.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from lab.data.jpeg import decode
from lab.data.keys import split_keys
from lab.data.pickles import read_keys
from lab.errors import InputError

FORMAT = 1  # of a store
UNFINISHED = "unfinished.json"  # in a store that is being written
SHARD = "shard-*-of-*"  # folders of a store that several machines write


class Store:
    """The crops of a store, by number or by key; it can be given to other processes, which open it when they read.

    `keys` (N,) bytes has the order of the numbers. `about` is what store.json says, empty for a released LMDB.
    """

    def __init__(self, path: str | Path, keys: str | Path | None = None):
        """Open a store, or a released LMDB with its `keys` file (found by itself in the folder or one above).

        Raises InputError for a folder that is none, one that is not finished, and shards that were not merged.
        """
        self.path, self.keys_file = Path(path), keys and Path(keys)
        lmdb, self.about = _find_lmdb(self.path)
        self.lmdb = lmdb.resolve()  # here and not at each read, where it would take most of the time
        self.labels: dict[str, np.ndarray] = {}  # pids and vids of a released keys.pkl, (N,) int64
        self._open_keys()

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, number: int) -> str:
        """The key of crop `number`, to be named in a message."""
        return self.keys[number].decode("ascii", "replace")

    def read(self, number: int) -> bytes:
        """The image file of crop `number`. Raises FileNotFoundError if the LMDB has no such key, OSError if it is damaged."""
        return self.read_key(bytes(self.keys[number]))

    def image(self, number: int) -> np.ndarray:
        """The pixels of crop `number`, (height, width, 3) uint8 RGB. Raises OSError if it cannot be read or decoded."""
        return decode(self.read(number))

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self):,} crops)"

    def read_key(self, key: bytes) -> bytes:
        """The image file of a key; the same errors."""
        import lmdb

        try:
            with _environment(self.lmdb).begin() as transaction:
                record = transaction.get(key)
        except lmdb.Error as error:
            raise OSError(f"{self.lmdb} cannot be read: {error}") from error
        if record is None:
            raise FileNotFoundError(f"{self.lmdb} has no record of this key")
        return record

    def count_records(self) -> int:
        """How many records the LMDB has, whether `keys` lists them or not."""
        with _environment(self.lmdb).begin() as transaction:
            return transaction.stat()["entries"]

    def has(self, key: bytes) -> bool:
        """Whether the LMDB has a record of this key."""
        with _environment(self.lmdb).begin(buffers=True) as transaction:
            return bool(key) and transaction.get(key) is not None

    def index(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per crop, in the order of `keys`: index.parquet, or for a released LMDB what its keys say.

        Columns of a built store: key, country, city, video, frame (1-based), x, y, width, height (the box in pixels of
        the frame), score, track, crop_height, crop_width (pixels).
        """
        if self.about:
            index = self.open_index()
            if absent := [name for name in columns or () if name not in index.schema_arrow.names]:
                raise InputError(
                    f"the index of {self.path} has no {absent[0]}; it has {', '.join(index.schema_arrow.names)}"
                )
            return index.read(None if columns is None else list(columns)).to_pandas()
        table = pd.DataFrame({"key": np.char.decode(self.keys, "ascii", "replace")} | self.labels)
        numbers = split_keys(self.keys)
        if numbers is not None:
            table[["country", "city", "video"]] = numbers[:, :3].astype(str)
        return table if columns is None else table[list(columns)]

    def open_index(self):
        """The pyarrow ParquetFile of index.parquet. Raises InputError if it is missing, broken, or of other crops."""
        import pyarrow.parquet as pq

        file = self.path / "index.parquet"
        try:
            index = pq.ParquetFile(file)
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read ({error}); build or import the store again") from error
        if index.metadata.num_rows != len(self):
            raise InputError(
                f"{file} has {index.metadata.num_rows:,} rows and the store {len(self):,} crops; build or import it again"
            )
        return index

    def __getstate__(self) -> dict:
        state = dict(self.__dict__)
        if self.about:
            del state["keys"]  # the other process maps the file itself
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.about:
            self._open_keys()

    def _open_keys(self) -> None:
        if self.about:
            self.keys = _load_keys(self.path / "keys.npy", self.about["images"])
            return
        file = self.keys_file or _keys_beside(self.path, self.lmdb)
        if file is None:
            self.keys = np.array(_all_keys(self.lmdb), dtype=np.bytes_)
        else:
            self.keys, self.labels = read_keys(file)
        if not len(self):
            raise InputError(f"{file or self.lmdb} lists no crop; expected at least one: get another copy")


def is_store(path: str | Path) -> bool:
    """Whether a path is a store, finished or not, or a released LMDB."""
    path = Path(path)
    marks = ("store.json", UNFINISHED, "data.mdb", "lmdb/data.mdb", "lup_lmdb/data.mdb")
    return (
        any((path / mark).is_file() for mark in marks)
        or path.suffix == ".mdb"
        or any(shard.is_dir() for shard in path.glob(SHARD))
    )


def _find_lmdb(path: Path) -> tuple[Path, dict]:
    """The LMDB of a store and what store.json says."""
    if (path / "store.json").is_file():
        try:
            about = json.loads((path / "store.json").read_text())
            kinds = {"format": int, "images": int, "bytes": int, "source": dict, "report": dict}
            if wrong := [name for name, kind in kinds.items() if not isinstance(about[name], kind)]:
                raise TypeError(f"{wrong[0]} is {about[wrong[0]]!r}")
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']}, this lab knows {FORMAT}")
            return path / "lmdb", about
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path / 'store.json'} cannot be read ({error}); build or import the store again"
            ) from error
    if (path / UNFINISHED).is_file():
        raise InputError(f"{path} is a store that is not finished; run the command that was writing it again")
    if shards := sorted(shard.name for shard in path.glob(SHARD)):
        raise InputError(
            f"{path} holds parts of a store ({', '.join(shards[:3])}); put them together first with "
            f"`lab data merge {path} --out STORE`"
        )
    for lmdb in (path / "lmdb", path / "lup_lmdb", path):
        if (lmdb / "data.mdb").is_file():
            return lmdb, {}
    if path.suffix == ".mdb" and path.is_file():
        return path, {}
    raise InputError(
        f"there is no store at {path}; expected a folder that `lab data build` or `lab data import` wrote, or LUPerson's "
        "LMDB (data.mdb) with keys.pkl"
    )


def _keys_beside(path: Path, lmdb: Path) -> Path | None:
    """LUPerson's list of keys: in the folder that was given, beside the LMDB, or in it."""
    places = (path, lmdb.parent, lmdb)
    return next((place / "keys.pkl" for place in places if (place / "keys.pkl").is_file()), None)


def _load_keys(file: Path, count: int) -> np.ndarray:
    try:
        keys = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{file} cannot be read ({error}); build or import the store again") from error
    if not isinstance(keys, np.ndarray):
        raise InputError(f"{file} is no .npy file; build or import the store again")
    if keys.shape != (count,) or keys.dtype.kind != "S":
        raise InputError(
            f"{file} holds {keys.shape} {keys.dtype}; expected {count} keys: build or import the store again"
        )
    return keys


def _all_keys(path: Path) -> list[bytes]:
    import lmdb

    try:
        with _environment(path).begin() as transaction:
            return list(transaction.cursor().iternext(values=False))
    except lmdb.Error as error:
        raise InputError(f"{path} cannot be read ({error}); get another copy") from error


_environments: dict[Path, tuple[int, object]] = {}  # per LMDB: the process that opened it, and the environment


def _environment(path: Path):
    """The LMDB at a resolved path, opened once in each process: LMDB allows no second time, and none to be inherited."""
    import lmdb

    process, environment = _environments.get(path, (None, None))
    if process != os.getpid():
        if environment is not None:
            environment.close()  # inherited from the process that forked this one
        try:
            environment = lmdb.open(
                str(path),
                readonly=True,
                lock=False,
                readahead=False,
                meminit=False,
                subdir=path.is_dir(),
                max_spare_txns=8,
            )
        except lmdb.Error as error:
            raise InputError(f"{path} is no LMDB that can be read ({error}); get another copy") from error
        _check_size(path, environment)
        _environments[path] = (os.getpid(), environment)
    return environment


def _check_size(path: Path, environment) -> None:
    """Refuse an LMDB that is cut short: reading beyond the end of the mapped file would kill the process (SIGBUS)."""
    file = path / "data.mdb" if path.is_dir() else path
    found = file.stat().st_size
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if found < expected:
        environment.close()
        raise InputError(f"{file} is cut short: it has {found:,} bytes of {expected:,}; get another copy")


def close(path: Path) -> None:
    """Let go of an LMDB that this process has read, so that it can be written or deleted."""
    process, environment = _environments.pop(Path(path).resolve(), (None, None))
    if process == os.getpid():
        environment.close()
