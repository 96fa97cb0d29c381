"""What a re-ID data set is: three lists of crops, each crop with a person (pid) and a camera (camid).

Legend: N crops in a split, P different people in it.
"""

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lab.errors import InputError


@dataclass(frozen=True, eq=False)
class Split:
    """One list of crops: where each lies, who is on it, which camera took it.

    `path` (N,) str, `pid` (N,) int64 and `camid` (N,) int64 keep what the file names say; `labels` is what a
    classifier needs.
    """

    path: np.ndarray
    pid: np.ndarray
    camid: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "path", np.asarray(self.path, dtype=np.str_))
        object.__setattr__(self, "pid", np.asarray(self.pid, dtype=np.int64))
        object.__setattr__(self, "camid", np.asarray(self.camid, dtype=np.int64))
        if not len(self.path) == len(self.pid) == len(self.camid):
            raise ValueError(f"{len(self.path)} paths, {len(self.pid)} pids, {len(self.camid)} camids: not one of each")

    def __len__(self) -> int:
        return len(self.path)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64 in 0..P-1: the position of each pid among the sorted pids of this split."""
        return np.unique(self.pid, return_inverse=True)[1].astype(np.int64)

    @property
    def num_ids(self) -> int:
        return len(np.unique(self.pid))

    @property
    def num_cameras(self) -> int:
        return len(np.unique(self.camid))

    def take(self, index) -> "Split":
        """The crops at `index` (integers or a boolean mask), in that order."""
        return Split(self.path[index], self.pid[index], self.camid[index])


@dataclass(frozen=True, eq=False)
class ReidDataset:
    """A named data set: `train` to learn from, `query` to search with, `gallery` to search in."""

    name: str
    train: Split
    query: Split
    gallery: Split
    notes: tuple[str, ...] = ()  # what the reader skipped and why, one sentence each
    edition: str = ""  # which published edition was read, such as "msmt17-v2"; "" has no published counts
    single_shot: bool = False  # its protocol's CMC is single-gallery-shot: one random gallery crop per person

    def summary(self) -> pd.DataFrame:
        """One row per split: images, identities, cameras, and how many crops an identity has."""
        rows = []
        for name in ("train", "query", "gallery"):
            split = getattr(self, name)
            _, counts = np.unique(split.pid, return_counts=True)
            rows.append(
                {
                    "split": name,
                    "images": len(split),
                    "identities": split.num_ids,
                    "cameras": split.num_cameras,
                    "images per identity": f"{counts.min()}-{counts.max()}, median {np.median(counts):g}",
                }
            )
        return pd.DataFrame(rows).set_index("split")


def few_ids(split: Split, fraction: float, seed: int = 0) -> Split:
    """Keep all crops of a random `fraction` of the people: the paper's small-scale setting (section 5.3).

    int(P * fraction) people, at least one, drawn without replacement; the crops keep their order. Raises InputError
    for a fraction outside (0, 1].
    """
    _check_fraction(fraction, "identities")
    pids = np.unique(split.pid)
    count = max(1, _share(len(pids), fraction))
    kept = np.random.default_rng(seed).choice(pids, count, replace=False)
    return split.take(np.isin(split.pid, kept))


def few_images(split: Split, fraction: float, seed: int = 0) -> Split:
    """Keep a random `fraction` of the crops, spread evenly over all people: the paper's few-shot setting (section 5.3).

    int(N * fraction) crops, at least one a person, levelled: there is a k such that everybody keeps k or k + 1 crops,
    or all when there are no more. So the published files are made; people with many crops lose most. The crops keep
    their order. Raises InputError for a fraction outside (0, 1].
    """
    _check_fraction(fraction, "images")
    random = np.random.default_rng(seed)
    counts = np.bincount(split.labels)  # (P,)
    quota = _level(counts, max(len(counts), _share(len(split), fraction)), random)
    shuffled = random.permutation(len(split))
    by_person = shuffled[np.argsort(split.labels[shuffled], kind="stable")]
    place = np.empty(len(split), dtype=np.int64)  # of each crop in a random order of its person's crops
    place[by_person] = np.arange(len(split)) - np.repeat(np.cumsum(counts) - counts, counts)
    return split.take(place < quota[split.labels])


def apply_split_file(split: Split, file: str | Path) -> Split:
    """The crops of a training split that a published split file names; they keep their order.

    LUPerson's `few_ids/used_ids_0.10.txt` has a pid per line, `few_ims/used_ims_0.10.txt` has `name; label; camera`
    with the label among the sorted training pids and the camera counted from 0. Raises InputError where a line does
    not fit this split.
    """
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"the split file {file} cannot be read ({error}); give a text file of pids or names"
        ) from error
    if not lines:
        raise InputError(f"the split file {file} is empty; expected pids or lines 'name; label; camera'")
    kept = _named_crops(split, file, lines) if ";" in lines[0] else _named_people(split, file, lines)
    return split.take(kept)


def choose_subset(split: Split, fraction: float, of: str, file: str | Path | None, seed: int) -> Split:
    """The part of a training split that a run learns from: a share of its "ids" or "images", or a split file's crops."""
    if file is not None and fraction != 1:
        raise InputError(f"both the split file {file} and the fraction {fraction} were given; give one of them")
    if file is not None:
        return apply_split_file(split, file)
    return (few_images if of == "images" else few_ids)(split, fraction, seed)


