"""What a re-ID data set is: three lists of crops, each crop with a person (pid) and a camera (camid).

Legend: N crops in a split, P different people in it.
"""

import math
from dataclasses import dataclass
from functools import cached_property

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
    if not 0 < fraction <= 1:
        raise InputError(f"the fraction of identities is {fraction}; expected more than 0 and at most 1")
    pids = np.unique(split.pid)
    # a product such as 0.29 * 100 is 28.999...: the tolerance keeps the count that was meant
    count = max(1, math.floor(len(pids) * fraction + 1e-9))
    kept = np.random.default_rng(seed).choice(pids, count, replace=False)
    return split.take(np.isin(split.pid, kept))
