"""What benchmarks/data.py measures of size: a store of a million tiny records, opened and read in random order."""

import argparse
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from processes import Growth, forget, fresh

from lab.data.keys import make_key
from lab.data.store import Store
from lab.data.store_writer import writing

BATCH = 2560  # of the published pre-training
RECORD = 40  # bytes


def measure_million(options: argparse.Namespace, folder: Path) -> tuple[list[pd.DataFrame], list[str]]:
    store, rows = folder / "million", []
    written = {"job": "write"} | fresh(write_million, store, options.records)
    for _ in range(options.rounds):
        for cached in (False, True):
            found = fresh(open_million, store, cached)
            rows += [{"job": job if cached else f"{job}, not cached"} | row for job, row in found.items()]
        rows.append(
            {"job": "published way: keys.pkl as a list, its keys in random order"} | fresh(open_published, store)
        )
    sizes = ", ".join(f"{name} {(store / name).stat().st_size / 1e6:.3g} MB" for name in ("lmdb/data.mdb", "keys.npy"))
    notes = [
        f"{options.records:,} records of {RECORD} bytes; {sizes}",
        "the three jobs of reading follow one another in a process, so that memory includes that of those before",
        "not cached: Linux was asked to forget the files (posix_fadvise) before they were opened",
    ]
    medians = pd.DataFrame(rows).groupby("job", sort=False).median().reset_index()
    return [pd.concat([pd.DataFrame([written]), medians], ignore_index=True)], notes


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


def open_million(folder: Path, cached: bool) -> dict[str, dict[str, float]]:
    """In a new process: open the store and read a record; then an epoch's keys in random order, then its records."""
    import lmdb  # noqa: F401, its import is not what is measured

    if not cached:
        forget([folder / "keys.npy", folder / "lmdb" / "data.mdb", folder / "store.json"])
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
