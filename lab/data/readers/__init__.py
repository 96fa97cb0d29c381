"""How data sets lie on disk: one reader per layout, each says what it skipped and explains a wrong layout.

A reader returns a ReidDataset or raises InputError with one sentence that shows the expected tree; it never returns an
empty split. In reading order: `scan` (what is in a folder), `market`, `msmt17`, `cuhk03`,
`cuhk03_classic`, `folder`, `counts`.
"""

import os
from pathlib import Path
from typing import Literal

from lab.data.readers.counts import PUBLISHED_COUNTS, count_differences, count_report, queries_without_match
from lab.data.readers.cuhk03 import cuhk03
from lab.data.readers.cuhk03_classic import CLASSIC, SPLITS, cuhk03_classic
from lab.data.readers.folder import folder
from lab.data.readers.market import dukemtmc, market1501, synthetic
from lab.data.readers.msmt17 import msmt17
from lab.data.readers.scan import IMAGE_SUFFIXES, list_images
from lab.data.splits import ReidDataset
from lab.errors import InputError

__all__ = [
    "CLASSIC",
    "DATASETS",
    "IMAGE_SUFFIXES",
    "PUBLISHED_COUNTS",
    "SPLITS",
    "DatasetName",
    "count_differences",
    "count_report",
    "list_images",
    "load",
    "queries_without_match",
]

DatasetName = Literal[
    "market1501", "market1501-500k", "market1501-no-distractors", "dukemtmc", "msmt17",
    "cuhk03", "cuhk03-labeled", "cuhk03-detected", "cuhk03-classic-labeled", "cuhk03-classic-detected", "folder",
    "synthetic",
]  # fmt: skip
DATASETS = {  # what each is, and whether and how one may get it
    "market1501": "Market-1501: 1,501 people, 6 cameras, 2,798 distractors; for research, from its owners.",
    "market1501-500k": "Market-1501 with the 500,000 extra distractors in its gallery; for research, from its owners.",
    "market1501-no-distractors": "Market-1501 without the 2,798 distractors: a variant to study, not the protocol.",
    "dukemtmc": "DukeMTMC-reID: 8 cameras; withdrawn by its owners: local copies only, the lab never downloads it.",
    "msmt17": "MSMT17 (V1, V2 or Market-style): 4,101 people, 15 cameras; for research, on request from its owners.",
    "cuhk03": "CUHK03, new protocol (767/700), hand-labelled boxes as LUPerson reports; on request from its owners.",
    "cuhk03-labeled": "CUHK03, new protocol (767/700), hand-labelled boxes: the same as cuhk03.",
    "cuhk03-detected": "CUHK03, new protocol (767/700), detected boxes: harder than the hand-labelled ones.",
    "cuhk03-classic-labeled": "CUHK03, classic protocol (20 splits of 1,367/100 people), hand-labelled boxes; on request.",
    "cuhk03-classic-detected": "CUHK03, classic protocol (20 splits of 1,367/100 people), detected boxes; on request.",
    "folder": "Your own images: a CSV path,pid,camid,split, or two folders, one per camera (VIPeR, CUHK01).",
    "synthetic": "The lab's own synthetic people: free, made by `lab data synth`.",
}


def load(name: str, root: str | Path, seed: int = 0, split: int = 0) -> ReidDataset:
    """Read the data set `name` (one of DATASETS) at `root`, the folder of its images; for "folder" also a CSV file.

    `seed` matters to "folder" with two folders only: it draws who trains. `split` is one of the 20 of the classic CUHK03,
    from 0; other data sets have one. Raises InputError.
    """
    if name not in DATASETS:
        raise InputError(f"there is no data set '{name}'; choose among {', '.join(DATASETS)}")
    root = Path(os.path.abspath(root))
    if not root.exists():
        raise InputError(f"there is no folder {root}; expected the data set '{name}' there: give its place with --root")
    if name in CLASSIC:
        return cuhk03_classic(root, name, split)
    if split:
        raise InputError(
            f"{name} has one split into training and test, and split {split} was asked for; leave the split out: only "
            f"{' and '.join(CLASSIC)} have {SPLITS}"
        )
    if name == "folder":
        return folder(root, seed)
    if name == "synthetic":
        return synthetic(root)
    if name == "dukemtmc":
        return dukemtmc(root)
    if name == "msmt17":
        return msmt17(root)
    return cuhk03(root, name) if name.startswith("cuhk03") else market1501(root, name)