def _check_fraction(fraction: float, what: str) -> None:
    if not 0 < fraction <= 1:
        raise InputError(f"the fraction of {what} is {fraction}; expected more than 0 and at most 1")


def _share(total: int, fraction: float) -> int:
    # a product such as 0.29 * 100 is 28.999...: the tolerance keeps the count that was meant
    return math.floor(total * fraction + 1e-9)


def _level(counts: np.ndarray, budget: int, random: np.random.Generator) -> np.ndarray:
    """(P,) crops for each person: the highest level k that the budget pays for, and one more for some drawn people."""
    level = 1
    while level < counts.max() and np.minimum(counts, level + 1).sum() <= budget:
        level += 1
    quota = np.minimum(counts, level)
    more = random.choice(np.flatnonzero(counts > level), budget - quota.sum(), replace=False)
    quota[more] += 1
    return quota


def _named_people(split: Split, file: str | Path, lines: list[str]) -> np.ndarray:
    known = set(split.pid.tolist())
    strange = [line for line in lines if not line.isdigit() or int(line) not in known]
    if strange:
        raise InputError(
            f"{len(strange)} of {len(lines)} lines in {file} are no pid of this training split (first: "
            f"'{strange[0][:60]}'); expected a pid per line, or 'name; label; camera': give this data set's file"
        )
    return np.isin(split.pid, [int(line) for line in lines])


def _named_crops(split: Split, file: str | Path, lines: list[str]) -> np.ndarray:
    known = {os.path.basename(path): at for at, path in enumerate(split.path.tolist())}
    rows = [[field.strip() for field in line.split(";")] for line in lines]
    strange = [row[0] for row in rows if row[0] not in known]
    if strange:
        raise InputError(
            f"{len(strange)} of {len(rows)} images in {file} are not in this training split (first: {strange[0][:60]}, "
            f"here a name is {os.path.basename(split.path[0])}); give the file of this data set and copy"
        )
    kept = np.zeros(len(split), dtype=bool)
    for row in rows:
        at = known[row[0]]
        ours = [str(split.labels[at]), str(split.camid[at] - 1)]
        if row[1:] != ours:
            raise InputError(
                f"{file} has '{'; '.join(row)[:80]}' and here that image has label {ours[0]} and camera {ours[1]} (from "
                "0); expected the same: give the file of this data set, and all of its training identities"
            )
        kept[at] = True
    return kept
