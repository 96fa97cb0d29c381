"""A folder tree of images as what a store is made of: numbered as LUPerson's own script does it, or by the keys they have.

Legend: N images, ordered by their keys.
"""

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lab.data.keys import PATTERN, Place, make_key, number_places, parse_key, widths_for
from lab.data.readers.scan import is_image

ROWS = 50_000  # of the index that are made at a time
PERSON = re.compile(r"(-?\d{1,9})_c(\d{1,9})", re.ASCII)  # 0002_c1s1_000451_03.jpg, and -1_c… for junk
JPEG_SUFFIXES = {".jpg", ".jpeg"}
NAMED = 5  # of the things that were left out, so many are named


def leave_out(skipped: dict[str, dict], reason: str, name: str, count: int = 1) -> None:
    """Count what is left out for a reason, and note the first names."""
    entry = skipped.setdefault(reason, {"count": 0, "first": []})
    entry["count"] += count
    if len(entry["first"]) < NAMED:
        # names that are no valid text cannot be printed
        entry["first"].append(name.encode("utf-8", "backslashreplace").decode())


class Tree:
    """Images below a folder: the folder they lie in is their video, the two above it are city and country.

    Missing levels are called "" and have number 0; what lies deeper is part of the video's name. Names that are
    LUPerson's keys already are kept if all are and no two are alike. `skipped` counts by reason what is no image.
    """

    kind = "folder of images"

    def __init__(self, folder: Path):
        self.folder, self.skipped, self.notes, self.labels, self.records = folder, {}, [], {}, None
        self.paths, self.places, self.names = [], [], []  # of each folder: path, place, (n,) file names as bytes
        self.people = True  # whether all names say pid and camera
        self._list_folders()
        self.starts = np.cumsum([0, *map(len, self.names)])
        self.keys, self.order = self._own_keys() or self._numbered_keys()
        self.listing = zlib.crc32("\n".join(self.paths).encode())
        for content in (*self.names, self.keys):
            self.listing = zlib.crc32(content, self.listing)

    def name(self, number: int) -> str:
        """Path of image `number`, relative to the folder."""
        file = int(self.order[number])
        folder = int(np.searchsorted(self.starts, file, side="right")) - 1
        return self.paths[folder] + self.names[folder][file - self.starts[folder]].decode()

    def read(self, number: int) -> bytes:
        """Bytes of image `number`. Raises OSError if the file cannot be read."""
        with open(self.folder / self.name(number), "rb", buffering=0) as file:
            return file.read()

    def size(self) -> tuple[int, str]:
        """Bytes of all images."""
        return sum(os.stat(self.folder / self.name(number)).st_size for number in range(len(self.keys))), "image files"

    def tables(self, numbers: np.ndarray) -> Iterator[pa.Table]:
        """Rows of the index for these images: key, country, city, video, path, and pid and camid where names say them."""
        for start in range(0, len(numbers), ROWS):
            piece = numbers[start : start + ROWS]
            paths = [self.name(number) for number in piece]
            columns = {"key": np.char.decode(self.keys[piece], "ascii")} | self._place_columns(piece)
            columns["path"] = pa.array(paths, pa.string())
            if self.people:
                found = [PERSON.match(os.path.basename(path)) for path in paths]
                columns["pid"] = pa.array([int(match[1]) for match in found], pa.int32())
                columns["camid"] = pa.array([int(match[2]) for match in found], pa.int32())
            yield pa.table(columns)

    def _place_columns(self, piece: np.ndarray) -> dict[str, pa.Array]:
        """Country, city and video of images: folder names, or the key's numbers where there are fewer than three levels."""
        folders = np.searchsorted(self.starts, self.order[piece], side="right") - 1
        places = []
        for number, folder in zip(piece, folders, strict=True):
            place = self.places[folder]
            if not place[0] and (numbers := parse_key(self.keys[number].decode())) and self.keyed:
                place = tuple(map(str, numbers[:3]))
            places.append(place)
        names = zip(*places, strict=True)
        return {
            level: pa.array(values, pa.string())
            for level, values in zip(("country", "city", "video"), names, strict=True)
        }

    def _list_folders(self) -> None:
        """Find all images, folder by folder in the order of their numbers."""
        folders, empty, suffixes = [], [], Counter()
        for parts, names, leaf in self._walk(self.folder, (), set()):
            if names:
                folders.append((_place(parts), parts, names))
                suffixes.update(os.path.splitext(name)[1].lower() for name in names)
            elif leaf and 0 < len(parts) <= 3:
                empty.append((*parts, *[""] * (3 - len(parts))))  # the published script gives it a number too
        self.numbers = number_places([place for place, _, _ in folders] + empty)
        for place, parts, names in sorted(folders, key=lambda folder: self.numbers[folder[0]]):
            self.paths.append("".join(f"{part}/" for part in parts))
            self.places.append(place)
            self.names.append(np.array([name.encode() for name in names]))
            self.people = self.people and all(map(PERSON.match, names))
        if others := {suffix: count for suffix, count in sorted(suffixes.items()) if suffix not in JPEG_SUFFIXES}:
            counts = ", ".join(f"{count:,} {suffix}" for suffix, count in others.items())
            self.notes.append(f"not all images are JPEG files ({counts}): they are stored as they are")

    def _walk(self, folder: Path, parts: tuple[str, ...], seen: set) -> Iterator[tuple[tuple, list[str], bool]]:
        """Each folder: its names from the top, names of the images in it, and whether there are no folders in it."""
        try:
            status = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            leave_out(self.skipped, "folders that cannot be opened", "/".join(parts))
            return
        if (status.st_dev, status.st_ino) in seen:
            leave_out(self.skipped, "folders that a link leads to a second time", "/".join(parts))
            return
        seen.add((status.st_dev, status.st_ino))
        images, folders = [], []
        for entry in entries:
            if reason := _unfit(entry):
                leave_out(self.skipped, reason, "/".join((*parts, entry.name)))
            else:
                (folders if entry.is_dir() else images).append(entry.name)
        yield parts, images, not folders
        for name in folders:
            yield from self._walk(folder / name, (*parts, name), seen)

    def _own_keys(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Keys that the file names are, and the order that sorts them; None if they are to be numbered."""
        keyed = sum(PATTERN.fullmatch(_stem(name)) is not None for names in self.names for name in names.tolist())
        count = int(self.starts[-1])
        self.keyed = keyed == count > 0
        if not self.keyed:
            if keyed:
                self.notes.append(
                    f"{keyed:,} of {count:,} file names are LUPerson's keys: all images are numbered anew"
                )
            return None
        keys = np.concatenate([np.array([*map(_stem, names.tolist())], dtype=np.bytes_) for names in self.names])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if alike := int((keys[1:] == keys[:-1]).sum()):
            self.keyed = False
            self.notes.append(f"the file names are keys, but {alike:,} come twice: all images are numbered anew")
            return None
        return keys, order

    def _numbered_keys(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys that count the images of each folder from 0."""
        numbers = [self.numbers[place] for place in self.places]
        widths = widths_for(numbers, max(map(len, self.names), default=0))
        keys = [
            np.array([make_key(*number, image, widths) for image in range(len(names))], dtype=np.bytes_)
            for number, names in zip(numbers, self.names, strict=True)
        ]
        return np.concatenate([np.empty(0, "S1"), *keys]), np.arange(self.starts[-1])


def _place(parts: tuple[str, ...]) -> Place:
    """Country, city and video of a folder by its names from the top."""
    if len(parts) < 3:
        return (*[""] * (3 - len(parts)), *parts)
    return parts[0], parts[1], "/".join(parts[2:])


def _stem(name: bytes) -> str:
    return os.path.splitext(name.decode())[0]


def _unfit(entry: os.DirEntry) -> str | None:
    """Why an entry of a folder is passed over, if it is."""
    if entry.name.startswith("."):
        return "hidden"
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "names that are no valid text (UTF-8)"
    if entry.is_dir() or (is_image(entry.name) and entry.is_file()):  # a pipe called x.jpg would be waited for
        return None
    return "no image files"
