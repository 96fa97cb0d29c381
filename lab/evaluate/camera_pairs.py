"""How well each camera finds people in each other camera: the gallery of one camera ranked alone, for every camera.

A mean over all cameras hides that two of them look at each other badly, because of their light or angle. Legend: Q
queries, G gallery crops, C gallery cameras, B queries of one block.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from tqdm import tqdm

from lab.errors import InputError
from lab.files import replacing
from lab.runs import Features

if TYPE_CHECKING:  # stored tables are read and shown without torch
    import torch
    from torch import Tensor

FILE, TABLE = "cameras.npz", "cameras.csv"
METRICS = ("mAP", "rank-1", "rank-5")


@dataclass(frozen=True, eq=False)
class CameraPairs:
    """What every query finds in every gallery camera alone.

    `ap` (Q, C) is NaN and `first_match` (Q, C), the 1-based rank of the first match, is 0 where the query's person is
    not in that camera, and always for the query's own camera, whose matches the protocol removes. `query_camid` (Q,),
    `gallery_camid` (C,) in order.
    """

    query_camid: np.ndarray
    gallery_camid: np.ndarray
    ap: np.ndarray
    first_match: np.ndarray

    def table(self) -> pd.DataFrame:
        """One row per pair of different cameras: queries with a match, and their mAP, rank-1 and rank-5 in 0..1.

        The figures are NaN where no query has a match.
        """
        rows = []
        for own in np.unique(self.query_camid):
            for place, other in enumerate(self.gallery_camid):
                if own != other:
                    asked = (self.query_camid == own) & (self.first_match[:, place] > 0)
                    first, ap = self.first_match[asked, place], self.ap[asked, place]
                    found = [ap.mean(), (first <= 1).mean(), (first <= 5).mean()] if len(ap) else [np.nan] * 3
                    rows.append((int(own), int(other), len(ap), *found))
        return pd.DataFrame(rows, columns=["query camid", "gallery camid", "queries", *METRICS])

    def matrix(self, metric: str = "mAP") -> pd.DataFrame:
        """One metric with a row per query camera and a column per gallery camera; NaN where there is nothing to find."""
        if metric not in METRICS:
            raise InputError(f"metric is '{metric}'; choose one of {', '.join(METRICS)}")
        found = self.table().pivot(index="query camid", columns="gallery camid", values=metric)
        return found.reindex(index=np.unique(self.query_camid), columns=self.gallery_camid).astype(np.float64)

    def save(self, folder: Path) -> None:
        """Write cameras.npz and the table as cameras.csv into a folder that exists, beside what it holds."""
        with replacing(Path(folder) / FILE) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **{field.name: getattr(self, field.name) for field in fields(self)})
        with replacing(Path(folder) / TABLE) as temporary:
            self.table().to_csv(temporary, index=False)

    @classmethod
    def load(cls, folder: Path) -> "CameraPairs":
        """Read cameras.npz; a file that is missing or another one is an InputError."""
        file = Path(folder) / FILE
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(
                f"{file} holds no camera pairs ({type(error).__name__}: {error}); expected an npz that an evaluation "
                "wrote: evaluate again"
            ) from error
        shape = (len(found.query_camid), len(found.gallery_camid))
        if found.ap.shape != shape or found.first_match.shape != shape:
            raise InputError(
                f"{file} holds ap {found.ap.shape} and first_match {found.first_match.shape}; expected {shape}, a row "
                "for each query and a column for each gallery camera: evaluate again"
            )
        return found


def camera_pairs(
    query: Features,
    gallery: Features,
    distance: str = "cosine",
    ap: str = "step",
    blocks: "Iterable[Tensor] | None" = None,
    memory_gb: float = 0.25,
    device: "str | torch.device" = "cpu",
    progress: bool = False,
) -> CameraPairs:
    """Rank each gallery camera's crops alone, for the queries that have a match there.

    Settings are those of `evaluate_ranking`; all cameras together cost one more matrix product of queries and gallery,
    or less where few people are seen by all cameras. `blocks` gives other distances, for instance
    re-ranked ones: tensors (B, G) for consecutive queries.

    Raises InputError for features that cannot be compared and when no query at all has a match.
    """
    from lab.evaluate.metrics import check_features, check_names, evaluate_ranking

    check_names(distance, ap)
    check_features(query, gallery)
    if blocks is not None:  # these are compared, not the features
        query, gallery = (replace(part, values=np.zeros((len(part.pid), 1), np.float32)) for part in (query, gallery))
    cameras = np.unique(gallery.camid)
    shape = (len(query.pid), len(cameras))
    found = CameraPairs(query.camid, cameras, np.full(shape, np.nan), np.zeros(shape, np.int64))
    members = [np.flatnonzero(gallery.camid == camid) for camid in cameras]
    parts, start = [(len(query.pid), None)] if blocks is None else ((len(block), block) for block in blocks), 0
    with tqdm(total=found.ap.size, desc="cameras", unit="query", disable=not progress) as bar:
        for count, block in parts:
            asked = slice(start, start + count)
            for place, (camid, columns) in enumerate(zip(cameras, members, strict=True)):
                has_match = np.isin(query.pid[asked], gallery.pid[columns]) & (query.camid[asked] != camid)
                rows = start + np.flatnonzero(has_match)
                if len(rows):
                    given = None if block is None else [block[rows - start][:, columns]]
                    crops = take(query, rows), take(gallery, columns)
                    result = evaluate_ranking(*crops, distance, ap, given, memory_gb, device)
                    found.ap[rows, place], found.first_match[rows, place] = result.ap, result.first_match
                bar.update(count)
            start += count
    if start != len(query.pid):
        raise ValueError(f"the blocks cover {start} queries of {len(query.pid)}")
    return found


def take(features: Features, rows: np.ndarray) -> Features:
    """Some of the crops, by number; values that are on disk stay there."""
    return Features(features.values.take(rows, axis=0), features.pid[rows], features.camid[rows], features.path[rows])
