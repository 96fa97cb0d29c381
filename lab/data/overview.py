"""A look at unlabelled crops for those who want to see them: numbers, places, and some pictures drawn at random.

Legend: K pictures that are shown.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from lab.data.from_store import Records
from lab.data.importing import Source, open_source
from lab.data.info import LEVELS, Info, describe_source
from lab.data.jpeg import decode
from lab.data.keys import split_keys
from lab.data.store import close, is_store
from lab.errors import InputError

MOST_FILES = 200_000  # below a folder that is looked at as it is
TALLEST = 512  # pixels of a picture that is shown

_one_at_a_time = threading.Lock()  # nobody closes what another one reads


@dataclass(frozen=True, eq=False)
class Overview:
    """What `look` saw. `places` has a row per video (country, city, video, images), none if the keys are of another kind.

    `pictures` are K arrays (H, W, 3) uint8, None where an image cannot be read; `drawn` has a row for each: its name and
    what is known of it, such as key, country, city, video, and x, y, width, height of the box in the frame.
    """

    info: Info
    places: pd.DataFrame
    drawn: pd.DataFrame
    pictures: list[np.ndarray | None]


def look(source: str | Path, pictures: int = 30, sample: int = 500, seed: int = 0) -> Overview:
    """Look at a store, a released LMDB, tar shards or a folder of images; `seed` draws what is looked at closely.

    Raises InputError for what is none of these, and for a folder of more than 200,000 files, where it would take long.
    """
    refuse_many_files(source)
    with _one_at_a_time:
        found = open_source(source)
        try:
            return _look(found, source, pictures, sample, seed)
        finally:
            if isinstance(found, Records):
                close(found.store.lmdb)  # a program that runs for days would die of a file that is cut short meanwhile


def _look(found: Source, source: str | Path, pictures: int, sample: int, seed: int) -> Overview:
    info = describe_source(found, source, sample, seed)
    numbers = np.random.default_rng(seed).choice(len(found.keys), min(pictures, len(found.keys)), replace=False)
    numbers = np.sort(numbers)
    drawn = pa.concat_tables(found.tables(numbers), promote_options="permissive").to_pandas()
    drawn.insert(0, "name", [found.name(number) for number in numbers.tolist()])
    return Overview(info, count_by_place(found), drawn, [_picture(found, number) for number in numbers.tolist()])


def count_by_place(found: Source) -> pd.DataFrame:
    """Images of each video with the names of its country and city, in the order of the keys.

    A place without a name is called by its number. No row if the keys are not LUPerson's.
    """
    numbers = split_keys(found.keys)
    if numbers is None or not len(numbers):
        return pd.DataFrame(columns=[*LEVELS, "images"])
    begins = np.flatnonzero(np.r_[True, (numbers[1:, :3] != numbers[:-1, :3]).any(axis=1)])
    names = pa.concat_tables(found.tables(begins), promote_options="permissive").to_pandas()
    table = pd.DataFrame({"images": np.diff(np.r_[begins, len(numbers)])})
    for place, level in reversed([*enumerate(LEVELS)]):
        number = pd.Series(numbers[begins, place].astype(str))
        named = names[level].reset_index(drop=True) if level in names else number
        table.insert(0, level, named.where(named.fillna("") != "", number))
    return table


def refuse_many_files(source: str | Path, most: int = MOST_FILES) -> None:
    """Raise InputError for a folder of so many files that to look at it would take long, such as a whole disk."""
    if is_store(Path(source)) or not os.path.isdir(source):
        return
    waiting, seen, count = [str(source)], set(), 0
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            entries = [] if (status.st_dev, status.st_ino) in seen else os.scandir(folder)
        except OSError:
            continue  # what cannot be opened is counted by who reads the folder
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            count += 1
            if entry.is_dir():
                waiting.append(entry.path)
            if count > most:
                raise InputError(
                    f"{source} holds more than {most:,} files; make a store of the images, which is read in no time: "
                    f"lab data import {source} --out STORE"
                )


def _picture(found: Source, number: int) -> np.ndarray | None:
    try:
        image = Image.fromarray(decode(found.read(number)))
    except OSError:
        return None
    image.thumbnail((2 * TALLEST, TALLEST))
    return np.asarray(image)
