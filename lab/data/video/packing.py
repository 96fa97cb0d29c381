"""The parts of all videos become a store: one writer, in the order of the keys."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lab.data.keys import Place
from lab.data.store_writer import StoreWriter
from lab.data.video.parts import Part, grouped
from lab.data.video.report import summarise
from lab.errors import InputError
from lab.files import write_json

STARTED = "packing.json"  # of which parts the LMDB is made, as long as it is
Progress = Callable[[str, int, int], None]  # what is done, how much of it, how much in all


class NothingKeptError(InputError):
    """A build in which no box became a crop; `report` says why."""

    def __init__(self, report: dict):
        cure = "give the filters other limits" if report["boxes"] else "give detections that can be read"
        super().__init__(
            f"none of the {report['boxes']} boxes of {report['videos']} video(s) became a crop; expected at least one: "
            f"look at the reasons in the report, and {cure}"
        )
        self.report = report


def pack(
    folder: Path, parts: Sequence[tuple[Part, Place]], source: dict, others: dict[str, list[str]], progress: Progress
) -> dict:
    """Write the store from the parts of all videos, and return its report.

    `source` goes into store.json, `others` into the report (`summarise`). Stopped and called again, it goes on, or begins
    anew if parts have changed. Raises NothingKeptError if there is no crop.
    """
    parts = sorted(parts, key=lambda one: one[0].name)
    notes = [part.read_note() for part, _ in parts]
    report = summarise(notes, others)
    full = [one for one, note in zip(parts, notes, strict=True) if note["kept"]]
    if not full:
        raise NothingKeptError(report)
    _begin(folder, [note["sha256"] for note in notes if note["kept"]])
    writer = StoreWriter(folder)
    last = writer.last
    for count in writer.write(record for part, _ in full for record in part.records(last)):
        progress("packing", count, report["kept"])
    writer.finish(
        grouped(part.rows(place) for part, place in full), source, report, _labels([part for part, _ in full])
    )
    return report


def clean(folder: Path) -> None:
    """Remove what is not needed when the store is there."""
    shutil.rmtree(folder / "parts", ignore_errors=True)
    (folder / STARTED).unlink(missing_ok=True)


def _begin(folder: Path, parts: list[str]) -> None:
    """Make sure that an LMDB which was begun has the crops of these parts in it, and not of earlier ones."""
    made_of = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    file = folder / STARTED
    if not file.is_file() or made_of not in file.read_text():
        shutil.rmtree(folder / "lmdb", ignore_errors=True)
        write_json(file, {"parts": made_of})


def _labels(parts: Sequence[Part]) -> dict[str, list[int]]:
    """Tracklets as numbers over the whole store for keys.pkl ("pids", -1 unknown), if any is known."""
    pids, started = [], 0
    for part in parts:
        track = part.tracks()
        known, numbers = np.unique(track[track >= 0], return_inverse=True)
        found = np.full(len(track), -1, dtype=np.int64)
        found[track >= 0] = started + numbers
        pids.append(found)
        started += len(known)
    return {"pids": np.concatenate(pids).tolist()} if started else {}
