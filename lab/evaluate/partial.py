"""Features while they are being made: in memory, or in a file from which a killed extraction goes on.

Legend: N crops, B crops of one batch, R rows that are written at a time, D feature size.
"""

import glob
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.errors import InputError
from lab.features_on_disk import RowsOnDisk
from lab.files import write_json

WRITE_SECONDS = 10.0  # between two writes: what a killed extraction loses, and how often a GPU is waited for


class Rows:
    """Features as they come: they wait where they were computed, and are put to the rest every few seconds.

    So a GPU works on while its features wait, and has to be waited for once in `WRITE_SECONDS` instead of every batch.
    The rest is in memory here, and on disk in `PartialFile`.
    """

    def __init__(self):
        self.start, self.done, self.stop = 0, 0, 0  # rows start..stop are to be made, start..done are there
        self.waiting: list[Tensor] = []
        self.found: np.ndarray | None = None

    def begin(self, paths: np.ndarray, settings: dict) -> None:
        """Find out which row is next. `settings` are what rows depend on beside the model and the crops."""
        self.paths, self.settings, self.stop = paths, settings, len(paths)
        self.written = time.monotonic()

    def add(self, features: Tensor) -> None:
        """Take the next rows (B, D)."""
        self.waiting.append(features)
        if time.monotonic() - self.written >= WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Put the rows that wait to the rest. Raises InputError if they are not finite."""
        if not self.waiting:
            return
        features = torch.cat(self.waiting).cpu().numpy()  # (R, D)
        self.waiting.clear()
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            reason = "its weights are broken: train it again or use an earlier checkpoint"
            raise InputError(
                f"the model gives NaN or infinite features for {len(bad)} of {len(features)} crops in a row (first: "
                f"{self.paths[self.done + bad[0]]}); "
                + ("float16 is too narrow for it: use amp bfloat16" if self.settings["amp"] == "float16" else reason)
            )
        self.put(features)
        self.done += len(features)
        self.written = time.monotonic()

    def put(self, features: np.ndarray) -> None:
        """Store rows (R, D) float32 from row `done` on."""
        if self.found is None:
            self.found = np.empty((self.stop, features.shape[1]), dtype=np.float32)
        self.found[self.done : self.done + len(features)] = features

    def values(self) -> np.ndarray | RowsOnDisk:
        """The rows start..stop, when all are there."""
        return self.found

    def remove(self) -> None:
        """Delete what was only needed to go on later."""


class PartialFile(Rows):
    """Rows on disk, so that an extraction that was killed goes on where it was and ends with the same bytes.

    `<file>.partial.npy` is the matrix (N, D); `<file>.partial.json` is a note of what its rows are made from and up to
    which it is filled, written when they are safely on disk. `source` is what the caller knows of the model, in JSON's
    types. Rows are dropped when they are of another source, other settings or other crops; a crop that comes after
    them may have been replaced or left out.

    Several processes may fill one file: each has rows `start`..`stop`, and a note with these numbers in its name. For
    the bytes that one process would make, `start` has to be a multiple of the batch size. Raises InputError for a
    folder that cannot be written.
    """

    def __init__(self, file: Path, source: dict, start: int = 0, stop: int | None = None):
        super().__init__()
        self.file, self.source, self.share = Path(file), source, (start, stop)
        self.matrix = self.file.with_name(f"{self.file.name}.partial.npy")
        share = "" if self.share == (0, None) else f"-{start}-{stop}"
        self.note = self.file.with_name(f"{self.file.name}.partial{share}.json")

    def begin(self, paths: np.ndarray, settings: dict) -> None:
        super().begin(paths, settings)
        self.start, stop = self.share
        self.stop = len(paths) if stop is None else stop
        if self.start % settings["batch_size"]:
            raise ValueError(f"rows from {self.start} on do not begin with a batch of {settings['batch_size']}")
        self.source = self.source | settings
        for note in self._notes():
            self._drop_if_other(note)
        self.done, self.size, self.crops = self.start, None, hashlib.sha256()
        note = read_note(self.note)
        if note and self.matrix.is_file():
            self._go_on(note, settings["batch_size"])

    def put(self, features: np.ndarray) -> None:
        count, size = features.shape
        if self.size not in (None, size):
            raise InputError(f"{self.matrix} has rows of {self.size} values, the model gives {size}; delete this file")
        self.size, done = size, self.done + count
        hash_crops(self.crops, self.paths[self.done : done])
        note = {"rows": [self.start, self.stop], "done": done, "size": size, "crops": self.crops.hexdigest()}
        try:
            self._store(features)
            write_json(self.note, note | {"source": self.source})
        except OSError as error:
            reason = f"cannot write {self.matrix} ({error.strerror})"
            raise InputError(f"{reason}; give a run folder that is writable and has room") from error

    def values(self) -> np.ndarray | RowsOnDisk:
        if self.share == (0, None):
            return RowsOnDisk.open(self.matrix)
        return np.load(self.matrix, mmap_mode="r")[self.start : self.stop]  # others may still write beside them

    def remove(self) -> None:
        for file in (self.matrix, *self._notes()):
            file.unlink(missing_ok=True)

    def _store(self, features: np.ndarray) -> None:
        """Write rows from `done` on. The header and the length are the same from every process that fills the file."""
        shape = (len(self.paths), features.shape[1])
        self.matrix.parent.mkdir(parents=True, exist_ok=True)
        self.matrix.touch()
        with open(self.matrix, "r+b") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
            first, row_bytes = stream.tell(), 4 * shape[1]
            stream.truncate(first + shape[0] * row_bytes)
            stream.seek(first + self.done * row_bytes)
            stream.write(np.ascontiguousarray(features, dtype="<f4").data)
            stream.flush()
            os.fsync(stream.fileno())

    def _go_on(self, note: dict, batch_size: int) -> None:
        """Take the rows of a note over, if they are of the same crops; all batches begin where they always do."""
        done = note["done"]
        kept = done if done == self.stop else done - done % batch_size  # the last batch may have been a smaller one
        crops = hash_crops(hashlib.sha256(), self.paths[self.start : kept])
        if hash_crops(crops.copy(), self.paths[kept:done]).hexdigest() != note["crops"]:
            self._drop(self.note, note, "of other crops")
        else:
            self.done, self.size, self.crops = kept, note["size"], crops

    def _notes(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{glob.escape(self.file.name)}.partial*.json"))

    def _drop_if_other(self, file: Path) -> None:
        """Drop rows of another source, and those that were shared out otherwise: two notes never speak of one row."""
        note = read_note(file) or {}
        before, rows = note.get("source", {}), note.get("rows", (0, 0))
        other = [key for key in self.source | before if before.get(key) != self.source.get(key)]
        if other:
            self._drop(file, note, f"made otherwise ({', '.join(other)})")
        elif file != self.note and rows[0] < self.stop and self.start < rows[1]:
            self._drop(file, note, "of a share that is another one now")

    def _drop(self, file: Path, note: dict, reason: str) -> None:
        file.unlink(missing_ok=True)
        first = note.get("rows", (0, 0))[0]
        print(f"{note.get('done', first) - first} rows that wait in {self.matrix} are {reason} and are made anew")


def hash_crops(digest, paths: np.ndarray):
    """Add crops to a hashlib digest and return it: they are told apart by path, size and time."""
    for path in paths:
        try:
            status = os.stat(path)
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0absent\n".encode())  # reading it will say so
    return digest


def read_note(file: Path) -> dict | None:
    """The JSON of a note; None if it is absent or broken: then it promises nothing, and things are made anew."""
    try:
        note = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None
