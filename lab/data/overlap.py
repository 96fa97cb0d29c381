"""Leakage: is an image of the test set also among the crops that a network is pre-trained on?

Two pictures count as the same when their perceptual hashes differ in a few bits and, at a second look, their small grey
pictures correlate: many people before one background are alike in the first, hardly any in both.

Legend: N crops in a block, T test images, E entries to compare with: usable test images, then their mirror images.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pandas as pd
from PIL import Image

from lab.data.hashes import HashIndex, perceptual_hash
from lab.data.images import Files, ImageSource
from lab.data.jpeg import decode
from lab.data.splits import ReidDataset
from lab.errors import InputError

MAX_BITS = 10  # of 64; this and MIN_SIMILARITY were measured, see docs/data.md
MIN_SIMILARITY = 0.95  # correlation of two small grey pictures
SMALL = (8, 16)  # width and height of a small grey picture
FLAT = 1.0  # grey levels: a small picture with a smaller standard deviation shows nothing to recognise
BLOCK = 1024  # crops that are read and compared at a time
COLUMNS = ["stored", "test", "split", "bits", "similarity", "mirrored"]


@dataclass(frozen=True, eq=False)
class Overlap:
    """What was found: `matches` has a row for each stored crop and test image that are the same picture, surest first.

    Columns: stored (key or path), test (path), split ("query" or "gallery"), bits (of 64 that differ), similarity (up
    to 1), mirrored (bool).
    """

    matches: pd.DataFrame
    stored: int  # crops looked at, unreadable ones too
    tested: int  # different test images, unreadable ones too
    alike: int  # comparisons in which the hashes agreed and the pixels did not
    flat: int  # crops and test images of one grey level, which cannot be compared
    unreadable: tuple[str, ...]  # keys or paths of crops that could not be read
    unreadable_tests: tuple[str, ...]  # paths


@dataclass(frozen=True, eq=False)
class Block:
    """Crops ready to be compared: `hash` (N, 1) uint64, or (N, 2) with the mirror images'; `small` (N, 16, 8) float32,
    of mean 0 and length 1; `state` (N,) str: "usable", "flat" or "unreadable"."""

    hash: np.ndarray
    small: np.ndarray
    state: np.ndarray


def find_overlap(
    source: ImageSource,
    dataset: ReidDataset,
    max_bits: int = MAX_BITS,
    min_similarity: float = MIN_SIMILARITY,
    workers: int = 0,
    progress: Callable[[int], object] = lambda crops: None,
) -> Overlap:
    """Look for every query and gallery image, and its mirror image, among the crops of a source (store, tars, folder).

    `workers` processes read the crops, 0 means this one; `progress` is told after each block how many crops it had.
    Held in memory are the test images, 1.5 kB each, and some blocks of the source. Raises InputError.
    """
    if workers < 0 or not -1 <= min_similarity <= 1:
        raise InputError(
            f"workers is {workers} and min_similarity {min_similarity}; expected workers from 0 and a similarity of -1 to 1"
        )
    HashIndex(np.empty(0, dtype=np.uint64), max_bits)  # refuses a wrong max_bits before minutes of reading
    tests = TestImages(dataset, max_bits, min_similarity, workers)
    found, alike, flat, done, unreadable = [], 0, tests.flat, 0, []
    for block in read_blocks(source, workers):
        row, matches, refused = tests.compare(block)
        if len(row):
            matches.insert(0, "stored", [source.name(done + int(at)) for at in row])
            found.append(matches)
        alike += refused
        flat += int((block.state == "flat").sum())
        unreadable += [source.name(done + int(at)) for at in np.flatnonzero(block.state == "unreadable")]
        done += len(block.state)
        progress(len(block.state))
    matches = pd.concat(found) if found else pd.DataFrame(columns=COLUMNS)
    matches = matches.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)
    # an image that is nearly its own mirror image matches both ways: the surer row stays
    matches = matches.drop_duplicates(["stored", "test"], ignore_index=True)
    return Overlap(matches, done, len(tests.paths), alike, flat, tuple(unreadable), tests.unreadable)


class TestImages:
    """The query and gallery images and their mirror images, ready to be compared with blocks of stored crops."""

    def __init__(self, dataset: ReidDataset, max_bits: int, min_similarity: float, workers: int):
        split = {str(path): "gallery" for path in dataset.gallery.path}
        split |= {str(path): "query" for path in dataset.query.path}  # an image in both counts once
        self.paths, self.splits = np.array(list(split)), np.array(list(split.values()))
        blocks = list(read_blocks(Files(list(split)), workers, mirror=True))
        state = np.concatenate([block.state for block in blocks])
        usable = np.flatnonzero(state == "usable")
        self.min_similarity = min_similarity
        self.flat = int((state == "flat").sum())
        self.unreadable = tuple(self.paths[state == "unreadable"].tolist())
        self.image = np.tile(usable, 2)  # (E,) position in paths
        small = np.concatenate([block.small for block in blocks])[usable]
        self.small = np.concatenate([small, small[:, :, ::-1]])  # (E, 16, 8)
        self.index = HashIndex(np.concatenate([block.hash for block in blocks])[usable].T.ravel(), max_bits)

    def compare(self, block: Block) -> tuple[np.ndarray, pd.DataFrame, int]:
        """Rows (M,) of the block that are test images, the M matches, and how many more had such a hash only."""
        usable = np.flatnonzero(block.state == "usable")
        row, entry, bits = self.index.near(block.hash[usable, 0])
        row = usable[row]
        similarity = np.einsum("mhw,mhw->m", block.small[row], self.small[entry])
        sure = similarity >= self.min_similarity
        image, mirrored = self.image[entry], entry >= len(self.small) // 2
        values = (self.paths[image], self.splits[image], bits, similarity.round(4), mirrored)
        matches = pd.DataFrame({name: column[sure] for name, column in zip(COLUMNS[1:], values, strict=True)})
        return row[sure], matches, int((~sure).sum())


def read_blocks(source: ImageSource, workers: int, mirror: bool = False) -> Iterator[Block]:
    """The crops of an image source in order, block by block, read by some processes or, with 0, by this one."""
    blocks = [range(start, min(start + BLOCK, len(source))) for start in range(0, len(source), BLOCK)]
    if workers == 0 or len(blocks) == 1:  # starting a process takes longer than reading one block
        yield from (_read_block(source, numbers, mirror) for numbers in blocks)
        return
    # spawn: a forked process would inherit open LMDBs and threads that do not exist in it
    with ProcessPoolExecutor(workers, get_context("spawn"), _take_source, (source, mirror)) as pool:
        waiting: deque = deque()  # no more blocks than keep the processes busy, so that memory stays bounded
        try:
            for numbers in blocks:
                waiting.append(pool.submit(_read_block_of_process, numbers))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {workers} processes that read crops was ended from outside, perhaps for want of memory; start "
                "again with fewer workers"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def describe_overlap(result: Overlap) -> str:
    """What was found and what it means, in sentences."""
    matches = result.matches
    compared = f"{result.stored:,} stored crops and {result.tested:,} test images were compared"
    if len(matches):
        images = matches.drop_duplicates("test")
        queries = int((images["split"] == "query").sum())
        sentences = [
            f"{compared}: {len(images):,} of the test images ({queries:,} query, {len(images) - queries:,} gallery) are "
            f"among the crops, in {matches['stored'].nunique():,} of them ({int(matches['mirrored'].sum()):,} of "
            f"{len(matches):,} pairs mirrored). What is measured on this test set after pre-training on these crops "
            "would be too good: look at the pairs, and leave these crops out (`lab data import --without`)."
        ]
    else:
        sentences = [f"{compared}: none of the test images was found among the crops."]
    if result.alike:
        sentences.append(f"{result.alike:,} further pairs had similar hashes but other pixels, and are not counted.")
    if result.flat:
        sentences.append(f"{result.flat:,} images of one grey level show nothing to compare.")
    for names, what in ((result.unreadable, "crops"), (result.unreadable_tests, "test images")):
        if names:
            sentences.append(f"{len(names):,} {what} could not be read and were not compared (first: {names[0]}).")
    return "\n".join(sentences)


def _read_block(source: ImageSource, numbers: range, mirror: bool) -> Block:
    hashes = np.zeros((len(numbers), 1 + mirror), dtype=np.uint64)
    small = np.zeros((len(numbers), SMALL[1], SMALL[0]), dtype=np.float32)
    state = np.full(len(numbers), "unreadable")
    for row, number in enumerate(numbers):
        try:
            rgb = decode(source.read(number))
        except OSError:
            continue  # its state stays "unreadable", which is counted and named
        hashes[row, 0] = perceptual_hash(rgb)
        if mirror:
            hashes[row, 1] = perceptual_hash(rgb[:, ::-1])
        grey = Image.fromarray(rgb).convert("L").resize(SMALL, Image.Resampling.BOX)
        small[row] = np.asarray(grey, dtype=np.float32)
        state[row] = "usable" if small[row].std() >= FLAT else "flat"
    small -= small.mean(axis=(1, 2), keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=(1, 2), keepdims=True), 1e-6)
    return Block(hashes, small, state)


_of_process = ()  # source and mirror, in a process of read_blocks


def _take_source(source: ImageSource, mirror: bool) -> None:
    global _of_process
    _of_process = (source, mirror)


def _read_block_of_process(numbers: range) -> Block:
    source, mirror = _of_process
    return _read_block(source, numbers, mirror)
