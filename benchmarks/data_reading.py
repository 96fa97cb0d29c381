"""What benchmarks/data.py measures of reading: crops from a store, tar shards and files; a store of a million records."""

import io
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from PIL import Image
from processes import Growth, drop_cache
from torchvision.io import ImageReadMode, decode_jpeg

from lab.data.images import ImageSource, open_images
from lab.data.jpeg import decode
from lab.data.keys import make_key
from lab.data.store import Store, close
from lab.data.store_writer import writing

BATCH = 2560  # of the published pre-training
RECORD = 40  # bytes


def with_pillow(record: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(record)).convert("RGB"))


def with_torchvision(record: bytes) -> torch.Tensor:
    return decode_jpeg(torch.frombuffer(bytearray(record), dtype=torch.uint8), ImageReadMode.RGB)


def with_opencv(record: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(record, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)


DECODERS = {
    "bytes": lambda record: record,
    "PIL": with_pillow,
    "torchvision": with_torchvision,
    "simplejpeg": simplejpeg.decode_jpeg,
    "cv2": with_opencv,
    "lab": decode,
}


def one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def read_all(source: ImageSource, decoder: str, order: np.ndarray) -> None:
    convert = DECODERS[decoder]
    for number in order:
        convert(source.read(number))


def same_as_pillow(source: ImageSource, decoder: str) -> tuple[int, int]:
    """Of how many crops the pixels are Pillow's, and the largest difference of any pixel."""
    same, farthest = 0, 0
    for number in range(len(source)):
        record = source.read(number)
        found = DECODERS[decoder](record)
        found = found.permute(1, 2, 0).numpy() if isinstance(found, torch.Tensor) else found
        apart = int(np.abs(with_pillow(record).astype(int) - found).max())
        same, farthest = same + (apart == 0), max(farthest, apart)
    return same, farthest


class Share:
    """A process's share of reading a store in random order, or of decoding one record of it as often, for `race`."""

    def __init__(self, folder: Path, passes: int, from_store: bool = True):
        self.folder, self.passes, self.from_store = folder, passes, from_store

    def __call__(self, number: int, processes: int) -> Callable[[], None]:
        one_thread()
        source = open_images(self.folder)
        order = np.random.default_rng(0).permutation(len(source))[number::processes]
        records = [source.read(i) for i in order]

        def work() -> None:
            for _ in range(self.passes):
                for i, record in zip(order, records, strict=True):
                    decode(source.read(i) if self.from_store else record)

        return work


def write_million(folder: Path, count: int) -> dict[str, float]:
    """Make the store of many tiny records, in a process of its own."""
    random = np.random.default_rng(0)

    def records() -> Iterator[tuple[bytes, bytes]]:
        for number in range(count):
            yield make_key(0, 0, number // 1000, number % 1000).encode(), random.bytes(RECORD)

    started = time.perf_counter()
    with Growth() as growth, writing(folder, {"made by": "benchmark"}) as writer:
        for _ in writer.write(records()):
            pass
        writer.finish([pa.table({"key": np.char.decode(writer.survey()[0], "ascii")})], {"made by": "benchmark"}, {})
    return {"seconds": time.perf_counter() - started} | growth.so_far()


def open_million(folder: Path, cold: bool) -> dict[str, dict[str, float]]:
    """In a new process: open the store and read a record; then an epoch's keys in random order, then its records."""
    import lmdb  # noqa: F401, its import is not what is measured

    if cold:
        drop_cache([folder / "keys.npy", folder / "lmdb" / "data.mdb", folder / "store.json"])
    rows = {}
    with Growth() as growth:
        started = time.perf_counter()
        store = Store(folder)
        store.read(0)
        rows["open and read one record"] = {"seconds": time.perf_counter() - started} | growth.so_far()
        started = time.perf_counter()
        steps = len(store) // BATCH
        order = torch.randperm(len(store))[: steps * BATCH].reshape(steps, BATCH).numpy()  # as the pre-training does
        for batch in order:
            for number in batch:
                store.name(number)
        rows["one epoch of keys in random order"] = {"seconds": time.perf_counter() - started} | growth.so_far()
        started = time.perf_counter()
        for batch in order:
            for number in batch:
                store.read(number)
        rows["the records in that order"] = {"seconds": time.perf_counter() - started} | growth.so_far()
    close(folder / "lmdb")
    return rows


def open_published(folder: Path) -> dict[str, float]:
    """In a new process, as the published pre-training does it: all keys as text, and their order as a list."""
    with Growth() as growth:
        started = time.perf_counter()
        with open(folder / "keys.pkl", "rb") as stream:
            keys = pickle.load(stream)["keys"]
        for number in torch.randperm(len(keys)).tolist():
            keys[number].encode("ascii")
        return {"seconds": time.perf_counter() - started} | growth.so_far()

