"""The points of an embedding map: which crops are laid out, where each came to lie, and the file that keeps them.

A t-SNE map takes half a minute, so a run keeps its maps: maps/<dataset>-<part>-<method>-<size>-<seed>.npz. A map that is
of other features, of other crops, or cannot be read counts as not there.

Legend: N crops, M crops of the map.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.errors import InputError
from lab.evaluate.breakdown import DISTRACTOR
from lab.features_on_disk import UNREADABLE
from lab.files import replacing
from lab.runs import EvalResult, Features, Run

FOLDER = "maps"
MOST_BYTES = 1 << 26  # of a stored map; what is larger is none


@dataclass(frozen=True, eq=False)
class MapPoints:
    """Where crops lie on a map: `row` (M,) int64 their numbers, `points` (M, 2), `share` (2,) of the variance or NaN."""

    row: np.ndarray
    points: np.ndarray
    share: np.ndarray

    def save(self, file: Path, stamp: str) -> None:
        """Write the map of the features that `stamp` stands for. Raises OSError, and InputError for a folder that is a link."""
        file = Path(file)
        file.parent.mkdir(exist_ok=True)
        if file.parent.is_symlink():  # a run may come from anywhere, and nothing is written outside it
            raise InputError(f"{file.parent} is a link; put a folder there")
        with replacing(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, row=self.row, points=self.points, share=self.share, stamp=np.array(stamp))

    @classmethod
    def load(cls, file: Path, stamp: str, row: np.ndarray) -> "MapPoints | None":
        """The stored map, or None unless it is whole, of the features that `stamp` stands for, and of the crops `row`."""
        if not Path(file).is_file():
            return None
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                    return None
            with np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("row", "points", "share", "stamp")}
        except (*UNREADABLE, MemoryError, NotImplementedError):  # the last: a zip in a way that Python does not know
            return None
        same = str(found.pop("stamp")) == stamp and np.array_equal(found["row"], row)
        points, share = found["points"], found["share"]
        numbers = points.dtype.kind == "f" and share.dtype.kind == "f"
        whole = numbers and points.shape == (len(row), 2) and share.shape == (2,) and np.isfinite(points).all()
        return cls(**found) if same and whole else None


def map_file(run: Run, dataset: str, part: str, method: str, size: int, seed: int) -> Path:
    """Where a run keeps a map of `part` ("query", "gallery" or "both") of a data set."""
    return run.folder / FOLDER / f"{dataset}-{part}-{method}-{size}-{seed}.npz"


def choose_crops(pid: np.ndarray, most: int, seed: int = 0, distractors: bool = False) -> np.ndarray:
    """Numbers of at most `most` crops, in order: all of them, or else all crops of people drawn by `seed`.

    `pid` (N,) says who is on each crop. Junk (below 0) is never among them. With `distractors` pid 0 is nobody in
    particular, and left out when a sample is drawn. One person with more than `most` crops keeps some.
    """
    random = np.random.default_rng(seed)
    kept = np.flatnonzero(pid >= 0)
    if len(kept) <= most:
        return kept
    people, counts = np.unique(pid[kept], return_counts=True)
    if distractors and len(people) > 1:
        people, counts = people[people != DISTRACTOR], counts[people != DISTRACTOR]
    order = random.permutation(len(people))
    fitting = int(np.searchsorted(np.cumsum(counts[order]), most, side="right"))
    rows = kept[np.isin(pid[kept], people[order[: max(1, fitting)]])]
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))


def choose_people(pid: np.ndarray, count: int, seed: int = 0, distractors: bool = False) -> list[int]:
    """`count` people (fewer, if there are not so many) drawn by `seed`, those with several crops first; sorted."""
    people, crops = np.unique(pid[pid >= 0], return_counts=True)
    if distractors:
        people, crops = people[people != DISTRACTOR], crops[people != DISTRACTOR]
    drawn = np.random.default_rng(seed).permutation(len(people))
    drawn = drawn[np.argsort(crops[drawn] < 4, kind="stable")]
    return sorted(people[drawn[:count]].tolist())


def has_distractors(query_pid: np.ndarray, gallery_pid: np.ndarray | None) -> bool:
    """Whether pid 0 in the gallery is nobody in particular, as in Market-1501: no query asks for it."""
    return gallery_pid is not None and DISTRACTOR in gallery_pid and DISTRACTOR not in query_pid


def match_queries(query: Features, result: EvalResult) -> np.ndarray:
    """The number in the result of each crop (N,) of stored query features; -1 where the result has no such query.

    Crops are told apart by their path, and where there are none, the order has to be the same.
    """
    if np.array_equal(query.path, result.path):
        same = np.array_equal(query.pid, result.pid) and np.array_equal(query.camid, result.camid)
        return np.arange(len(query.pid)) if same else np.full(len(query.pid), -1)
    number = {path: at for at, path in enumerate(result.path.tolist()) if path}
    return np.array([number.get(path, -1) for path in query.path.tolist()], dtype=np.int64)
