"""What benchmarks/data.py measures of reading: crops from a store, tar shards and files, by several decoders."""

import argparse
import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import simplejpeg
import torch
from data_build import build_store, videos
from PIL import Image
from processes import medians, race, take_turns
from torchvision.io import ImageReadMode, decode_jpeg

from lab.data.exporting import export_jpegs, export_tars
from lab.data.images import ImageSource, open_images
from lab.data.importing import import_images
from lab.data.jpeg import decode

PASSES = 6  # over a store in one turn of a process


def measure_reading(options: argparse.Namespace, folder: Path) -> tuple[list[pd.DataFrame], list[str]]:
    one_thread()
    stores = {"crops of the video": folder / "read-video"}
    build_store(*next(iter(videos(options, folder).values())), stores["crops of the video"])
    if options.images.is_dir():
        stores["image folder"] = folder / "read-images"
        import_images(options.images, stores["image folder"])
    speeds, notes = [], []
    for name, store in stores.items():
        found, told = measure_decoders(name, store, options)
        speeds.append(found)
        notes += told
    table, told = measure_processes(stores["crops of the video"], options)
    return [pd.concat(speeds, ignore_index=True), table], notes + told


def measure_decoders(name: str, store: Path, options: argparse.Namespace) -> tuple[pd.DataFrame, list[str]]:
    """Crops per second of CPU, decoding included: one row per kind of source, one column per decoder."""
    export_tars(store, tars := store.with_name(f"{store.name}-tars"))
    export_jpegs(store, files := store.with_name(f"{store.name}-files"))
    sources = {kind: open_images(place) for kind, place in {"LMDB": store, "tar shards": tars, "files": files}.items()}
    order = np.random.default_rng(0).permutation(len(sources["LMDB"]))[: options.crops]
    jobs = {
        f"{kind} {decoder}": partial(read_all, source, decoder, order)
        for kind, source in sources.items()
        for decoder in DECODERS
    }
    for job in jobs.values():
        job(None)  # once before, so that no turn waits for the disk or an import
    turns = take_turns(jobs, options.rounds, options.folder)
    turns["crops/s"] = turns["crops"] / turns["CPU seconds"]  # one thread, which would wait for other programs only
    speed = turns.pivot(index="round", columns="job", values="crops/s")
    rows = []
    for kind in sources:
        row = {"job": f"{name}: {kind}"} | {decoder: speed[f"{kind} {decoder}"].median() for decoder in DECODERS}
        row["lab / PIL"] = (speed[f"{kind} lab"] / speed[f"{kind} PIL"]).median()
        rows.append(row | {"this / LMDB (lab)": (speed[f"{kind} lab"] / speed["LMDB lab"]).median()})
    shapes = pd.DataFrame([decode(sources["LMDB"].read(number)).shape for number in order]).median()
    notes = [
        f"{name}: crops per CPU second, {len(order)} random reads a turn; crops of {shapes[0]:g} x {shapes[1]:g} in the median"
    ]
    for decoder in list(DECODERS)[2:]:
        same, farthest = same_as_pillow(sources["LMDB"], decoder)
        notes.append(
            f"{name}, {decoder}: {same} of {len(sources['LMDB'])} have Pillow's pixels, no pixel is more than {farthest} apart"
        )
    return pd.DataFrame(rows), notes


def measure_processes(store: Path, options: argparse.Namespace) -> tuple[pd.DataFrame, list[str]]:
    """Two processes that each read half, beside one that reads all; and the same when crops are in memory already."""
    turns, notes, crops = [], [], PASSES * len(open_images(store))
    for number in range(options.rounds):
        for what, from_store in (("LMDB and decoding", True), ("decoding alone", False)):
            for processes, name in ((1, "one process"), (2, "two processes")):
                seconds, used = race(Share(store, from_store), processes)
                turn = {"round": number, "job": f"{what}, {name}", "seconds": seconds, "CPU seconds": used}
                turns.append(turn | {"crops": crops})
                print(f"round {number + 1}: {turn['job']} {seconds:.3f} s", file=sys.stderr)
    turns = pd.DataFrame(turns)
    seconds, used = (turns.pivot(index="round", columns="job", values=value) for value in ("seconds", "CPU seconds"))
    for what in ("LMDB and decoding", "decoding alone"):
        one, two = f"{what}, one process", f"{what}, two processes"
        ratio, free = seconds[one] / seconds[two], 2 * used[one] / used[two]
        notes.append(
            f"{what}: two processes do {ratio.median():.2f} times the work of one (rounds: {ratio.min():.2f} to "
            f"{ratio.max():.2f}); by CPU seconds, which other programs disturb less, {free.median():.2f} times"
        )
    return medians(turns, "LMDB and decoding, one process"), notes


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


def read_all(source: ImageSource, decoder: str, order: np.ndarray, _: Path | None) -> int:
    convert = DECODERS[decoder]
    for number in order:
        convert(source.read(number))
    return len(order)


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
    """A process's share of reading a store in random order, or of decoding what it read before; for `race`."""

    def __init__(self, folder: Path, from_store: bool):
        self.folder, self.from_store = folder, from_store

    def __call__(self, number: int, processes: int) -> Callable[[], None]:
        one_thread()
        source = open_images(self.folder)
        order = np.random.default_rng(0).permutation(len(source))[number::processes]
        records = [source.read(i) for i in order]

        def work() -> None:
            for _ in range(PASSES):
                for i, record in zip(order, records, strict=True):
                    decode(source.read(i) if self.from_store else record)

        return work
