"""Published figures, shipped as a table: what LUPerson and its successors report, and where each number was read.

Column `provenance`: "repo" was read in a released repository, "2nd" is the paper's figure as another published
document quotes it. Figures are in per cent.
"""

from pathlib import Path

import pandas as pd

TABLE = Path(__file__).parent / "assets" / "paper_results.csv"
NAMES = {"cuhk03": "cuhk03-labeled"}  # the lab's name of a data set -> the table's
SETTINGS = {
    "full": "full",
    "small-scale": "small-scale (fraction of identities)",
    "few-shot": "few-shot (fraction of images)",
}
SOURCES = {"LUPerson (CVPR 2021), released model": "released", "LUPerson (CVPR 2021), paper": "paper"}


def published_results() -> pd.DataFrame:
    """The whole table: source, method, pretraining, backbone, dataset, setting, ratio, rerank, mAP, rank1, provenance."""
    return pd.read_csv(TABLE)


def luperson_results(
    dataset: str, depth: int = 50, setting: str = "full", ratio: float = 1.0, pretraining: str | None = "LUP unsup."
) -> pd.DataFrame:
    """What LUPerson reports for MGN on a data set, one row per figure; empty if nothing was published.

    `dataset` is the lab's name, `setting` "full", "small-scale" (fraction of identities) or "few-shot" (of images).
    Column `kind` is "released" for the README of the released models, which come first, and "paper" for the paper.
    """
    table = published_results()
    wanted = {
        "dataset": NAMES.get(dataset, dataset),
        "backbone": f"resnet{depth}",
        "setting": SETTINGS[setting],
        "pretraining": pretraining,
        "method": "MGN",
    }
    for column, value in wanted.items():
        table = table[table[column] == value]
    table = table[(table["ratio"] - ratio).abs() < 1e-9]
    return table.assign(kind=table["source"].map(SOURCES)).sort_values("kind", ascending=False, kind="stable")
